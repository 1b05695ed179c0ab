package brasa;

import java.util.Map;

/** The frames of protocol 1: u32 length of the rest, u8 type, u32 stream, payload; numbers in big-endian order. */
final class Frames {
    static final int LOAD = 1, CALL = 2, BODY = 3, BODY_END = 4, CANCEL = 5, CREDIT = 6;
    static final int HELLO = 16, LOADED = 17, LOAD_FAILED = 18, LOG = 19, RESULT = 20, HEAD = 21, DATA = 22, END = 23, WINDOW = 24;

    static final int MAX_PAYLOAD = 1 << 20;
    static final int MAX_WHOLE = 256 << 10; // an answer up to this size travels in one frame
    static final int INITIAL_WINDOW = 1 << 20;
    static final int CHUNK = 128 << 10; // bytes in one DATA frame
    static final byte[] NOTHING = {};

    private Frames() {}

    static byte[] frame(int type, int stream, byte[] payload, int from, int n) {
        byte[] b = new byte[9 + n];
        head(b, 0, type, stream, n);
        System.arraycopy(payload, from, b, 9, n);
        return b;
    }

    static byte[] frame(int type, int stream, byte[] payload) {
        return frame(type, stream, payload, 0, payload.length);
    }

    static byte[] json(int type, int stream, Map<String, ?> value) {
        return frame(type, stream, Json.bytes(value));
    }

    /** A RESULT or HEAD, with what is to be sent before it in front. */
    static byte[] meta(byte[] before, int type, int stream, byte[] meta, byte[] body) {
        int at = before.length;
        byte[] b = new byte[at + 13 + meta.length + body.length];
        System.arraycopy(before, 0, b, 0, at);
        head(b, at, type, stream, 4 + meta.length + body.length);
        put(b, at + 9, meta.length);
        System.arraycopy(meta, 0, b, at + 13, meta.length);
        System.arraycopy(body, 0, b, at + 13 + meta.length, body.length);
        return b;
    }

    static byte[] join(byte[] a, byte[] b) {
        if (a.length == 0) return b;
        byte[] out = new byte[a.length + b.length];
        System.arraycopy(a, 0, out, 0, a.length);
        System.arraycopy(b, 0, out, a.length, b.length);
        return out;
    }

    static void head(byte[] b, int at, int type, int stream, int n) {
        put(b, at, n + 5);
        b[at + 4] = (byte) type;
        put(b, at + 5, stream);
    }

    static void put(byte[] b, int at, int v) {
        b[at] = (byte) (v >>> 24);
        b[at + 1] = (byte) (v >>> 16);
        b[at + 2] = (byte) (v >>> 8);
        b[at + 3] = (byte) v;
    }

    static int get(byte[] b, int at) {
        return b[at] << 24 | (b[at + 1] & 255) << 16 | (b[at + 2] & 255) << 8 | b[at + 3] & 255;
    }
}
