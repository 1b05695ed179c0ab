package brasa;

import java.io.ByteArrayOutputStream;
import java.io.InputStream;
import java.util.ArrayDeque;

/** A request's body: whole, or a stream that grants the host credit as it is read. */
final class Body extends InputStream {
    private final Call call;
    private final ArrayDeque<byte[]> chunks = new ArrayDeque<>(2); // guarded by call, as what follows
    private int at; // in the first
    private boolean ended, broken;
    private int owed;
    final boolean streamed;

    Body(Call call, byte[] data, boolean streamed) {
        this.call = call;
        this.streamed = streamed;
        ended = !streamed;
        if (data.length > 0) chunks.add(data);
    }

    void put(byte[] data) {
        synchronized (call) {
            chunks.add(data);
            call.notifyAll();
        }
    }

    void end() {
        synchronized (call) {
            ended = true;
            call.notifyAll();
        }
    }

    void breakOff() {
        synchronized (call) {
            broken = true;
            call.notifyAll();
        }
    }

    @Override
    public int read() {
        byte[] b = new byte[1];
        return read(b, 0, 1) < 0 ? -1 : b[0] & 255;
    }

    @Override
    public int read(byte[] b, int from, int n) {
        if (n == 0) return 0;
        int grant = 0;
        int got;
        synchronized (call) {
            while (chunks.isEmpty() && !ended && !broken) call.await();
            if (broken && !ended) throw new Canceled("the caller went away before the end of its request");
            byte[] first = chunks.peek();
            if (first == null) return -1;
            got = Math.min(n, first.length - at);
            System.arraycopy(first, at, b, from, got);
            at += got;
            if (at == first.length) {
                chunks.poll();
                at = 0;
            }
            owed += got;
            if (!ended && owed >= Frames.INITIAL_WINDOW / 4) {
                grant = owed;
                owed = 0;
            }
        }
        if (grant > 0) {
            byte[] payload = new byte[4];
            Frames.put(payload, 0, grant);
            call.link.send(Frames.frame(Frames.WINDOW, call.stream, payload));
        }
        return got;
    }

    @Override
    public int available() {
        synchronized (call) {
            byte[] first = chunks.peek();
            return first == null ? 0 : first.length - at;
        }
    }

    /** The rest of the body. */
    byte[] all() {
        synchronized (call) {
            if (ended && chunks.size() <= 1 && at == 0) {
                byte[] only = chunks.poll();
                return only == null ? Frames.NOTHING : only;
            }
        }
        ByteArrayOutputStream out = new ByteArrayOutputStream(64 << 10);
        byte[] b = new byte[64 << 10];
        for (int n; (n = read(b, 0, b.length)) >= 0;) out.write(b, 0, n);
        return out.toByteArray();
    }
}
