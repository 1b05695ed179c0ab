package brasa;

/** Turns what a call writes into whole lines, one frame for as many as come at once. */
final class LineLog {
    private static final int MAX_PART = 32 << 10; // bytes of a line that are kept while its end has not come

    private final Link link;
    private final int stream;
    private long budget;
    private final byte[][] parts = {null, Frames.NOTHING, Frames.NOTHING};

    LineLog(Link link, int stream, long budget) {
        this.link = link;
        this.stream = stream;
        this.budget = budget;
    }

    synchronized void write(int which, byte[] data, int from, int n) {
        int end = from + n;
        int at = end;
        while (at > from && data[at - 1] != '\n') at--; // behind the last line's end
        byte[] part = parts[which];
        if (at == from) {
            byte[] more = new byte[part.length + n];
            System.arraycopy(part, 0, more, 0, part.length);
            System.arraycopy(data, from, more, part.length, n);
            parts[which] = more;
            if (more.length <= MAX_PART) return;
            int cut = more.length;
            while (cut > more.length - 4 && (more[cut - 1] & 0xC0) == 0x80) cut--; // not within a character
            if ((more[cut - 1] & 0xC0) == 0xC0) cut--;
            parts[which] = slice(more, cut, more.length - cut);
            emit(which, more, cut);
            return;
        }
        byte[] lines = new byte[part.length + at - from];
        System.arraycopy(part, 0, lines, 0, part.length);
        System.arraycopy(data, from, lines, part.length, at - from);
        parts[which] = slice(data, at, end - at);
        emit(which, lines, lines.length);
    }

    private static byte[] slice(byte[] b, int from, int n) {
        if (n == 0) return Frames.NOTHING;
        byte[] out = new byte[n];
        System.arraycopy(b, from, out, 0, n);
        return out;
    }

    private void emit(int which, byte[] data, int n) {
        byte[] f = frames(which, data, n);
        if (f.length > 0) link.send(f);
    }

    private byte[] frames(int which, byte[] data, int n) {
        if (budget <= 0) return Frames.NOTHING; // the host drops what is over, so it need not be sent
        budget -= n;
        byte[] out = Frames.NOTHING;
        for (int at = 0; at < n; at += Frames.MAX_WHOLE) {
            int size = Math.min(n - at, Frames.MAX_WHOLE);
            byte[] f = new byte[10 + size];
            Frames.head(f, 0, Frames.LOG, stream, 1 + size);
            f[9] = (byte) which;
            System.arraycopy(data, at, f, 10, size);
            out = Frames.join(out, f);
        }
        return out;
    }

    /** The frames of lines that have no end. */
    synchronized byte[] rest() {
        byte[] out = Frames.NOTHING;
        for (int which = 1; which <= 2; which++) {
            if (parts[which].length > 0) out = Frames.join(out, frames(which, parts[which], parts[which].length));
            parts[which] = Frames.NOTHING;
        }
        return out;
    }

    void flush() {
        byte[] f = rest();
        if (f.length > 0) link.send(f);
    }
}
