import brasa.Context;
import brasa.Event;
import brasa.Response;
import java.util.LinkedHashMap;
import java.util.Map;

/** A handler that takes the event. */
public class events {
    public Object handle(Event event, Context context) throws Exception {
        switch (event.path()) {
            case "/echo": return Response.of(event.stream()).contentType("application/octet-stream");
            case "/size": return Map.of("size", event.bytes().length);
            case "/ignore": return "ignored";
            case "/request":
                Map<String, Object> m = new LinkedHashMap<>();
                m.put("method", event.method());
                m.put("query", event.query());
                m.put("all", event.queryAll("a"));
                m.put("header", event.header("X-THING"));
                m.put("args", event.args());
                m.put("text", event.text());
                return m;
            default: return Response.of("none").status(404);
        }
    }
}
