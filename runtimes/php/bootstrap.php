<?php

// Brasa's bootstrap for PHP 8.1 and newer: frame protocol 1 over descriptor 3.
//
// It boots (stem), is told its function (load), and serves calls (serve). Booting knows nothing of
// the function, so that a booted process can wait in stock. What a function may return and what it
// gets is written in docs/runtimes/php.md and tested in test/contract.
//
// A handler with a concurrency of one runs on its own; with more, each call has a fiber, and another
// goes on while one waits for its request's body or for the reader of its answer.

declare(strict_types=1);

namespace Brasa;

/** The caller went away, or the deadline has passed. */
final class Canceled extends \RuntimeException
{
}

/**
 * An answer with its status and headers. The body may be text, bytes, a value for JSON, an iterator
 * of these or an open file, which are streamed.
 */
final class Response
{
    public function __construct(public mixed $body = null, public int $status = 200, public array $headers = [])
    {
    }
}

/** A request. It can also be used as the array of its arguments: what main($args) would get. */
final class Event implements \ArrayAccess, \IteratorAggregate, \Countable, \JsonSerializable
{
    public readonly string $method;
    public readonly string $path;
    public readonly string $queryString;
    public readonly string $kind;
    /** Bytes of the body; -1 if that is not known beforehand. */
    public readonly int $length;
    /** Parameters of the URL; of one that is given twice the last counts. */
    public readonly array $query;
    /** By names in lower case; several values are joined by commas. */
    public readonly array $headers;
    private array $queries;
    private array $multi;
    private ?string $body = null;
    private ?array $args = null;

    /** @internal */
    public function __construct(private Boot\Call $call)
    {
        $meta = $call->meta();
        $this->method = $meta['method'] ?? 'POST';
        $this->path = $meta['path'] ?? '/';
        $this->queryString = $meta['query'] ?? '';
        $this->kind = $meta['kind'] ?? 'invoke';
        $this->length = $meta['length'] ?? 0;
        $this->queries = Boot\parameters($this->queryString);
        $this->query = array_map(end(...), $this->queries);
        $this->multi = array_change_key_case($meta['headers'] ?? []);
        $this->headers = array_map(static fn (array $v): string => implode(', ', $v), $this->multi);
    }

    /** A header by its name in upper or lower case; null if there is none. */
    public function header(string $name): ?string
    {
        return $this->headers[strtolower($name)] ?? null;
    }

    /** All values of a header, in order. */
    public function headerAll(string $name): array
    {
        return $this->multi[strtolower($name)] ?? [];
    }

    /** All values of a parameter, in order. */
    public function queryAll(string $name): array
    {
        return $this->queries[$name] ?? [];
    }

    /** The whole body; waits for its end. */
    public function body(): string
    {
        return $this->body ??= $this->call->body()->readAll();
    }

    /** The whole body as the JSON value that it is; a JsonException if it is none. */
    public function json(): mixed
    {
        return json_decode($this->body(), true, 512, JSON_THROW_ON_ERROR);
    }

    /** The next bytes of the body as they come, at most $size; '' at its end. */
    public function read(int $size = PHP_INT_MAX): string
    {
        return $this->call->body()->read($size);
    }

    /** The body as it comes. */
    public function stream(): \Generator
    {
        while (($data = $this->call->body()->read()) !== '') {
            yield $data;
        }
    }

    public function args(): array
    {
        return $this->args ??= Boot\arguments($this);
    }

    public function offsetExists(mixed $key): bool
    {
        return isset($this->args()[$key]);
    }

    public function offsetGet(mixed $key): mixed
    {
        return $this->args()[$key] ?? null;
    }

    public function offsetSet(mixed $key, mixed $value): void
    {
        throw new \LogicException('an event is not changed');
    }

    public function offsetUnset(mixed $key): void
    {
        throw new \LogicException('an event is not changed');
    }

    public function getIterator(): \Iterator
    {
        return new \ArrayIterator($this->args());
    }

    public function count(): int
    {
        return count($this->args());
    }

    public function jsonSerialize(): mixed
    {
        return (object) $this->args();
    }
}

/** What is known of a call besides its request. */
final class Context
{
    public readonly string $invocationId;
    /** The invocation that led to this one, or ''. */
    public readonly string $cause;
    public readonly int $attempt;
    public readonly string $functionName;
    public readonly string $namespace;
    public readonly string $revision;
    /** Bytes. */
    public readonly int $memoryLimit;
    /** Seconds since 1970; INF if there is none. */
    public readonly float $deadline;

    /** @internal */
    public function __construct(private Boot\Call $call, array $spec)
    {
        $meta = $call->meta();
        $this->invocationId = $meta['id'] ?? '';
        $this->cause = $meta['cause'] ?? '';
        $this->attempt = $meta['attempt'] ?? 1;
        $this->functionName = $spec['function'];
        $this->namespace = $spec['namespace'];
        $this->revision = $spec['revision'];
        $this->memoryLimit = $spec['memory_bytes'];
        $this->deadline = isset($meta['deadline_ms']) ? $meta['deadline_ms'] / 1000 : INF;
    }

    /** Milliseconds until the deadline, never below zero; a day if there is none. */
    public function remainingMs(): int
    {
        return (int) max(0, min(($this->deadline - microtime(true)) * 1000, 86400000));
    }

    /** Whether the caller has gone. */
    public function canceled(): bool
    {
        if (!$this->call->canceled) {
            $this->call->link->readReady();
        }
        return $this->call->canceled;
    }

    /** Writes a line to the call's log, beside what it prints. */
    public function log(string $message, string $level = 'INFO'): void
    {
        Boot\put(2, $level . ' ' . $message . "\n");
    }
}

namespace Brasa\Boot;

use Brasa\Canceled;
use Brasa\Context;
use Brasa\Event;
use Brasa\Response;

const LOAD = 1, CALL = 2, BODY = 3, BODY_END = 4, CANCEL = 5, CREDIT = 6;
const HELLO = 16, LOADED = 17, LOAD_FAILED = 18, LOG = 19, RESULT = 20, HEAD = 21, DATA = 22, END = 23, WINDOW = 24;

