<?php

// Handlers that take the event.

use Brasa\Event;
use Brasa\Response;

function handle(Event $event): mixed
{
    return match ($event->path) {
        '/echo' => new Response($event->stream(), headers: ['Content-Type' => 'application/octet-stream']),
        '/size' => ['size' => strlen($event->body())],
        '/ignore' => 'ignored',
        '/request' => [
            'method' => $event->method, 'query' => $event->query, 'all' => $event->queryAll('a'), 'header' => $event->header('x-thing'),
            'args' => $event->args(), 'text' => $event->body(),
        ],
        default => new Response('none', 404),
    };
}
