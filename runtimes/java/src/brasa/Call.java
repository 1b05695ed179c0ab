package brasa;

import java.io.IOException;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Base64;
import java.util.Collection;
import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.Future;
import java.util.stream.BaseStream;

/** One call: its request, its log, its answer. */
final class Call {
    /** The call on whose behalf a thread runs; threads that it starts inherit it. */
    static final InheritableThreadLocal<Call> CURRENT = new InheritableThreadLocal<>();
    static volatile Call last; // the way to the others at the end of the process

    private static final byte[] JSON_META = meta("application/json");
    private static final byte[] TEXT_META = meta("text/plain; charset=utf-8");
    private static final byte[] BYTES_META = meta("application/octet-stream");
    private static final byte[] EMPTY_META = "{\"status\":204}".getBytes(StandardCharsets.US_ASCII);
    private static final byte[] NULL = {'n', 'u', 'l', 'l'};

    final Link link;
    final int stream;
    final Map<String, Object> meta;
    final Body body;
    final LineLog log;
    volatile boolean canceled;
    volatile boolean ended;
    private boolean headed; // HEAD was sent
    private long credit = Frames.INITIAL_WINDOW; // guarded by this
    private long sent;
    private Thread thread; // that runs the handler; guarded by this
    private List<Runnable> onCancel; // guarded by this

    Call(Link link, int stream, Map<String, Object> meta, byte[] body) {
        this.link = link;
        this.stream = stream;
        this.meta = meta;
        this.body = new Body(this, body, "stream".equals(meta.get("body")));
        this.log = new LineLog(link, stream, link.spec.log + 65536);
    }

    private static byte[] meta(String type) {
        return ("{\"status\":200,\"headers\":{\"Content-Type\":[\"" + type + "\"]}}").getBytes(StandardCharsets.US_ASCII);
    }

    /** Runs the handler and answers. Returns when the call is over. */
    void run(Function function) {
        last = this;
        CURRENT.set(this);
        synchronized (this) {
            thread = Thread.currentThread();
            if (canceled) thread.interrupt();
        }
        try {
            if (meta.get("seed") instanceof String seed && !seed.isEmpty()) Randomness.reseed(seed);
            function.answer(this, function.call(this));
        } catch (Throwable e) {
            fail(e);
        } finally {
            synchronized (this) {
                thread = null;
            }
            Thread.interrupted(); // was meant for this call
            CURRENT.remove();
        }
    }

    // Waiting.

    /** Waits until something happens to the call. The caller holds its monitor. */
    void await() {
        try {
            wait();
        } catch (InterruptedException e) {
            if (!canceled) {
                Thread.currentThread().interrupt();
                throw new Canceled("the thread was interrupted while it waited for the caller");
            }
        }
    }

    synchronized void grant(int n) {
        credit += n;
        notifyAll();
    }

    void cancel() {
        List<Runnable> actions;
        synchronized (this) {
            canceled = true;
            actions = onCancel;
            onCancel = null;
            body.breakOff();
            if (thread != null) thread.interrupt();
        }
        if (actions != null) for (Runnable r : actions) act(r);
    }

    void onCancel(Runnable r) {
        synchronized (this) {
            if (!canceled) {
                if (onCancel == null) onCancel = new ArrayList<>(1);
                onCancel.add(r);
                return;
            }
        }
        act(r);
    }

    private static void act(Runnable r) {
        try {
            r.run();
        } catch (Throwable e) {
            System.err.println("error in an action of onCancel: " + Fault.trace(e));
        }
    }

    // Answering.

    /** Sends the last frame; only the first end counts. */
    private void end(int type, byte[] meta, byte[] data) {
        if (!link.calls.remove(stream, this)) return;
        byte[] rest = log.rest();
        ended = true;
        link.send(type == Frames.END ? Frames.join(rest, Frames.frame(type, stream, data)) : Frames.meta(rest, type, stream, meta, data));
        body.breakOff();
    }