const MAX_PAYLOAD = 1 << 20;
const MAX_WHOLE = 256 << 10; // an answer up to this size travels in one frame
const INITIAL_WINDOW = 1 << 20;
const CHUNK = 128 << 10; // bytes in one DATA frame
const MAX_PART = 32 << 10; // bytes of a log line that are kept while its end has not come
const DEFAULT_HANDLERS = ['main', 'handle', 'handler'];
const OWN = "\0\0\0\0"; // the stream of the instance itself
const JSON = JSON_THROW_ON_ERROR | JSON_UNESCAPED_UNICODE | JSON_UNESCAPED_SLASHES | JSON_UNESCAPED_LINE_TERMINATORS | JSON_PRESERVE_ZERO_FRACTION;
const JSON_META = '{"status":200,"headers":{"Content-Type":["application/json"]}}';

/** The request is not what it says, which its caller can mend. */
final class Unfit extends \RuntimeException
{
}

/** The code lacks the file or function that is to be run. */
final class Missing extends \RuntimeException
{
}

/** The function's answer breaks its contract. */
final class BadResult extends \RuntimeException
{
}

/** The answer is over its limit. */
final class TooLarge extends \RuntimeException
{
}

/** What the process has of its own. */
final class State
{
    public static ?Link $link = null;
    public static ?LineLog $log = null; // of lines that belong to no call
    public static ?Call $call = null; // on whose behalf code runs
    public static int $pid = 0;
    public static bool $loading = false;
    public static ?\FFI $c = null;
    public static string $reserve = ''; // memory for telling that there is none
}

// --- Frames -------------------------------------------------------------------------------

/** A frame; a stream is kept as the four bytes that name it. */
function frame(int $kind, string $stream, string $payload = ''): string
{
    return pack('NC', strlen($payload) + 5, $kind) . $stream . $payload;
}

function with_meta(string $meta): string
{
    return pack('N', strlen($meta)) . $meta;
}

function result(string $stream, string $meta, string $body): string
{
    return pack('NC', strlen($meta) + strlen($body) + 9, RESULT) . $stream . pack('N', strlen($meta)) . $meta . $body;
}

/** Our end of the socket. */
class Link
{
    /** @var array<string, Call> by stream */
    public array $calls = [];
    /** @var Call[] not yet begun */
    public array $arrived = [];
    public ?array $spec = null;
    public bool $fibers = false;
    private string $buffer = '';

    /**
     * @param resource $in
     * @param resource $out
     */
    public function __construct(private $in, private $out)
    {
        stream_set_timeout($in, 1 << 40);
        stream_set_timeout($out, 1 << 40);
        stream_set_chunk_size($in, 65536);
        stream_set_read_buffer($in, 0);
        stream_set_write_buffer($out, 0);
    }

    public function send(string $data): void
    {
        if (State::$pid !== getmypid()) {
            return; // a child that the function forked: the socket is its parent's
        }
        while ($data !== '') {
            $n = @fwrite($this->out, $data);
            if ($n === false || $n === 0) {
                $this->lost();
            }
            $data = $n === strlen($data) ? '' : substr($data, $n);
        }
    }

    /** The host is gone, and with it whoever would care. */
    public function lost(int $code = 0): never
    {
        // Not what exit does: that would run what the function wants at its end.
        State::$link = State::$call = null;
        leave($code);
    }

    private function fill(): void
    {
        $data = @fread($this->in, 65536);
        if ($data === '' || $data === false) {
            $this->lost();
        }
        $this->buffer = $this->buffer === '' ? $data : $this->buffer . $data;
    }

    /** Take a whole frame from the buffer, or null. */
    private function next(): ?array
    {
        $have = strlen($this->buffer);
        if ($have < 9) {
            return null;
        }
        $size = unpack('N', $this->buffer)[1] + 4;
        if ($size < 9 || $size > 9 + MAX_PAYLOAD) {
            raw(2, "brasa: a frame that cannot be read\n");
            $this->lost(70);
        }
        if ($have < $size) {
            return null;
        }
        $f = [ord($this->buffer[4]), substr($this->buffer, 5, 4), substr($this->buffer, 9, $size - 9)];
        $this->buffer = $have === $size ? '' : substr($this->buffer, $size);
        return $f;
    }

    /** Wait for a frame and handle it. */
    public function readOne(): void
    {
        while (($f = $this->next()) === null) {
            $this->fill();
        }
        $this->dispatch(...$f);
    }

    /** Handle the frames that are here, without waiting. */
    public function readReady(): void
    {
        $in = [$this->in];
        $none = null;
        if (@stream_select($in, $none, $none, 0) > 0) {
            $this->fill();
        }
        while (($f = $this->next()) !== null) {
            $this->dispatch(...$f);
        }
    }

    /** Wait until $ready on behalf of a call. */
    public function wait(Call $call, callable $ready): void
    {
        while (!$ready()) {
            if ($call->fiber !== null && \Fiber::getCurrent() === $call->fiber) {
                $call->ready = $ready;
                \Fiber::suspend();
            } else {
                $this->readOne();
            }
        }
    }

    private function dispatch(int $kind, string $stream, string $payload): void
    {
        if ($kind === CALL) {
            $n = unpack('N', $payload)[1];
            $this->arrived[] = $this->calls[$stream] = new Call($this, $stream, substr($payload, 4, $n), substr($payload, 4 + $n));
            return;
        }
        if ($kind === LOAD) {
            $this->spec = json_decode($payload, true, 512, JSON_THROW_ON_ERROR);
            return;
        }
        $call = $this->calls[$stream] ?? null;
        if ($call === null) {
            return; // it is over
        }
        match ($kind) {
            BODY => $call->body()->put($payload),
            BODY_END => $call->body()->ended = true,
            CANCEL => $call->canceled = true,
            CREDIT => $call->credit += unpack('N', $payload)[1],
            default => null,
        };
    }
}

