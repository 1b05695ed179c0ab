package brasa;

import java.io.ByteArrayInputStream;
import java.io.InputStream;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;

/** A request. Its methods are for the thread that runs the handler. */
public final class Event {
    private final Call call;
    private byte[] bytes;
    private Map<String, Object> args;
    private Map<String, String> query;
    private Map<String, List<String>> queryAll;
    private Map<String, List<String>> headers;

    Event(Call call) {
        this.call = call;
    }

    /** "http" for a request to the function's own URL, "invoke" for a call by name. */
    public String kind() { return Spec.text(call.meta, "kind"); }

    public String method() { return Spec.text(call.meta, "method"); }

    public String path() { return Spec.text(call.meta, "path"); }

    public String queryString() { return Spec.text(call.meta, "query"); }

    /** Length of the body; -1 if it was not known beforehand. */
    public long length() { return Spec.number(call.meta, "length", 0); }

    /** Parameters of the URL; of one that is given twice the last counts. */
    public Map<String, String> query() {
        if (query == null) query = last(all());
        return query;
    }

    /** All values of a parameter, in order. */
    public List<String> queryAll(String name) {
        return all().getOrDefault(name, List.of());
    }

    private Map<String, List<String>> all() {
        if (queryAll == null) queryAll = parameters(queryString());
        return queryAll;
    }

    /** Headers by their names, the same in upper and lower case. */
    public Map<String, List<String>> headers() {
        if (headers == null) {
            headers = new TreeMap<>(String.CASE_INSENSITIVE_ORDER);
            if (call.meta.get("headers") instanceof Map<?, ?> m) {
                for (Map.Entry<?, ?> e : m.entrySet()) {
                    List<String> values = new ArrayList<>(1);
                    if (e.getValue() instanceof List<?> l) for (Object v : l) values.add(String.valueOf(v));
                    headers.put((String) e.getKey(), values);
                }
            }
        }
        return headers;
    }

    /** A header by its name in any case, its values joined; null if there is none. */
    public String header(String name) {
        List<String> values = headers().get(name);
        return values == null ? null : values.size() == 1 ? values.get(0) : String.join(", ", values);
    }

    /** The whole body; waits for its end. */
    public byte[] bytes() {
        if (bytes == null) bytes = call.body.all();
        return bytes;
    }

    /** The whole body as text. */
    public String text() { return new String(bytes(), StandardCharsets.UTF_8); }

    /** The whole body as the JSON value that it is. */
    public Object json() throws Json.Malformed { return Json.parse(bytes()); }

    /** The body as it comes. */
    public InputStream stream() { return bytes == null ? call.body : new ByteArrayInputStream(bytes); }

    /**
     * What main(args) gets: parameters of the URL, then the fields of a JSON object or form. Another body is the one argument
     * "body".
     */
    public Map<String, Object> args() {
        if (args == null) args = arguments();
        return args;
    }

    private Map<String, Object> arguments() {
        Map<String, Object> out = queryString().isEmpty() ? null : new LinkedHashMap<>(query());
        byte[] body = bytes();
        if (body.length == 0) return out == null ? new LinkedHashMap<>() : out;
        String type = header("content-type");
        if (type == null) type = "";
        int semicolon = type.indexOf(';');
        type = (semicolon < 0 ? type : type.substring(0, semicolon)).trim().toLowerCase(java.util.Locale.ROOT);
        boolean form = type.equals("application/x-www-form-urlencoded");
        // A form is tried as JSON first, because that is what curl -d calls JSON.
        if (type.isEmpty() || form || type.equals("application/json") || type.endsWith("+json")) {
            try {
                Object value = Json.parse(body);
                if (out == null) out = new LinkedHashMap<>();
                if (value instanceof Map<?, ?> m) {
                    @SuppressWarnings("unchecked")
                    Map<String, Object> fields = (Map<String, Object>) m;
                    if (out.isEmpty()) return fields;
                    out.putAll(fields);
                } else {
                    out.put("body", value);
                }
                return out;
            } catch (Json.Malformed e) {
                if (!type.isEmpty() && !form) throw new Unfit("the request says that its body is JSON, and it is not: " + e.getMessage());
            }
        }
        if (out == null) out = new LinkedHashMap<>();
        if (form) {
            out.putAll(last(parameters(text())));
            return out;
        }
        Object value = body;
        if (!type.equals("application/octet-stream")) {
            try {
                value = StandardCharsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(body)).toString();
            } catch (CharacterCodingException e) {
                value = body;
            }
        }
        out.put("body", value);
        return out;
    }

    private static Map<String, String> last(Map<String, List<String>> all) {
        Map<String, String> out = new LinkedHashMap<>();
        for (Map.Entry<String, List<String>> e : all.entrySet()) out.put(e.getKey(), e.getValue().get(e.getValue().size() - 1));
        return out;
    }

    private static Map<String, List<String>> parameters(String text) {
        if (text.isEmpty()) return Collections.emptyMap();
        Map<String, List<String>> out = new LinkedHashMap<>();
        for (String part : text.split("&")) {
            if (part.isEmpty()) continue;
            int eq = part.indexOf('=');
            String name = unquote(eq < 0 ? part : part.substring(0, eq));
            List<String> values = out.get(name);
            if (values == null) out.put(name, values = new ArrayList<>(1));
            values.add(eq < 0 ? "" : unquote(part.substring(eq + 1)));
        }
        return out;
    }

    /** As java.net.URLDecoder, save that a % that begins no code stays as it is. */
    private static String unquote(String s) {
        if (s.indexOf('%') < 0) return s.replace('+', ' ');
        byte[] b = s.replace('+', ' ').getBytes(StandardCharsets.UTF_8);
        int n = 0;
        for (int i = 0; i < b.length; i++) {
            if (b[i] == '%' && i + 2 < b.length) {
                int high = Character.digit(b[i + 1], 16), low = Character.digit(b[i + 2], 16);
                if (high >= 0 && low >= 0) {
                    b[n++] = (byte) (high << 4 | low);
                    i += 2;
                    continue;
                }
            }
            b[n++] = b[i];
        }
        return new String(b, 0, n, StandardCharsets.UTF_8);
    }
}
