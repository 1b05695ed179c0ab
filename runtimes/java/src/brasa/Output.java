package brasa;

import java.io.OutputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;

/** System.out and System.err: what is written goes to the log of the call on whose behalf code runs. */
final class Output extends OutputStream {
    private final int which;

    private Output(int which) {
        this.which = which;
    }

    static void install() {
        System.setOut(new PrintStream(new Output(1), true, StandardCharsets.UTF_8));
        System.setErr(new PrintStream(new Output(2), true, StandardCharsets.UTF_8));
        System.setProperty("java.util.logging.config.class", "brasa.LogConfig");
        // A level and the message on one line, unless the function wants it otherwise.
        System.setProperty("java.util.logging.SimpleFormatter.format", "%4$s %5$s%6$s%n");
        Runtime.getRuntime().addShutdownHook(new Flusher());
    }

    /** Sends lines that have no end before System.exit ends the process. */
    private static final class Flusher extends Thread {
        Flusher() {
            super(null, null, "brasa-exit", 0, false);
        }

        @Override
        public void run() {
            Call call = Call.last;
            if (call != null) for (Call c : call.link.calls.values()) c.log.flush();
            Link.instance.flush();
        }
    }

    private LineLog log() {
        Call call = Call.CURRENT.get();
        return call == null || call.ended ? Link.instance : call.log;
    }

    @Override
    public void write(int b) {
        log().write(which, new byte[] {(byte) b}, 0, 1);
    }

    @Override
    public void write(byte[] b, int from, int n) {
        if (n > 0) log().write(which, b, from, n);
    }
}