// --- Requests -----------------------------------------------------------------------------

/** A request's body: whole, or a stream that grants the host credit as it is read. */
final class Body
{
    /** @var string[] */
    private array $chunks;
    private int $owed = 0;

    public function __construct(private Call $call, string $data, public bool $ended)
    {
        $this->chunks = $data === '' ? [] : [$data];
    }

    public function put(string $data): void
    {
        $this->chunks[] = $data;
    }

    /** The next bytes, at most $size, or '' at the end. Waits. */
    public function read(int $size = PHP_INT_MAX): string
    {
        $call = $this->call;
        if (!$this->chunks && !$this->ended) {
            $call->link->wait($call, fn (): bool => $this->chunks || $this->ended || $call->canceled || $call->over);
        }
        if ($call->canceled || $call->over) {
            throw new Canceled('the caller went away before the end of its request');
        }
        if (!$this->chunks) {
            return '';
        }
        if (strlen($this->chunks[0]) <= $size) {
            $data = array_shift($this->chunks);
        } else {
            $data = substr($this->chunks[0], 0, $size);
            $this->chunks[0] = substr($this->chunks[0], $size);
        }
        if (!$this->ended) {
            $this->owed += strlen($data);
            if ($this->owed >= INITIAL_WINDOW >> 2) {
                $call->link->send(frame(WINDOW, $call->stream, pack('N', $this->owed)));
                $this->owed = 0;
            }
        }
        return $data;
    }

    public function readAll(): string
    {
        $all = '';
        while (($data = $this->read()) !== '') {
            $all .= $data;
        }
        return $all;
    }
}

/** Take the parameters of a URL or form apart: all values by their name. */
function parameters(string $text): array
{
    $out = [];
    foreach ($text === '' ? [] : explode('&', $text) as $part) {
        if ($part !== '') {
            [$name, $value] = explode('=', $part, 2) + [1 => ''];
            $out[utf8(urldecode($name))][] = utf8(urldecode($value));
        }
    }
    return $out;
}

function is_utf8(string $text): bool
{
    return preg_match('//u', $text) === 1;
}

function utf8(string $text): string
{
    return is_utf8($text) ? $text : json_decode(json_encode($text, JSON_INVALID_UTF8_SUBSTITUTE | JSON_UNESCAPED_UNICODE));
}

/**
 * What main($args) gets: parameters of the URL, then the fields of a JSON object or form. Another
 * body is the one argument "body".
 */
function arguments(Event $event): array
{
    $args = $event->query;
    $body = $event->body();
    if ($body === '') {
        return $args;
    }
    $kind = strtolower(trim(explode(';', $event->header('content-type') ?? '')[0]));
    $form = $kind === 'application/x-www-form-urlencoded';
    // A form is tried as JSON first, because that is what curl -d calls JSON.
    if ($kind === '' || $form || $kind === 'application/json' || str_ends_with($kind, '+json')) {
        try {
            $value = json_decode($body, true, 512, JSON_THROW_ON_ERROR);
            if (is_array($value) && ltrim($body)[0] === '{') {
                return $value + $args;
            }
            return ['body' => $value] + $args;
        } catch (\JsonException $e) {
            if ($kind !== '' && !$form) {
                throw new Unfit('the request says that its body is JSON, and it is not: ' . $e->getMessage());
            }
        }
    }
    if ($form) {
        return array_map(end(...), parameters($body)) + $args;
    }
    return ['body' => $body] + $args;
}

/**
 * The arguments of a call without a query and with no body or a JSON object, which is most, found
 * without parsing META; null if arguments must look. The quotes in what is searched for make sure
 * that it is no part of a string.
 */
function quick_arguments(Call $call): ?array
{
    $raw = $call->raw;
    if ($call->streamed || !str_contains($raw, '"query":""')) {
        return null;
    }
    if ($call->given === '') {
        return [];
    }
    if ($call->given[0] !== '{' || !str_contains($raw, '"Content-Type":["application/json"]') && !str_contains($raw, '"headers":{}')) {
        return null;
    }
    return json_decode($call->given, true);
}

// --- Logs ---------------------------------------------------------------------------------

/** Turns what a call writes into whole lines, one frame for as many as come at once. */
final class LineLog
{
    private array $parts = [1 => '', 2 => ''];

    public function __construct(private Link $link, private string $stream, private int $budget)
    {
    }

    public function write(int $which, string $text): void
    {
        $text = $this->parts[$which] . $text;
        $end = strrpos($text, "\n");
        $at = $end === false ? 0 : $end + 1;
        if ($at === 0 && strlen($text) > MAX_PART) {
            $at = strlen($text);
        }
        $this->parts[$which] = substr($text, $at);
        if ($at > 0) {
            $this->link->send($this->lines($which, substr($text, 0, $at)));
        }
    }

    private function lines(int $which, string $data): string
    {
        if ($data === '' || $this->budget <= 0) {
            return ''; // the host drops what is over, so it need not be sent
        }
        $this->budget -= strlen($data);
        $out = '';
        foreach (str_split($data, MAX_WHOLE) as $part) {
            $out .= frame(LOG, $this->stream, chr($which) . $part);
        }
        return $out;
    }

    /** The frames of lines that have no end. */
    public function rest(): string
    {
        $out = $this->lines(1, $this->parts[1]) . $this->lines(2, $this->parts[2]);
        $this->parts = [1 => '', 2 => ''];
        return $out;
    }
}

/** Write to the log of the call on whose behalf code runs. */
function put(int $which, string $text): void
{
    if ($text === '') {
        return;
    }
    if (State::$log === null || State::$pid !== getmypid()) {
        raw($which, $text); // a child's lines are the instance's
        return;
    }
    $call = State::$call;
    ($call !== null && !$call->over ? $call->log() : State::$log)->write($which, $text);
}

/** Write to a descriptor itself. */
function raw(int $which, string $text): void
{
    @file_put_contents("php://fd/$which", $text);
}

