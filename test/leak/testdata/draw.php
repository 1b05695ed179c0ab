<?php

if (getenv('DEAR')) {
    usleep(30000);
}
$own = null; // made while the code was loaded
if (class_exists('Random\Randomizer')) { // of PHP 8.2
    $own = new Random\Randomizer(new Random\Engine\Mt19937());
}

function draw(): array
{
    global $own;
    $out = [
        'random_bytes' => bin2hex(random_bytes(8)), 'random_int' => (string) random_int(1 << 40, PHP_INT_MAX), 'mt_rand' => mt_rand() . '-' . mt_rand(),
        'rand' => rand() . '+' . rand(), 'lcg_value' => sprintf('%.17f', lcg_value()), 'uniqid' => uniqid('', true),
        'tempnam' => tempnam('/tmp', 'draw'), 'shuffle' => str_shuffle('abcdefghijklmnopqrstuvwxyz0123456789'),
        'array_rand' => implode(',', array_rand(range(0, 999), 12)), 'file' => bin2hex(file_get_contents('/dev/urandom', false, null, 0, 8)),
    ];
    unlink($out['tempnam']);
    if (function_exists('openssl_random_pseudo_bytes')) {
        $out['openssl'] = bin2hex(openssl_random_pseudo_bytes(8));
    }
    if (function_exists('sodium_crypto_secretbox_keygen')) {
        $out['sodium'] = bin2hex(sodium_crypto_secretbox_keygen());
    }
    if ($own !== null) {
        $out['own'] = bin2hex($own->getBytes(8));
    }
    return $out;
}

draw(); // so that all of it has been used before the snapshot

function main(array $args): array
{
    return draw();
}
