package brasa;

import java.io.File;
import java.io.FileOutputStream;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * Goes the way of a claim with a function of our own before HELLO: classes that a load and a call need are loaded and
 * linked, and the pages they write are this process's own. Nothing of it stays: its loader is garbage, its link leads nowhere.
 */
final class DryRun {
    // The first round loads and links; the others bring what each call does to the compiler, or near it.
    private static final int LOADS = 4, CALLS = 12;

    private DryRun() {}

    static void run() {
        LineLog instance = Link.instance;
        try {
            File jar = new File(DryRun.class.getProtectionDomain().getCodeSource().getLocation().getPath());
            Link nowhere = new Link(null, (FileOutputStream) null);
            Link.instance = new LineLog(nowhere, 0, Long.MAX_VALUE);
            Randomness.warm();
            for (int i = 0; i < LOADS; i++) once(nowhere, jar, i % 2 == 0);
            Environment.warm();
        } catch (Throwable e) {
            Link.instance = instance;
            System.err.println("brasa: the dry run did not come through; first calls take longer: " + Fault.trace(e));
        } finally {
            Link.instance = instance;
            Call.last = null;
            System.gc(); // what is left is small, and a first call finds room
            Call.CURRENT.remove();
            Thread.currentThread().setContextClassLoader(ClassLoader.getSystemClassLoader());
        }
    }

    private static void once(Link nowhere, File jar, boolean dir) throws Throwable {
        Map<String, Object> spec = new LinkedHashMap<>();
        for (String key : new String[] {"namespace", "function", "revision", "entry", "handler", "code"}) spec.put(key, "");
        spec.put("env", Map.of());
        spec.put("memory_bytes", 1L << 28);
        spec.put("response_bytes", 1L << 20);
        spec.put("log_bytes", 1L << 20);
        spec.put("concurrency", 1);
        spec.put("seed", "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff");
        byte[] load = Json.bytes(spec);
        nowhere.take(Json.object(load, 0, load.length));
        Randomness.reseed(nowhere.spec.seed);
        // As with a real load: a directory without the class, then the sample, from the directory where the host has
        // unpacked it, or from the jar. lib is not there.
        Loader loader = new Loader(Function.class.getClassLoader());
        loader.addDir(new File(jar.getParent(), "none"));
        if (dir) loader.addDir(new File(jar.getParent()));
        loader.addJar(jar, "sample/");
        loader.addJars(new File(jar.getParent(), "lib"));
        Function f = Function.load(loader, "Sample", "");
        nowhere.send(Frames.json(Frames.LOADED, 0, f.timing()));
        for (int i = 0; i < CALLS; i++) for (String input : new String[] {"{\"name\":\"a\",\"list\":[1,2.5,null,true,\"\\u00e9\"]}", "{}", "{\"do\":\"throw\"}", "{\"do\":\"stream\"}", "{\"do\":\"respond\"}"}) {
            Map<String, Object> meta = new LinkedHashMap<>();
            meta.put("id", "0");
            meta.put("deadline_ms", System.currentTimeMillis() + 1000);
            meta.put("kind", "http");
            meta.put("method", "POST");
            meta.put("path", "/");
            meta.put("query", "a=1&b=%20");
            meta.put("headers", Map.of("Content-Type", List.of("application/json")));
            meta.put("attempt", 1);
            meta.put("cause", "");
            meta.put("body", "whole");
            meta.put("length", (long) input.length());
            byte[] b = Json.bytes(meta);
            Call call = new Call(nowhere, 1, Json.object(b, 0, b.length), input.getBytes(java.nio.charset.StandardCharsets.UTF_8));
            nowhere.calls.put(1, call);
            call.run(f);
        }
    }
}