/** Takes what is written to STDOUT and STDERR. */
final class Tap extends \php_user_filter
{
    public function filter($in, $out, &$consumed, bool $closing): int
    {
        while ($bucket = stream_bucket_make_writeable($in)) {
            $consumed += $bucket->datalen;
            put($this->params, $bucket->data);
        }
        return PSFS_FEED_ME;
    }
}

/** Have what is printed come to us. A function may have ended all buffers, ours too. */
function buffer(): void
{
    if (ob_get_level() === 0) {
        ob_start(static function (string $text): string {
            put(1, $text);
            return '';
        }, 1);
    }
}

// --- Calls --------------------------------------------------------------------------------

/** One call: its request, its log, its answer. */
final class Call
{
    public bool $canceled = false;
    public bool $over = false;
    public int $credit = INITIAL_WINDOW;
    public bool $streamed;
    public bool $headed = false;
    public ?\Fiber $fiber = null;
    public ?\Closure $ready = null; // what its fiber waits for
    private int $sent = 0;
    private ?array $meta = null;
    private ?Body $body = null;
    private ?LineLog $log = null;

    public function __construct(public Link $link, public string $stream, public string $raw, public string $given)
    {
        // The quotes make sure that it is no part of a string, and headers have lists.
        $this->streamed = str_contains($raw, '"body":"stream"');
        if (str_contains($raw, '"seed":"')) {
            reseed($this->meta()['seed'] ?? '');
        }
    }

    public function meta(): array
    {
        return $this->meta ??= json_decode($this->raw, true, 512, JSON_THROW_ON_ERROR);
    }

    public function body(): Body
    {
        return $this->body ??= new Body($this, $this->given, !$this->streamed);
    }

    public function log(): LineLog
    {
        return $this->log ??= new LineLog($this->link, $this->stream, $this->link->spec['log_bytes'] + 65536);
    }

    private function rest(): string
    {
        while (ob_get_level() > 1) {
            ob_end_flush(); // what the handler began to collect and left
        }
        return $this->log?->rest() ?? '';
    }

    public function finish(string $data): void
    {
        unset($this->link->calls[$this->stream]);
        $rest = $this->rest();
        $this->over = true;
        $this->link->send($rest . $data);
    }

    public function fail(array $fault): void
    {
        $meta = json_encode(['error' => $fault], JSON | JSON_INVALID_UTF8_SUBSTITUTE);
        $this->finish($this->headed ? frame(END, $this->stream, $meta) : result($this->stream, $meta, ''));
    }

    /** Answer with a body in memory. */
    public function whole(string $meta, string $body): void
    {
        $most = $this->link->spec['response_bytes'];
        if (strlen($body) > $most) {
            throw new TooLarge('the answer is ' . strlen($body) . " bytes; response_bytes allows $most");
        }
        if (strlen($body) <= MAX_WHOLE) {
            $this->finish(result($this->stream, $meta, $body));
            return;
        }
        $this->head($meta);
        $this->write($body);
        $this->finish(frame(END, $this->stream));
    }

    public function head(string $meta): void
    {
        $this->headed = true;
        $this->link->send(($this->log?->rest() ?? '') . frame(HEAD, $this->stream, with_meta($meta)));
    }

    public function write(string $data): void
    {
        $most = $this->link->spec['response_bytes'];
        for ($at = 0, $size = strlen($data); $at < $size;) {
            if ($this->credit <= 0 && !$this->canceled) {
                $this->link->wait($this, fn (): bool => $this->credit > 0 || $this->canceled);
            }
            if ($this->canceled) {
                throw new Canceled('the caller went away');
            }
            $part = substr($data, $at, min($this->credit, CHUNK));
            $at += strlen($part);
            $this->credit -= strlen($part);
            $this->sent += strlen($part);
            if ($this->sent > $most) {
                throw new TooLarge("the answer is larger than response_bytes allows, $most bytes");
            }
            $this->link->send(frame(DATA, $this->stream, $part));
        }
    }

    /** Let others go on, and learn whether the caller has gone. */
    public function pause(): void
    {
        if ($this->fiber !== null && \Fiber::getCurrent() === $this->fiber) {
            $this->ready = static fn (): bool => true;
            \Fiber::suspend();
        } else {
            $this->link->readReady();
        }
    }
}

// --- Answers ------------------------------------------------------------------------------

/** One value: its bytes and their content type. */
function encode(mixed $value): array
{
    if (is_string($value)) {
        return [$value, is_utf8($value) ? 'text/plain; charset=utf-8' : 'application/octet-stream'];
    }
    if ($value instanceof \Closure) {
        throw new BadResult('the function returned what JSON cannot hold: a closure');
    }
    try {
        return [json_encode($value, JSON), 'application/json'];
    } catch (\JsonException $e) {
        throw new BadResult('the function returned what JSON cannot hold: ' . $e->getMessage());
    }
}

function is_stream(mixed $value): bool
{
    return $value instanceof \Iterator && !$value instanceof \JsonSerializable || is_resource($value) && get_resource_type($value) === 'stream';
}

/** Take a response apart: [body, status, headers], or null if it is a bare value. */
function unwrap(mixed $value): ?array
{
    if ($value instanceof Response) {
        return [$value->body, $value->status, $value->headers];
    }
    if (is_array($value) && is_int($value['statusCode'] ?? null)) {
        $headers = ($value['multiValueHeaders'] ?? []) + ($value['headers'] ?? []);
        $body = $value['body'] ?? null;
        if (($value['isBase64Encoded'] ?? false) && $body !== null && $body !== '') {
            $body = base64_decode((string) $body, true);
            if ($body === false) {
                throw new BadResult('the function said isBase64Encoded, but its body is not base64');
            }
        }
        return [$body, $value['statusCode'], $headers];
    }
    // A response of PSR-7, which frameworks share.
    if (is_object($value) && method_exists($value, 'getStatusCode') && method_exists($value, 'getHeaders') && method_exists($value, 'getBody')) {
        $body = $value->getBody();
        if (is_object($body) && method_exists($body, 'eof')) {
            $body = (static function () use ($body): \Generator {
                if ($body->isSeekable()) {
                    $body->rewind();
                }
                while (!$body->eof()) {
                    yield $body->read(65536);
                }
            })();
        }
        return [$body, $value->getStatusCode(), $value->getHeaders()];
    }
    return null;
}

