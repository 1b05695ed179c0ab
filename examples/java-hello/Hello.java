/** The input becomes a record, and a record becomes the answer. */
public class Hello {
    record Greeting(String greeting, int letters) {}

    record Input(String name) {
        Input {
            if (name == null || name.isBlank()) name = "world";
        }
    }

    public static Greeting main(Input in) {
        System.out.println("greeting " + in.name());
        return new Greeting("Hello, " + in.name() + "!", in.name().length());
    }
}
