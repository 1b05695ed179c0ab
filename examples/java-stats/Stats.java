import brasa.Event;
import brasa.Response;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.LinkedHashMap;
import java.util.Map;

/** Numbers, one a line, to what is known of them. The body is read as it comes, so it may be long. */
public class Stats {
    public Object handle(Event event) throws IOException {
        if (!event.method().equals("POST")) return Response.of("send numbers, one a line\n").status(405).header("Allow", "POST");
        long count = 0, line = 0;
        double sum = 0, squares = 0, least = Double.POSITIVE_INFINITY, most = Double.NEGATIVE_INFINITY;
        try (BufferedReader in = new BufferedReader(new InputStreamReader(event.stream(), StandardCharsets.UTF_8))) {
            for (String text; (text = in.readLine()) != null;) {
                line++;
                if (text.isBlank()) continue;
                double x;
                try {
                    x = Double.parseDouble(text.trim());
                } catch (NumberFormatException e) {
                    return Response.of(Map.of("error", "line " + line + " is no number")).status(422);
                }
                count++;
                sum += x;
                squares += x * x;
                least = Math.min(least, x);
                most = Math.max(most, x);
            }
        }
        if (count == 0) return Response.of(Map.of("error", "there is no number")).status(422);
        Map<String, Object> out = new LinkedHashMap<>();
        out.put("count", count);
        out.put("sum", sum);
        out.put("mean", sum / count);
        out.put("min", least);
        out.put("max", most);
        out.put("deviation", Math.sqrt(Math.max(0, squares / count - (sum / count) * (sum / count))));
        return out;
    }
}