/** The META of an answer with a status and headers. */
function head_of(mixed $status, mixed $headers, ?string $type): string
{
    if (!is_int($status) || $status < 200 || $status > 599) {
        throw new BadResult('the function answered with status ' . substr(var_export($status, true), 0, 80) . '; it must be a number from 200 to 599');
    }
    if (!is_iterable($headers)) {
        throw new BadResult('the function gave headers that are not an array of names to values');
    }
    $out = [];
    $typed = false;
    foreach ($headers as $name => $value) {
        if ($value === null) {
            continue;
        }
        foreach (is_array($value) ? $value : [$value] as $v) {
            if (!is_scalar($v) && !$v instanceof \Stringable) {
                throw new BadResult("the function gave a header $name that is no text");
            }
            $out[(string) $name][] = (string) $v;
        }
        $typed = $typed || strcasecmp((string) $name, 'content-type') === 0;
    }
    if ($type !== null && !$typed) {
        $out['Content-Type'] = [$type];
    }
    return json_encode(['status' => $status, 'headers' => (object) $out], JSON | JSON_INVALID_UTF8_SUBSTITUTE);
}

/** Answer a call. */
function answer(Call $call, mixed $value): void
{
    if ($value === null) {
        if (($call->meta()['kind'] ?? '') === 'http') {
            $call->whole('{"status":204}', '');
        } else {
            $call->whole(JSON_META, 'null');
        }
        return;
    }
    $parts = unwrap($value);
    if ($parts === null) {
        if (is_stream($value)) {
            stream($call, $value, 200, []);
            return;
        }
        [$data, $type] = encode($value);
        $call->whole($type === 'application/json' ? JSON_META : head_of(200, [], $type), $data);
        return;
    }
    [$body, $status, $headers] = $parts;
    if ($body === null) {
        $call->whole(head_of($status, $headers, null), '');
    } elseif (is_stream($body)) {
        stream($call, $body, $status, $headers);
    } else {
        [$data, $type] = encode($body);
        $call->whole(head_of($status, $headers, $type), $data);
    }
}

/** Answer with what comes piece by piece. A value is a line of JSON. */
function stream(Call $call, mixed $source, mixed $status, mixed $headers): void
{
    foreach (is_resource($source) ? pieces($source) : $source as $value) {
        [$data, $type] = encode($value);
        if ($type === 'application/json') {
            [$data, $type] = [$data . "\n", 'application/x-ndjson'];
        }
        if (!$call->headed) {
            $call->head(head_of($status, $headers, $type));
        }
        $call->write($data);
        $call->pause();
    }
    if (!$call->headed) {
        $call->head(head_of($status, $headers, 'text/plain; charset=utf-8'));
    }
    $call->finish(frame(END, $call->stream));
}

/** @param resource $file */
function pieces($file): \Generator
{
    try {
        while (($data = fread($file, 65536)) !== false && $data !== '') {
            yield $data;
        }
    } finally {
        fclose($file);
    }
}

// --- Errors -------------------------------------------------------------------------------

/** Describe an exception: class, message, and a trace of the function's own frames. */
function fault(\Throwable $e): array
{
    $message = $e->getMessage();
    return match (true) {
        $e instanceof Unfit => ['code' => 'invalid', 'message' => $message],
        $e instanceof BadResult, $e instanceof Missing => ['message' => $message],
        $e instanceof TooLarge => ['message' => $message, 'limit' => 'response_bytes'],
        $e instanceof Canceled => ['kind' => 'Canceled', 'message' => $message],
        default => ['kind' => substr(name_of($e), 0, 200), 'message' => substr($message, 0, 4000), 'trace' => trace($e)],
    };
}

function name_of(object $o): string
{
    return explode("\0", $o::class)[0]; // what follows in an anonymous class's is its file
}

function trace(\Throwable $e): string
{
    $out = '';
    for ($first = true; $e !== null; $e = $e->getPrevious(), $first = false) {
        $frames = [];
        if ($e->getFile() !== __FILE__) {
            $frames[] = $e->getFile() . ':' . $e->getLine();
        }
        foreach ($e->getTrace() as $f) {
            if (isset($f['file']) && $f['file'] !== __FILE__ && !str_starts_with($f['function'], 'Brasa\\Boot\\')) {
                $frames[] = $f['file'] . ':' . $f['line'] . ' in ' . ($f['class'] ?? '') . ($f['type'] ?? '') . $f['function'];
            }
        }
        if (count($frames) > 61) {
            array_splice($frames, 40, -20, ['[...]']);
        }
        $out .= ($first ? '' : 'caused by ') . name_of($e) . ': ' . substr($e->getMessage(), 0, 4000) . "\n";
        foreach ($frames as $f) {
            $out .= "    at $f\n";
        }
    }
    return strlen($out) <= 24000 ? $out : substr($out, 0, 4000) . "\n  [...]\n" . substr($out, -20000);
}

const FATAL = E_ERROR | E_PARSE | E_CORE_ERROR | E_COMPILE_ERROR;

/** What ends the process without an exception: told to the calls that wait, which is all that can be done. */
function at_end(): void
{
    State::$reserve = '';
    $link = State::$link;
    if ($link === null || State::$pid !== getmypid()) {
        return;
    }
    $e = error_get_last();
    if ($e !== null && ($e['type'] & FATAL)) {
        ini_set('memory_limit', '-1');
        $fault = ['kind' => 'FatalError', 'message' => substr($e['message'], 0, 4000), 'trace' => "FatalError: {$e['message']}\n    at {$e['file']}:{$e['line']}\n"];
        if (str_starts_with($e['message'], 'Allowed memory size')) {
            $fault['limit'] = 'memory_bytes';
        }
        foreach ($link->calls as $call) {
            $call->fail($fault);
        }
    } elseif (is_action($link->spec ?? [])) {
        $link->send(State::$log->rest());
        return; // an action that ends its process is told by that
    } else {
        $fault = ['message' => 'the code called exit while it was loaded'];
    }
    if (State::$loading) {
        $link->send(State::$log->rest() . frame(LOAD_FAILED, OWN, json_encode($fault, JSON | JSON_INVALID_UTF8_SUBSTITUTE)));
    }
}

