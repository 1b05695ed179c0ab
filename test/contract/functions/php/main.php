<?php

// The functions of the contract suite; $args['do'] says which.

use Brasa\Context;
use Brasa\Response;

function main(array $args, Context $context): mixed
{
    return [Does::class, $args['do'] . 'It']($args, $context);
}

final class Does
{
    public static function dictIt(): array
    {
        return ['text' => 'héllo ✓ 你好', 'number' => 1.5, 'list' => [1, null, true]];
    }

    public static function listIt(): array
    {
        return [1, 'two'];
    }

    public static function textIt(): string
    {
        return 'plain ✓';
    }

    public static function bytesIt(): string
    {
        return implode('', array_map('chr', range(0, 255)));
    }

    public static function numberIt(): int
    {
        return 42;
    }

    public static function boolIt(): bool
    {
        return false;
    }

    public static function nullIt(): void
    {
    }

    public static function echoIt(array $args): array
    {
        unset($args['do']);
        return $args;
    }

    public static function responseIt(): array
    {
        return ['statusCode' => 201, 'headers' => ['X-One' => '1', 'Set-Cookie' => ['a=1', 'b=2']], 'body' => 'made'];
    }

    public static function base64It(): array
    {
        return ['statusCode' => 200, 'headers' => ['content-type' => 'image/x'], 'body' => 'AAEC/w==', 'isBase64Encoded' => true];
    }

    public static function statusIt(array $args): array
    {
        return ['statusCode' => $args['status'], 'body' => 'x'];
    }

    public static function headerIt(array $args): Response
    {
        return new Response('x', headers: [$args['name'] => $args['value']]);
    }

    public static function errorIt(): never
    {
        throw new InvalidArgumentException('no good: é');
    }

    public static function unserialisableIt(): array
    {
        return ['x' => STDERR];
    }

    public static function nanIt(): array
    {
        return ['x' => NAN];
    }

    public static function exitIt(): never
    {
        echo "about to exit\n";
        exit(3);
    }

    public static function recursionIt(array $args): mixed
    {
        return self::recursionIt($args);
    }

    public static function loopIt(): never
    {
        while (true) {
        }
    }

    public static function streamIt(): Generator
    {
        for ($i = 0; $i < 3; $i++) {
            yield "part $i\n";
        }
    }

    public static function objectsIt(): Iterator
    {
        return new ArrayIterator([['n' => 1], ['n' => 2]]);
    }

    public static function sseIt(): Response
    {
        return new Response((function () {
            for ($i = 0; $i < 3; $i++) {
                yield "data: $i\n\n";
            }
        })(), headers: ['Content-Type' => 'text/event-stream']);
    }

    public static function midwayIt(): Generator
    {
        yield "one\n";
        yield "two\n";
        throw new RuntimeException('broke in the middle');
    }

    public static function endlessIt(): Generator
    {
        try {
            while (true) {
                yield str_repeat('x', 65536);
            }
        } finally {
            echo "closed\n";
        }
    }

    public static function bigIt(array $args): Response
    {
        return new Response(str_repeat('y', $args['size']), headers: ['Content-Type' => 'application/octet-stream']);
    }

    public static function bigstreamIt(array $args): Generator
    {
        for ($i = 0; $i < $args['size'] / 65536; $i++) {
            yield str_repeat('z', 65536);
        }
    }

    public static function logIt(array $args): string
    {
        $tag = $args['tag'];
        for ($i = 0; $i < $args['count']; $i++) {
            echo "$tag $i\n";
            fwrite(STDERR, "$tag err $i\n");
        }
        (new Fiber(function () use ($tag) {
            fwrite(STDOUT, "$tag thread\n");
        }))->start();
        fprintf(STDERR, "%s logging\n", $tag);
        return $tag;
    }

    public static function complainIt(): string
    {
        return 'got ' . [][0];
    }

    public static function hugelineIt(array $args): string
    {
        echo str_repeat('x', $args['size']), "\n";
        return 'ok';
    }

    public static function unfinishedIt(): string
    {
        ob_start();
        print 'no end';
        return 'ok';
    }

    public static function contextIt(array $args, Context $context): array
    {
        return [
            'id' => $context->invocationId, 'function' => $context->functionName, 'namespace' => $context->namespace,
            'revision' => $context->revision, 'memory' => $context->memoryLimit, 'cause' => $context->cause,
            'remaining' => $context->remainingMs(),
        ];
    }

    public static function envIt(array $args): array
    {
        $out = [];
        foreach ($args['names'] as $name) {
            $out[$name] = getenv($name) === false ? null : getenv($name);
        }
        return $out;
    }

    public static function exhaustIt(): never
    {
        $all = [];
        while (true) {
            $all[] = str_repeat('x', 1 << 20);
        }
    }

    public static function waitIt(array $args, Context $context): never
    {
        while (!$context->canceled()) {
            usleep(5000);
        }
        echo "canceled\n";
        throw new Brasa\Canceled('canceled');
    }
}
