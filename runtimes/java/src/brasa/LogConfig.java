package brasa;

import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.logging.Handler;
import java.util.logging.LogManager;
import java.util.logging.LogRecord;
import java.util.logging.SimpleFormatter;

/**
 * Configures java.util.logging when it is first used: what is logged goes to System.err line by line. Java's own
 * ConsoleHandler writes and flushes in two steps, so that a thread may send what another has written.
 */
public final class LogConfig {
    public LogConfig() throws IOException {
        String config = "handlers=" + Direct.class.getName() + "\n.level=INFO\n";
        LogManager.getLogManager().readConfiguration(new ByteArrayInputStream(config.getBytes(StandardCharsets.ISO_8859_1)));
    }

    /** Prints a record in one step. */
    public static final class Direct extends Handler {
        public Direct() {
            setFormatter(new SimpleFormatter());
        }

        @Override
        public void publish(LogRecord record) {
            if (isLoggable(record)) System.err.print(getFormatter().format(record));
        }

        @Override
        public void flush() { }

        @Override
        public void close() { }
    }
}