/** What PHP complains about, as a line of the log. */
function complain(int $level, string $message, string $file, int $line): bool
{
    if (!(error_reporting() & $level)) {
        return true;
    }
    if ($level === E_USER_ERROR || $level === E_RECOVERABLE_ERROR) {
        throw new \ErrorException($message, 0, $level, $file, $line);
    }
    $name = match ($level) {
        E_WARNING, E_USER_WARNING => 'Warning',
        E_NOTICE, E_USER_NOTICE => 'Notice',
        E_DEPRECATED, E_USER_DEPRECATED => 'Deprecated',
        default => 'Error',
    };
    put(2, "PHP $name: $message in $file on line $line\n");
    return true;
}

/** End the process at once. */
function leave(int $code): never
{
    if (State::$c !== null) {
        State::$c->_exit($code);
    }
    exit($code);
}

// --- The function -------------------------------------------------------------------------

/** The handler and how it wants to be called. */
final class Handler
{
    private int $arity;
    private string $first;

    public function __construct(private \Closure $run, string $name)
    {
        $f = new \ReflectionFunction($run);
        $params = $f->getParameters();
        if ($f->getNumberOfRequiredParameters() > 2) {
            throw new Missing("$name takes {$f->getNumberOfRequiredParameters()} arguments; a handler takes at most two");
        }
        $this->arity = $f->isVariadic() ? 2 : min(count($params), 2);
        $type = isset($params[0]) ? (string) $params[0]->getType() : '';
        $this->first = match (true) {
            ltrim($type, '?') === 'array' => 'args',
            ltrim($type, '?') === 'string' => 'body',
            ltrim($type, '?') === Event::class => 'event',
            $name === 'main' => 'args',
            $name === 'handle', $name === 'handler' => 'event',
            default => isset($params[0]) && in_array($params[0]->getName(), ['event', 'request', 'req'], true) ? 'event' : 'args',
        };
    }

    public function start(Call $call): mixed
    {
        return match ($this->arity) {
            0 => ($this->run)(),
            1 => ($this->run)($this->first($call)),
            default => ($this->run)($this->first($call), new Context($call, $call->link->spec)),
        };
    }

    private function first(Call $call): mixed
    {
        return match ($this->first) {
            'args' => quick_arguments($call) ?? (new Event($call))->args(),
            'body' => $call->body()->readAll(),
            default => new Event($call),
        };
    }
}

/** The handler of an action of OpenWhisk: called with its arguments, it returns an array. */
final class Action
{
    private const FAILED_META = '{"status":502,"headers":{"Content-Type":["application/json"]}}';
    private const INVALID = 'so its response is not valid';

    public function __construct(private \Closure $run)
    {
    }

    public function start(Call $call): mixed
    {
        environment($call->meta()['env'] ?? []);
        $input = quick_arguments($call);
        if ($input === null) {
            $event = new Event($call);
            $input = $event->args();
            if (is_array($input['body'] ?? null) && (ltrim($event->body())[0] ?? '') === '[') {
                $input = $input['body'];
            }
        }
        try {
            return ($this->run)($input);
        } catch (\Throwable $e) {
            if (!$call->canceled) {
                put(2, trace($e));
            }
            throw $e;
        }
    }

    public function answer(Call $call, mixed $value): void
    {
        $value = match (true) {
            $value === null, $value === [] => new \stdClass(),
            is_object($value) && method_exists($value, 'getArrayCopy') => $value->getArrayCopy(),
            default => $value,
        };
        if (!is_array($value) && !$value instanceof \stdClass) {
            $shown = is_scalar($value) ? substr((string) $value, 0, 1000) : get_debug_type($value);
            throw new BadResult('the action did not return a dictionary or array, ' . self::INVALID . ": $shown");
        }
        [$data] = encode($value);
        $most = $call->link->spec['response_bytes'];
        $failed = $data[0] === '{' && array_key_exists('error', (array) $value);
        if (strlen($data) > $most) {
            $failed = true;
            $why = "the action's response is too long: " . strlen($data) . " bytes are more than the $most that are allowed; it begins: " . substr($data, 0, 8192);
            $data = json_encode(['error' => $why], JSON | JSON_INVALID_UTF8_SUBSTITUTE);
        }
        $call->whole($failed ? self::FAILED_META : JSON_META, $data);
    }
}

/** Add variables to the environment. */
function environment(array $all): void
{
    foreach ($all as $name => $value) {
        putenv("$name=$value");
        $_ENV[$name] = $_SERVER[$name] = $value;
    }
}

