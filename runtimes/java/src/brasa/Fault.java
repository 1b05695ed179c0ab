package brasa;

import java.util.LinkedHashMap;
import java.util.Map;
import java.util.concurrent.CompletionException;
import java.util.concurrent.ExecutionException;

/** An error whose message says all; it has no trace. Its static methods describe any error for the host. */
final class Fault extends RuntimeException {
    private static final long serialVersionUID = 1;
    private static final int MOST_FRAMES = 60, DEEPEST = 8;

    private final String limit;

    Fault(String message) {
        this(message, "");
    }

    Fault(String message, String limit) {
        super(message, null, false, false);
        this.limit = limit;
    }

    static Map<String, Object> of(Throwable e) {
        Map<String, Object> m = new LinkedHashMap<>();
        // Wrappers that say nothing of their own.
        while ((e instanceof ExceptionInInitializerError || e instanceof ExecutionException || e instanceof CompletionException
                || e instanceof java.lang.reflect.InvocationTargetException) && e.getCause() != null) {
            e = e.getCause();
        }
        try {
            if (e instanceof Unfit) {
                m.put("code", "invalid");
                m.put("message", clip(e.getMessage(), 1000));
            } else if (e instanceof Fault f) {
                m.put("message", clip(f.getMessage(), 4000));
                if (!f.limit.isEmpty()) m.put("limit", f.limit);
            } else if (e instanceof Canceled) {
                m.put("kind", "Canceled");
                m.put("message", e.getMessage());
            } else {
                m.put("kind", clip(name(e), 200));
                m.put("message", clip(message(e), 4000));
                m.put("trace", clip(trace(e), 24000));
            }
        } catch (Throwable broken) {
            m.clear();
            m.put("kind", clip(name(e), 200));
            m.put("message", "(its message cannot be made: " + broken.getClass().getName() + ")");
        }
        return m;
    }

    private static String name(Throwable e) {
        String name = e.getClass().getName();
        return name.startsWith("java.lang.") ? name.substring(10) : name;
    }

    private static String message(Throwable e) {
        String s = e.getMessage();
        return s == null ? "" : s;
    }

    private static String clip(String s, int most) {
        if (s == null) return "";
        return s.length() <= most ? s : s.substring(0, most);
    }

    /** The stack as Java prints it, without our frames and those of reflection. */
    static String trace(Throwable e) {
        StringBuilder s = new StringBuilder();
        describe(s, e, "", 0);
        return s.toString();
    }

    private static void describe(StringBuilder s, Throwable e, String title, int depth) {
        s.append(title).append(e).append('\n');
        int shown = 0;
        for (StackTraceElement f : e.getStackTrace()) {
            String c = f.getClassName();
            if (c.startsWith("brasa.") || c.startsWith("jdk.internal.reflect.") || c.startsWith("java.lang.reflect.") || c.startsWith("java.lang.invoke.")) continue;
            if (shown++ == MOST_FRAMES) {
                s.append("\t...\n");
                break;
            }
            s.append("\tat ").append(f).append('\n');
        }
        if (depth > DEEPEST) return;
        for (Throwable other : e.getSuppressed()) describe(s, other, "Suppressed: ", depth + 1);
        if (e.getCause() != null && e.getCause() != e) describe(s, e.getCause(), "Caused by: ", depth + 1);
    }
}
