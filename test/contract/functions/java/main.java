import brasa.Context;
import brasa.Response;
import java.io.ByteArrayInputStream;
import java.io.InputStream;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.logging.Logger;
import java.util.stream.IntStream;
import java.util.stream.Stream;

/** The functions of the contract suite; args.do says which. */
public class main {
    static {
        System.setProperty("java.util.logging.SimpleFormatter.format", "%5$s%6$s%n");
    }

    record Number(int n) {}

    static volatile CountDownLatch goOn, done;

    public static Object main(Map<String, Object> args, Context context) throws Exception {
        int size = args.get("size") instanceof Long n ? n.intValue() : 0;
        switch ((String) args.get("do")) {
            case "dict": return Map.of("text", "héllo ✓ 你好", "number", 1.5, "list", Arrays.asList(1, null, true));
            case "list": return new Object[] {1, "two"};
            case "text": return "plain ✓";
            case "bytes":
                byte[] all = new byte[256];
                for (int i = 0; i < 256; i++) all[i] = (byte) i;
                return all;
            case "number": return 42;
            case "bool": return CompletableFuture.supplyAsync(() -> false);
            case "null": return null;
            case "echo":
                args.remove("do");
                return args;
            case "response": return Response.of("made").status(201).header("X-One", 1).header("Set-Cookie", "a=1").header("Set-Cookie", "b=2");
            case "base64": return Map.of("statusCode", 200, "headers", Map.of("content-type", "image/x"), "body", "AAEC/w==", "isBase64Encoded", true);
            case "status": return Map.of("statusCode", args.get("status"), "body", "x");
            case "header": return Map.of("statusCode", 200, "headers", Map.of(args.get("name"), args.get("value")), "body", "x");
            case "error": throw new IllegalArgumentException("no good: é");
            case "unserialisable": return Map.of("x", new Object());
            case "nan": return Map.of("x", Double.NaN);
            case "exit":
                System.out.print("about to exit");
                System.exit(3);
            case "recursion": return main(args, context);
            case "loop": while (true) Thread.onSpinWait();
            case "stream": return IntStream.range(0, 3).mapToObj(i -> "part " + i + "\n");
            case "objects": return List.of(new Number(1), new Number(2)).iterator();
            case "sse": return Response.stream(out -> {
                for (int i = 0; i < 3; i++) out.write(("data: " + i + "\n\n").getBytes());
            }).contentType("text/event-stream");
            case "midway": return new Iterator<String>() {
                int n;
                public boolean hasNext() { return true; }
                public String next() {
                    if (n == 2) throw new IllegalStateException("broke in the middle");
                    return n++ == 0 ? "one\n" : "two\n";
                }
            };
            case "endless": return Stream.generate(() -> new byte[65536]).onClose(() -> System.out.println("closed"));
            case "big":
                byte[] big = new byte[size];
                Arrays.fill(big, (byte) 'y');
                return big;
            case "bigstream": return new ByteArrayInputStream(new byte[size]);
            case "log": return log(args);
            case "hugeline":
                System.out.println("x".repeat(size));
                return "ok";
            case "unfinished":
                System.out.print("no end");
                return "ok";
            case "later":
                goOn = new CountDownLatch(1);
                done = new CountDownLatch(1);
                Thread t = new Thread(() -> {
                    try {
                        goOn.await();
                    } catch (InterruptedException e) {
                        return;
                    }
                    System.out.println("late line");
                    done.countDown();
                });
                t.setDaemon(true);
                t.start();
                return "ok";
            case "release":
                goOn.countDown();
                done.await();
                return "ok";
            case "context": return new LinkedHashMap<String, Object>() {{
                put("id", context.invocationId());
                put("function", context.functionName());
                put("namespace", context.namespace());
                put("revision", context.revision());
                put("memory", context.memoryLimit());
                put("cause", context.cause());
                put("remaining", context.remainingMs());
            }};
            case "env":
                Map<String, String> env = new LinkedHashMap<>();
                for (Object name : (List<?>) args.get("names")) env.put((String) name, System.getenv((String) name));
                return env;
            case "wait":
                try {
                    Thread.sleep(600_000);
                } catch (InterruptedException e) {
                    System.out.println("canceled");
                    throw e;
                }
        }
        throw new IllegalArgumentException("nothing to do for " + args);
    }

    static Object log(Map<String, Object> args) throws InterruptedException {
        Object tag = args.get("tag");
        for (long i = 0; i < (Long) args.get("count"); i++) {
            System.out.println(tag + " " + i);
            System.err.printf("%s err %d\n", tag, i);
        }
        Thread t = new Thread(() -> System.out.println(tag + " thread"));
        t.start();
        t.join();
        Logger.getLogger("x").warning(tag + " logging");
        return tag;
    }
}