    void fail(Throwable e) {
        byte[] error = Json.bytes(Map.of("error", Fault.of(e)));
        if (headed) end(Frames.END, null, error);
        else end(Frames.RESULT, error, Frames.NOTHING);
    }

    private void head(byte[] meta) {
        headed = true;
        link.send(Frames.meta(log.rest(), Frames.HEAD, stream, meta, Frames.NOTHING));
    }

    /** Sends bytes of the answer as there is credit. */
    void write(byte[] data, int from, int n) {
        if (!headed) throw new IllegalStateException("the answer has no head");
        while (n > 0) {
            int size;
            synchronized (this) {
                while (credit <= 0 && !canceled) await();
                if (canceled) throw new Canceled("the caller went away");
                size = (int) Math.min(Math.min(n, credit), Frames.CHUNK);
                credit -= size;
            }
            sent += size;
            if (sent > link.spec.response) throw new Fault("the answer is larger than response_bytes allows, " + link.spec.response + " bytes", "response_bytes");
            link.send(Frames.frame(Frames.DATA, stream, data, from, size));
            from += size;
            n -= size;
        }
    }

    void answer(Object value) throws Exception {
        if (value instanceof CompletionStage<?> c) value = c.toCompletableFuture().get();
        else if (value instanceof Future<?> f) value = f.get();
        if (value == null) {
            if ("http".equals(meta.get("kind"))) end(Frames.RESULT, EMPTY_META, Frames.NOTHING);
            else end(Frames.RESULT, JSON_META, NULL);
            return;
        }
        Response r = unwrap(value);
        Object content = r == null ? value : r.body;
        if (r != null && content == null) {
            end(Frames.RESULT, headOf(r, null), Frames.NOTHING);
            return;
        }
        if (isStream(content)) {
            answerStream(r == null ? new Response(null) : r, content);
            return;
        }
        Piece p = new Piece(content);
        byte[] m = r == null ? p.meta : headOf(r, p.type);
        if (p.data.length > link.spec.response) {
            throw new Fault("the answer is " + p.data.length + " bytes; response_bytes allows " + link.spec.response, "response_bytes");
        }
        send(m, p.data);
    }

    /** Answers with JSON. */
    void answerJson(int status, byte[] data) {
        send(status == 200 ? JSON_META : ("{\"status\":" + status + ",\"headers\":{\"Content-Type\":[\"application/json\"]}}").getBytes(StandardCharsets.US_ASCII), data);
    }

    private void send(byte[] m, byte[] data) {
        if (data.length <= Frames.MAX_WHOLE) {
            end(Frames.RESULT, m, data);
            return;
        }
        head(m);
        write(data, 0, data.length);
        end(Frames.END, null, EMPTY_END);
    }

    private static final byte[] EMPTY_END = {'{', '}'};

    /** One value as it is sent. */
    private static final class Piece {
        final byte[] data, meta;
        final String type;

        Piece(Object value) {
            if (value instanceof CharSequence s) {
                data = s.toString().getBytes(StandardCharsets.UTF_8);
                meta = TEXT_META;
                type = "text/plain; charset=utf-8";
            } else if (value instanceof byte[] b) {
                data = b;
                meta = BYTES_META;
                type = "application/octet-stream";
            } else if (value instanceof java.nio.ByteBuffer b) {
                data = new byte[b.remaining()];
                b.duplicate().get(data);
                meta = BYTES_META;
                type = "application/octet-stream";
            } else {
                try {
                    data = Json.bytes(value);
                } catch (IllegalArgumentException e) {
                    throw new Fault("the function returned what JSON cannot hold: " + e.getMessage());
                }
                meta = JSON_META;
                type = "application/json";
            }
        }
    }

    private static boolean isStream(Object v) {
        return v instanceof Iterator<?> || v instanceof BaseStream<?, ?> || v instanceof InputStream || v instanceof Response.Writer
            || v instanceof Iterable<?> && !(v instanceof Collection<?>) && !(v instanceof java.nio.file.Path);
    }

