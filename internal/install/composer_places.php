<?php
// What the installer runs before and after Composer: where composer.lock has packages from. Composer copies
// whatever directory or file a package names as its place, also those of the step itself; what it has copied
// from elsewhere than a registry or the code is kept by nobody.
// A line that begins with "brasa: " says what the caller must mend.

function inside(string $place): bool
{
    $at = realpath(preg_replace('~^file://~', '', $place));
    return $at !== false && (str_starts_with($at, getcwd() . '/') || preg_match('~^/packages-[0-9]+/~', $at));
}

$lock = json_decode(file_get_contents('composer.lock'), true);
foreach (['packages', 'packages-dev'] as $list) {
    foreach ($lock[$list] ?? [] as $package) {
        foreach (['dist', 'source'] as $from) {
            if (empty($package[$from])) {
                continue;
            }
            $place = (string) ($package[$from]['url'] ?? '');
            $type = (string) ($package[$from]['type'] ?? '');
            $remote = preg_match('~^https?://~i', $place) || $type === 'git' && preg_match('~^(?:git@|git://|ssh://[^-])~', $place);
            if ($from === 'dist' ? !$remote && !inside($place) : !$remote || $type !== 'git') {
                echo 'brasa: the package ' . ($package['name'] ?? '') . " comes from $type $place, which is neither a registry's nor the code's\n";
                exit(1);
            }
        }
    }
}
