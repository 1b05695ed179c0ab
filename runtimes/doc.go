// Package runtimes holds the languages: how each is found on the host, how its process is
// started, and the host's end of the conversation with it.
//
// A Runtime is a language at a version. Its style says how one talks to it: python, node, go,
// java, ruby and php speak frames over descriptor 3 (Conn), an executable is one process per call (ExecCall), reads
// a line per call (Lines), or is an HTTP server (HTTPConn). Whatever the style, a call is
// RoundTrip: an invocation goes in, a result comes out at the head of the answer, and the rest
// of the answer streams.
//
// The process on the far end runs code of strangers. Nothing it sends is believed: memory is
// bounded, headers are checked and cleaned, what belongs to no call reaches none.
//
// This package starts no process: package worker does that, in a sandbox, from Command.
//
// # Frames, version 1
//
// The socket is a unix stream. A frame is
//
//	u32 length of the rest | u8 type | u32 stream | payload (at most 1 MiB)
//
// with numbers in big-endian order. Stream 0 is the instance itself; a call is a stream with an
// odd number, chosen by the host, rising and never used twice. A side that gets a frame it can't
// read closes the socket. META below is u32 length | JSON.
//
//	host → instance                           instance → host
//	                                          16 HELLO   {protocol, runtime, version}
//	 1 LOAD     {function, entry, env, …}     17 LOADED  {dependency_us, code_us}
//	                                          18 LOAD_FAILED {kind, message, trace}
//	 2 CALL     META, body                    19 LOG     u8 (1 stdout, 2 stderr), text
//	 3 BODY     bytes                         20 RESULT  META{status, headers, error}, body
//	 4 BODY_END                               21 HEAD    META{status, headers}
//	 5 CANCEL                                 22 DATA    bytes
//	                                          23 END     {} or {error}
//	 6 WINDOW   u32 more bytes of DATA        24 WINDOW  u32 more bytes of BODY
//
// A short call is one frame each way:
//
//	host ── CALL body:"whole" ──▶ instance
//	host ◀── RESULT ───────────── instance
//
// Long bodies are streams, with LOG anywhere between:
//
//	host ── CALL body:"stream" ─▶             host ◀── HEAD ── instance
//	host ── BODY … BODY_END ────▶             host ◀── DATA … END
//	host ◀── WINDOW ────────────              host ── WINDOW ─▶
//
// Each stream may have InitialWindow bytes of body under way in each direction; a receiver
// returns credit as its reader takes the bytes, so that a slow reader of one call holds up
// nobody else. CANCEL says that nobody waits any more. The instance ends every call with RESULT
// or END, a canceled one too; until then the call counts as active.
package runtimes