    /** Takes a response object apart; null for a bare value. */
    private static Response unwrap(Object v) {
        if (v instanceof Response r) return r;
        if (!(v instanceof Map<?, ?> m)) return null;
        Object status = m.get("statusCode");
        if (!(status instanceof Long || status instanceof Integer || status instanceof Short)) return null;
        Object content = m.get("body");
        if (Boolean.TRUE.equals(m.get("isBase64Encoded")) && content instanceof String s) {
            try {
                content = Base64.getDecoder().decode(s);
            } catch (IllegalArgumentException e) {
                throw new Fault("the function said isBase64Encoded, but its body is not base64");
            }
        }
        Response r = new Response(content);
        r.status = (int) Math.max(-1, Math.min(((Number) status).longValue(), 1000));
        for (String key : new String[] {"headers", "multiValueHeaders"}) {
            Object h = m.get(key);
            if (h == null) continue;
            if (!(h instanceof Map<?, ?> headers)) throw new Fault("the function gave headers that are not a map of names to values");
            for (Map.Entry<?, ?> e : headers.entrySet()) {
                if (e.getValue() == null) continue;
                List<String> values = new ArrayList<>(1);
                if (e.getValue() instanceof Iterable<?> l) for (Object x : l) values.add(String.valueOf(x));
                else if (e.getValue() instanceof Object[] l) for (Object x : l) values.add(String.valueOf(x));
                else values.add(String.valueOf(e.getValue()));
                r.headers.put(String.valueOf(e.getKey()), values);
            }
        }
        return r;
    }

    private static byte[] headOf(Response r, String type) {
        if (r.status < 200 || r.status > 599) throw new Fault("the function answered with status " + r.status + "; it must be a number from 200 to 599");
        Map<String, Object> headers = new LinkedHashMap<>(r.headers);
        // A loop and no lambda: the first lambda of a class costs more than the call.
        for (String name : r.headers.keySet()) if (name.equalsIgnoreCase("Content-Type")) type = null;
        if (type != null) headers.put("Content-Type", List.of(type));
        Map<String, Object> m = new LinkedHashMap<>();
        m.put("status", r.status);
        m.put("headers", headers);
        return Json.bytes(m);
    }

    private void answerStream(Response r, Object source) throws Exception {
        try {
            if (source instanceof Response.Writer w) {
                head(headOf(r, "application/octet-stream"));
                Response.Out out = new Response.Out(this);
                w.write(out);
                out.flush();
            } else if (source instanceof InputStream in) {
                copy(r, in);
            } else {
                Iterator<?> it = source instanceof Iterator<?> i ? i : source instanceof BaseStream<?, ?> s ? s.iterator() : ((Iterable<?>) source).iterator();
                while (it.hasNext()) {
                    Piece p = new Piece(it.next());
                    boolean json = p.meta == JSON_META;
                    if (!headed) head(headOf(r, json ? "application/x-ndjson" : p.type));
                    byte[] data = json ? Frames.join(p.data, NEWLINE) : p.data;
                    write(data, 0, data.length);
                    if (canceled) throw new Canceled("the caller went away");
                }
                if (!headed) head(headOf(r, "text/plain; charset=utf-8"));
            }
        } finally {
            if (source instanceof AutoCloseable c) shut(c);
        }
        end(Frames.END, null, EMPTY_END);
    }

    private static final byte[] NEWLINE = {'\n'};

    private void copy(Response r, InputStream in) throws IOException {
        head(headOf(r, "application/octet-stream"));
        byte[] b = new byte[64 << 10];
        for (int n; (n = in.read(b)) >= 0;) write(b, 0, n);
    }

    private static void shut(AutoCloseable c) {
        try {
            c.close();
        } catch (Throwable e) {
            System.err.println("error while closing the stream: " + e);
        }
    }
}
