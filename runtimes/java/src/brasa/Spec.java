package brasa;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;

/** What LOAD says of the function. */
final class Spec {
    final String namespace, function, revision, entry, handler, code, seed, contract;
    final List<String> path = new ArrayList<>(1); // directories of jars that were installed for it
    final Map<String, Object> env;
    final long memory, response, log;
    final int concurrency;

    Spec(Map<String, Object> m) {
        namespace = text(m, "namespace");
        function = text(m, "function");
        revision = text(m, "revision");
        entry = text(m, "entry");
        handler = text(m, "handler");
        code = text(m, "code");
        seed = text(m, "seed");
        contract = text(m, "contract");
        if (m.get("path") instanceof List<?> l) for (Object dir : l) if (dir instanceof String s) path.add(s);
        @SuppressWarnings("unchecked")
        Map<String, Object> e = m.get("env") instanceof Map<?, ?> x ? (Map<String, Object>) x : Map.of();
        env = e;
        memory = number(m, "memory_bytes", 0);
        response = number(m, "response_bytes", Long.MAX_VALUE);
        log = number(m, "log_bytes", 0);
        concurrency = (int) Math.max(1, number(m, "concurrency", 1));
    }

    static String text(Map<String, Object> m, String key) {
        return m.get(key) instanceof String s ? s : "";
    }

    static long number(Map<String, Object> m, String key, long otherwise) {
        return m.get(key) instanceof Number n ? n.longValue() : otherwise;
    }
}
