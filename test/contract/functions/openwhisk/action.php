<?php
$loaded = getenv('AT_LOAD');
$calls = 0;

function main(array $args)
{
    global $loaded, $calls;
    $calls++;
    switch ($args['do'] ?? 'echo') {
        case 'echo':
            echo "out ✓\n";
            fwrite(STDERR, "err ✓\n");
            return $args;
        case 'env':
            return array_combine($args['names'], array_map(fn ($name) => getenv($name) === false ? null : getenv($name), $args['names']));
        case 'load': return ['loaded' => $loaded, 'unicode' => 'héllo ✓ 你好'];
        case 'count': return ['calls' => $calls];
        case 'error': return ['error' => ['code' => 7, 'text' => 'mine']];
        case 'throw': throw new Exception('thrown on purpose');
        case 'exit': exit(3);
        case 'hang': sleep(600); break;
        case 'text': return 'just text';
        case 'list': return [1, 'two'];
        case 'nothing': return null;
        case 'big': return ['text' => str_repeat('x', $args['size'])];
        case 'memory':
            for ($hold = []; ;) {
                $hold[] = str_repeat(chr(count($hold) % 256), 8 << 20);
            }
    }
}

function niam(array $args): array
{
    return ['entry' => 'niam'];
}
