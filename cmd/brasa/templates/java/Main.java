import java.util.Map;

public class Main {
    /** Called once per call with the input, parsed from JSON; what it returns is the answer. */
    public static Object main(Map<String, Object> args) {
        Object name = args.getOrDefault("name", "world");
        System.out.println("greeting " + name); // goes to the logs: brasa logs
        return Map.of("greeting", "Hello, " + name + "!");
    }
}
