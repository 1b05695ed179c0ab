import brasa.Context;
import brasa.Response;
import java.util.List;
import java.util.Map;

/** What the dry run calls: a little of what functions do, so that they find it done. */
public class Sample {
    record Pair(String name, int number) {}

    public static Object main(Map<String, Object> args, Context context) {
        System.out.println("a line of " + args.get("name") + " and " + context.remainingMs());
        System.err.println(String.format("%s %d", "text", 5L));
        String what = (String) args.getOrDefault("do", "");
        switch (what) {
            case "throw": throw new IllegalArgumentException("thrown");
            case "stream": return List.of("a", "b").iterator();
            case "respond": return new Response("made").status(201).header("X-One", 1);
            default:
                int sum = List.of(1, 2, 3).stream().map(x -> x + 1).reduce(0, Integer::sum);
                // The usual shapes of text put together, each of which costs its first user something.
                Object o = args.get("name");
                String a = "x" + what + ".", b = what + o, c = "a" + o + "b" + sum, d = what + sum + o, e = "a" + sum + "b" + what + "c" + o;
                return Map.of("shapes", List.of(a, b, c, d, e), "greeting", "Hello, " + args.getOrDefault("name", "world"), "sum", sum, "pair", new Pair("x", 1).toString(), "list", List.of(1.5, true));
        }
    }
}