/** Find the file to run and the handler in it. */
function find(array $spec): Handler|Action
{
    $action = is_action($spec);
    $code = $spec['code'];
    $wanted = $spec['handler'] ?? '';
    $path = "$code/{$spec['entry']}";
    // The handler may begin with the file that it is in: lib/work.run, or as others write it lib.work.run.
    for ($dot = strrpos($wanted, '.'); $dot !== false; $dot = strrpos(substr($wanted, 0, $dot), '.')) {
        $file = "$code/" . strtr(substr($wanted, 0, $dot), '.', '/') . '.php';
        if (is_file($file)) {
            [$path, $wanted] = [$file, substr($wanted, $dot + 1)];
            break;
        }
    }
    if (!is_file($path)) {
        throw new Missing('the code has no file ' . substr($path, strlen($code) + 1));
    }
    $before = get_defined_functions()['user'];
    $returned = $action ? bring_global($path) : bring($path);
    $defined = array_values(array_diff(get_defined_functions()['user'], $before));
    // Of those in namespaces the last part is the name.
    $named = [];
    foreach ($defined as $function) {
        $named[substr((string) strrchr("\\$function", '\\'), 1)] ??= $function;
    }
    $there = $named ? 'it defines ' . implode(', ', array_slice(array_keys($named), 0, 10)) : 'it defines no function';
    $file = basename($path);
    if ($wanted === '') {
        foreach (DEFAULT_HANDLERS as $name) {
            if (isset($named[$name])) {
                return new Handler($named[$name](...), $name);
            }
        }
        if (is_callable($returned)) {
            return new Handler(\Closure::fromCallable($returned), '{closure}');
        }
        throw new Missing("$file defines none of the functions main, handle or handler, and returns no callable; $there");
    }
    $key = strtolower(ltrim($wanted, '\\'));
    $function = $named[$key] ?? (in_array($key, get_defined_functions()['user'], true) && !str_starts_with($key, 'brasa\\boot\\') ? $key : null);
    if ($function !== null) {
        return $action ? new Action($function(...)) : new Handler($function(...), $key);
    }
    [$class, $method] = preg_split('/::|@/', $wanted, 2) + [1 => '__invoke'];
    if (class_exists($class) && method_exists($class, $method)) {
        $m = new \ReflectionMethod($class, $method);
        $run = $m->isStatic() ? $m->getClosure() : $m->getClosure(new $class());
        return $action ? new Action($run) : new Handler($run, $method === '__invoke' ? '{closure}' : $method);
    }
    throw new Missing("$file defines no function $wanted; $there");
}

function is_action(array $spec): bool
{
    return ($spec['contract'] ?? '') === 'openwhisk';
}

/** Run a file in a scope of its own. */
function bring(string $path): mixed
{
    return (static fn (): mixed => require $path)();
}

/** Run a file whose variables become global, as its functions expect of an action's. */
function bring_global(string $brasa_path): mixed
{
    $brasa_returned = require $brasa_path;
    foreach (get_defined_vars() as $name => $value) {
        if (!str_starts_with($name, 'brasa_')) {
            $GLOBALS[$name] = $value;
        }
    }
    return $brasa_returned;
}

/**
 * Have what Composer installed loaded by itself. It lies elsewhere than the code, so where the code's
 * own classes are is told here.
 */
function autoload(string $code, array $paths): void
{
    foreach ([...$paths, $code] as $dir) {
        $file = "$dir/vendor/autoload.php";
        if (!is_file($file)) {
            continue;
        }
        $loader = bring($file);
        if ($dir === $code || !is_object($loader) || !is_file("$code/composer.json")) {
            continue;
        }
        $own = json_decode((string) file_get_contents("$code/composer.json"), true)['autoload'] ?? [];
        foreach ($own['psr-4'] ?? [] as $prefix => $folders) {
            $loader->addPsr4($prefix, array_map(static fn (string $f): string => "$code/$f", (array) $folders));
        }
        foreach ($own['psr-0'] ?? [] as $prefix => $folders) {
            $loader->add($prefix, array_map(static fn (string $f): string => "$code/$f", (array) $folders));
        }
        foreach ($own['files'] ?? [] as $f) {
            bring("$code/$f");
        }
    }
}

/** Give whatever draws random numbers a new start: from the kernel, and from $seed, which is hexadecimal. */
function reseed(string $seed): void
{
    $fresh = hash('sha256', random_bytes(32) . $seed, true);
    mt_srand(unpack('q', $fresh)[1]);
    if (function_exists('openssl_random_pseudo_bytes') && State::$c !== null) {
        State::$c->RAND_add($fresh, 32, 32.0);
    }
}

/** Run the code to its handler. The host has been told when it returns. */
function load(Link $link): Handler|Action|null
{
    $spec = $link->spec;
    $begun = hrtime(true);
    $spent = 0;
    State::$loading = true;
    reseed($spec['seed'] ?? '');
    ini_set('memory_limit', (string) max((int) ($spec['memory_bytes'] * 0.9), 16 << 20));
    State::$reserve = str_repeat('x', 65536);
    environment($spec['env'] ?? []);
    if (isset($spec['env']['TZ'])) {
        @date_default_timezone_set($spec['env']['TZ']);
    }
    $_SERVER['argv'] = [$spec['code'] . '/' . $spec['entry']];
    $_SERVER['argc'] = 1;
    $_SERVER['SCRIPT_FILENAME'] = $_SERVER['SCRIPT_NAME'] = $_SERVER['PHP_SELF'] = $_SERVER['PATH_TRANSLATED'] = $_SERVER['argv'][0];
    if (is_dir($spec['code'])) {
        chdir($spec['code']);
        set_include_path($spec['code'] . PATH_SEPARATOR . get_include_path());
    }
    buffer();
    try {
        $from = hrtime(true);
        autoload($spec['code'], $spec['path'] ?? []);
        $spent = hrtime(true) - $from;
        $handler = find($spec);
    } catch (\Throwable $e) {
        $link->send(State::$log->rest() . frame(LOAD_FAILED, OWN, json_encode(fault($e), JSON | JSON_INVALID_UTF8_SUBSTITUTE)));
        return null;
    } finally {
        State::$loading = false;
    }
    $total = hrtime(true) - $begun;
    $link->send(State::$log->rest() . frame(LOADED, OWN, json_encode(['dependency_us' => intdiv($spent, 1000), 'code_us' => intdiv($total - $spent, 1000)])));
    return $handler;
}

/** Run the handler for a call and answer. */
function attend(Handler|Action $handler, Call $call): void
{
    try {
        buffer();
        $value = $handler->start($call);
        $handler instanceof Action ? $handler->answer($call, $value) : answer($call, $value);
    } catch (\Throwable $e) {
        if (State::$pid !== getmypid()) {
            leave(1); // a child that the handler forked came back here
        }
        $call->fail(fault($e));
    }
    if (State::$pid !== getmypid()) {
        leave(0);
    }
}

