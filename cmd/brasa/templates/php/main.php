<?php

/** Called once per call with the input, parsed from JSON; what it returns is the answer. */
function main(array $args): array
{
    $name = $args['name'] ?? 'world';
    echo "greeting $name\n"; // goes to the logs: brasa logs
    return ['greeting' => "Hello, $name!"];
}
