package brasa;

import java.io.IOException;
import java.io.OutputStream;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** An answer with its status and headers. The body may be what a handler may return. */
public final class Response {
    Object body;
    int status = 200;
    final Map<String, List<String>> headers = new LinkedHashMap<>();

    /** Writes an answer as it comes into being. */
    @FunctionalInterface
    public interface Writer {
        /** Writes the body. A flush sends what was written; the end of the method ends the answer. */
        void write(OutputStream out) throws Exception;
    }

    public Response(Object body) {
        this.body = body;
    }

    public static Response of(Object body) {
        return new Response(body);
    }

    /** An answer whose body is written by the function. */
    public static Response stream(Writer writer) {
        return new Response(writer);
    }

    public Response status(int status) {
        this.status = status;
        return this;
    }

    /** Adds a header; one that is added twice is sent twice. */
    public Response header(String name, Object value) {
        List<String> values = headers.get(name);
        if (values == null) headers.put(name, values = new ArrayList<>(1));
        values.add(String.valueOf(value));
        return this;
    }

    public Response contentType(String value) {
        headers.put("Content-Type", new ArrayList<>(List.of(value)));
        return this;
    }

    /** Collects small writes, so that a frame is worth its head. */
    static final class Out extends OutputStream {
        private final Call call;
        private final byte[] buffer = new byte[32 << 10];
        private int n;

        Out(Call call) {
            this.call = call;
        }

        @Override
        public void write(int b) throws IOException {
            if (n == buffer.length) flush();
            buffer[n++] = (byte) b;
        }

        @Override
        public void write(byte[] b, int from, int size) throws IOException {
            if (size > buffer.length - n) flush();
            if (size >= buffer.length) {
                call.write(b, from, size);
                return;
            }
            System.arraycopy(b, from, buffer, n, size);
            n += size;
        }

        @Override
        public void flush() throws IOException {
            int size = n;
            n = 0;
            if (size > 0) call.write(buffer, 0, size);
        }

        @Override
        public void close() throws IOException {
            flush();
        }
    }
}