/** Load what comes, and serve it for life. */
function serve(Link $link): never
{
    while ($link->spec === null) {
        $link->readOne();
    }
    $handler = load($link);
    if ($handler === null) {
        $link->lost(1);
    }
    if ($link->spec['concurrency'] > 1) {
        serve_fibers($link, $handler);
    }
    while (true) { // one call at a time: the fastest way
        while (!$link->arrived) {
            $link->readOne();
        }
        $call = array_shift($link->arrived);
        State::$call = $call;
        attend($handler, $call);
        State::$call = null;
        unset($call);
    }
}

/** Calls in fibers; this one reads. */
function serve_fibers(Link $link, Handler|Action $handler): never
{
    $going = [];
    while (true) {
        foreach ($link->arrived as $i => $call) {
            unset($link->arrived[$i]);
            $call->fiber = new \Fiber(static fn () => attend($handler, $call));
            $going[$call->stream] = $call;
        }
        $moved = false;
        foreach ($going as $stream => $call) {
            $fiber = $call->fiber;
            if ($fiber->isStarted() && !($call->ready)()) {
                continue;
            }
            $moved = true;
            State::$call = $call;
            $fiber->isStarted() ? $fiber->resume() : $fiber->start();
            State::$call = null;
            if ($fiber->isTerminated()) {
                unset($going[$stream]);
                $call->fiber = $call->ready = null;
            } elseif ($call->ready === null) {
                $call->ready = static fn (): bool => true; // the handler itself has suspended its fiber
            }
        }
        unset($call, $fiber);
        $moved ? $link->readReady() : $link->readOne();
    }
}

// --- Starting -----------------------------------------------------------------------------

/** Some of C that PHP does not offer, where it may be called. */
function c(): ?\FFI
{
    if (!extension_loaded('ffi')) {
        return null;
    }
    foreach (['void _exit(int); int fcntl(int, int, ...); void RAND_add(const char *, int, double);', 'void _exit(int); int fcntl(int, int, ...);'] as $declarations) {
        try {
            return \FFI::cdef($declarations);
        } catch (\Throwable) {
        }
    }
    return null;
}

/** Ends the rehearsal. */
final class Curtain extends \Exception
{
}

final class Rehearsal extends Link
{
    public function lost(int $code = 0): never
    {
        throw new Curtain();
    }
}

/**
 * Load a function and call it, as it will happen, with nobody there. What is done for the first time
 * costs more than its work. Nothing of it remains to be seen but the name of the function.
 */
function rehearse(): void
{
    $dir = sys_get_temp_dir() . '/.brasa-' . bin2hex(random_bytes(8));
    [$cwd, $path, $server, $env] = [getcwd(), get_include_path(), $_SERVER, $_ENV];
    mkdir($dir, 0700);
    try {
        file_put_contents("$dir/play.php", '<?php return static function (array $args): array { echo "rehearsal {$args["n"]}\n"; return ["n" => $args["n"], "list" => [1.5, null, true]]; };');
        $spec = ['namespace' => 'n', 'function' => 'f', 'revision' => 'r', 'entry' => 'play.php', 'code' => $dir, 'memory_bytes' => 1 << 30, 'concurrency' => 1, 'response_bytes' => 1 << 20, 'log_bytes' => 1 << 20, 'seed' => str_repeat('00', 32)];
        $meta = '{"id":"i","kind":"http","method":"POST","path":"/","query":"","headers":{"Content-Type":["application/json"]},"body":"whole"}';
        $call = frame(CALL, "\0\0\0\1", with_meta($meta) . '{"n":1,"text":"' . str_repeat('x', 200) . '"}');
        $in = fopen('php://memory', 'w+b');
        fwrite($in, frame(LOAD, OWN, json_encode($spec)) . $call);
        rewind($in);
        State::$link = new Rehearsal($in, fopen('php://memory', 'w+b'));
        State::$log = new LineLog(State::$link, OWN, PHP_INT_MAX);
        try {
            serve(State::$link);
        } catch (Curtain) {
        }
    } finally {
        State::$link = State::$log = State::$call = null;
        chdir($cwd);
        set_include_path($path);
        [$_SERVER, $_ENV] = [$server, $env];
        @unlink("$dir/play.php");
        @rmdir($dir);
        clearstatcache(true);
    }
}

/** Be a process of the runtime, from now on: say hello, load what comes, and serve it. */
function stem(bool $rehearsing): never
{
    State::$pid = getmypid();
    State::$c = c();
    $link = fopen('php://fd/3', 'r+b');
    if ($link === false) {
        raw(2, "brasa: descriptor 3 is not open\n");
        exit(70);
    }
    if (State::$c !== null) {
        foreach (glob('/proc/self/fd/*') ?: [] as $fd) {
            if ((int) basename($fd) > 2) {
                State::$c->fcntl((int) basename($fd), 2, 1); // FD_CLOEXEC: what the function starts has none of it
            }
        }
    }
    register_shutdown_function(at_end(...));
    set_error_handler(complain(...));
    stream_filter_register('brasa.tap', Tap::class);
    stream_filter_append(STDOUT, 'brasa.tap', STREAM_FILTER_WRITE, 1);
    stream_filter_append(STDERR, 'brasa.tap', STREAM_FILTER_WRITE, 2);
    buffer();
    $in = [$link];
    $none = null;
    if ($rehearsing && stream_select($in, $none, $none, 0) === 0) { // else it was made for a call that waits for it
        try {
            rehearse();
        } catch (\Throwable $e) {
            raw(2, 'brasa: the rehearsal failed, the first call will take longer: ' . $e->getMessage() . "\n");
        }
        gc_collect_cycles();
    }
    reseed('');
    State::$link = new Link($link, $link);
    State::$log = new LineLog(State::$link, OWN, PHP_INT_MAX);
    State::$link->send(frame(HELLO, OWN, json_encode(['protocol' => 1, 'runtime' => 'php', 'version' => PHP_VERSION])));
    serve(State::$link);
}

stem(($argv[1] ?? '') === 'stem');
