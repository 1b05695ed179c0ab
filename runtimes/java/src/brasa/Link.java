package brasa;

import java.io.FileDescriptor;
import java.io.FileInputStream;
import java.io.FileOutputStream;
import java.io.IOException;
import java.lang.reflect.Constructor;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.locks.ReentrantLock;

/**
 * Our end of the socket.
 *
 * <p>The thread that reads a CALL runs it itself and leaves reading to the next, which waits for the lock: so a call never
 * waits for one thread to wake another, and CANCEL is read while it runs. The threads are the system's, as many as there were
 * calls at once: virtual ones save memory only beyond what one process of a function is given to serve.
 */
final class Link implements Runnable {
    static LineLog instance; // lines of no call

    final Map<Integer, Call> calls = new ConcurrentHashMap<>();
    volatile Spec spec;
    private Function function;

    private final FileInputStream in;
    private final FileOutputStream out;
    private final Object sending = new Object();

    private final ReentrantLock leading = new ReentrantLock(); // guards what follows
    private byte[] buffer = new byte[16 << 10];
    private int from, to;

    private final AtomicInteger workers = new AtomicInteger(1);

    /** Takes a descriptor as it was handed over. Java has no other way to one that is neither file nor standard stream. */
    Link(int fd) throws ReflectiveOperationException {
        Constructor<FileDescriptor> make = FileDescriptor.class.getDeclaredConstructor(int.class);
        make.setAccessible(true); // Add-Opens in the manifest
        FileDescriptor d = make.newInstance(fd);
        in = new FileInputStream(d);
        out = new FileOutputStream(d);
    }

    /** A link to nowhere, for the dry run: it reads what it is given and keeps what is sent. */
    Link(FileInputStream in, FileOutputStream out) {
        this.in = in;
        this.out = out;
    }

    void send(byte[] data) {
        if (out == null) return;
        try {
            synchronized (sending) {
                out.write(data);
            }
        } catch (IOException e) {
            Main.gone(e);
        }
    }

    /** Makes the calling thread the one that reads, and starts the one that will when this runs its first call. */
    void lead() {
        leading.lock();
        follow();
    }

    private void follow() {
        workers.incrementAndGet();
        Thread t = new Thread(null, this, "brasa-" + workers.get(), 0, false);
        t.setDaemon(true);
        t.start();
    }

    @Override
    public void run() {
        serve();
    }

    void hello() {
        Map<String, Object> m = new LinkedHashMap<>();
        m.put("protocol", 1);
        m.put("runtime", "java");
        m.put("version", System.getProperty("java.version"));
        send(Frames.json(Frames.HELLO, 0, m));
    }

    Spec awaitLoad() throws Json.Malformed {
        while (spec == null) {
            int n = awaitFrame();
            if (buffer[from + 4] == Frames.LOAD) take(Json.object(buffer, from + 9, n - 9));
            from += n;
        }
        return spec;
    }

    void take(Map<String, Object> m) {
        spec = new Spec(m);
    }

    void loaded(Function f) {
        function = f;
        send(Frames.json(Frames.LOADED, 0, f.timing()));
    }

    /** Serves calls for ever. The thread may have the lock already. */
    void serve() {
        while (true) {
            if (!leading.isHeldByCurrentThread()) leading.lock();
            Call call;
            try {
                call = nextCall();
                // Another must read while this one works.
                if (workers.get() <= spec.concurrency && !leading.hasQueuedThreads()) {
                    try {
                        follow();
                    } catch (OutOfMemoryError e) { // is how Java says that there can be no more threads
                        workers.decrementAndGet();
                        if (spec.concurrency > 1) {
                            call.fail(new Fault("no thread can be started for the call: " + e.getMessage(), "pids"));
                            continue;
                        }
                    }
                }
            } finally {
                leading.unlock();
            }
            call.run(function);
        }
    }

    /** Handles frames up to the next CALL. */
    private Call nextCall() {
        while (true) {
            int n = awaitFrame();
            int at = from;
            from += n; // the buffer keeps its bytes until the next read
            Call call = dispatch(buffer[at + 4], Frames.get(buffer, at + 5), at + 9, n - 9);
            if (call != null) return call;
        }
    }

    private Call dispatch(int type, int stream, int at, int n) {
        if (type == Frames.CALL) {
            int m = Frames.get(buffer, at);
            byte[] body = new byte[n - 4 - m];
            System.arraycopy(buffer, at + 4 + m, body, 0, body.length);
            try {
                Call call = new Call(this, stream, Json.object(buffer, at + 4, m), body);
                calls.put(stream, call);
                return call;
            } catch (Json.Malformed e) {
                throw broken();
            }
        }
        Call call = calls.get(stream);
        if (call == null) return null; // it is over
        switch (type) {
            case Frames.BODY -> {
                byte[] data = new byte[n];
                System.arraycopy(buffer, at, data, 0, n);
                call.body.put(data);
            }
            case Frames.BODY_END -> call.body.end();
            case Frames.CANCEL -> call.cancel();
            case Frames.CREDIT -> call.grant(Frames.get(buffer, at));
            default -> { }
        }
        return null;
    }

    /** Waits until a whole frame lies at from; returns its length. */
    private int awaitFrame() {
        while (true) {
            if (to - from >= 9) {
                int n = Frames.get(buffer, from) + 4;
                if (n < 9 || n > 9 + Frames.MAX_PAYLOAD) throw broken();
                if (to - from >= n) return n;
                room(n);
            } else {
                room(16 << 10);
            }
            try {
                int n = in.read(buffer, to, buffer.length - to);
                if (n <= 0) Main.gone(null);
                to += n;
            } catch (IOException e) {
                Main.gone(e);
            }
        }
    }

    /** Makes room for n bytes from from. */
    private void room(int n) {
        if (from == to && buffer.length > 64 << 10) buffer = new byte[16 << 10]; // a large frame was here, and has gone
        if (from == to) from = to = 0;
        if (buffer.length - from >= n && to < buffer.length) return;
        byte[] b = n > buffer.length ? new byte[Math.max(n, 256 << 10)] : buffer;
        System.arraycopy(buffer, from, b, 0, to - from);
        buffer = b;
        to -= from;
        from = 0;
    }

    private static RuntimeException broken() {
        System.err.println("brasa: a frame that cannot be read");
        Runtime.getRuntime().halt(70);
        return new IllegalStateException();
    }
}
