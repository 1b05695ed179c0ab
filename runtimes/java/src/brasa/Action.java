package brasa;

import java.io.File;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.lang.reflect.Modifier;
import java.nio.charset.StandardCharsets;
import java.util.LinkedHashMap;
import java.util.Map;

/**
 * The handler of an action of OpenWhisk: a static method main that takes and returns what Gson has for an object or a list.
 * Gson is the action's own, or was installed for it.
 */
final class Action extends Function {
    private static final String GSON = "com.google.gson.";
    private static final int HEAD = 8192; // of an answer that is too long

    private final Method onObject, onArray; // one of them may be null
    private final Method parse;
    private final Object parser; // null: parse is static

    private Action(Method onObject, Method onArray, Method parse, Object parser, long dependencyMicros, long codeMicros) {
        super(onObject != null ? onObject : onArray, null, dependencyMicros, codeMicros);
        this.onObject = onObject;
        this.onArray = onArray;
        this.parse = parse;
        this.parser = parser;
    }

    static Action load(Loader loader, String wanted) throws Throwable {
        long begin = System.nanoTime();
        Thread.currentThread().setContextClassLoader(loader);
        int hash = wanted.indexOf('#');
        String main = hash < 0 ? wanted : wanted.substring(0, hash);
        String name = hash < 0 ? "main" : wanted.substring(hash + 1);
        Class<?> c;
        try {
            c = Class.forName(main, true, loader);
        } catch (ClassNotFoundException e) {
            if (e.getMessage() != null && !e.getMessage().equals(main)) throw e;
            throw new Fault("the code has no class " + main);
        }
        Method onObject = null, onArray = null;
        for (Method m : c.getDeclaredMethods()) {
            if (!m.getName().equals(name) || !Modifier.isStatic(m.getModifiers()) || m.getParameterCount() != 1) continue;
            String type = m.getParameterTypes()[0].getName();
            m.setAccessible(true);
            if (type.equals(GSON + "JsonObject") || type.equals(GSON + "JsonElement")) onObject = m;
            if (type.equals(GSON + "JsonArray") || type.equals(GSON + "JsonElement")) onArray = m;
        }
        if (onObject == null && onArray == null) throw new Fault(main + " has no static method " + name + "(" + GSON + "JsonObject)");
        Class<?> parsers = Class.forName(GSON + "JsonParser", true, loader);
        Method parse;
        Object parser = null;
        try {
            parse = parsers.getMethod("parseString", String.class);
        } catch (NoSuchMethodException older) {
            parse = parsers.getMethod("parse", String.class);
            parser = parsers.getConstructor().newInstance();
        }
        long spent = loader.spentMicros();
        return new Action(onObject, onArray, parse, parser, spent, Math.max(0, (System.nanoTime() - begin) / 1000 - spent));
    }

    /** Where the classes of an action are: in its jar, then in those that were installed for it. */
    static Loader places(Spec spec) throws java.io.IOException {
        Loader loader = new Loader(Action.class.getClassLoader());
        File jar = new File(spec.code, spec.entry);
        if (!jar.exists()) throw new Fault("the code has no file " + spec.entry);
        loader.addJar(jar, "");
        for (String dir : spec.path) loader.addJars(new File(dir));
        return loader;
    }

    @Override
    Object call(Call call) throws Throwable {
        if (call.meta.get("env") instanceof Map<?, ?> env) {
            @SuppressWarnings("unchecked")
            Map<String, Object> more = (Map<String, Object>) env;
            Environment.add(more);
        }
        Event event = new Event(call);
        String text = event.text().trim();
        boolean array = text.startsWith("[");
        if (!array && (!event.queryString().isEmpty() || !text.startsWith("{"))) text = new String(Json.bytes(event.args()), StandardCharsets.UTF_8);
        Method method = array ? onArray : onObject;
        if (method == null) throw new Fault("the action takes " + (array ? "no list" : "a list alone"));
        try {
            return method.invoke(null, parse.invoke(parser, text));
        } catch (InvocationTargetException e) {
            if (e.getCause() instanceof OutOfMemoryError full) throw new Fault(full.toString(), "memory_bytes");
            if (!call.canceled) System.err.print(Fault.trace(e.getCause()));
            throw e.getCause();
        }
    }

    @Override
    void answer(Call call, Object value) throws Exception {
        String text = value == null ? "null" : value.toString();
        if (value == null || !value.getClass().getName().equals(GSON + "JsonObject") && !value.getClass().getName().equals(GSON + "JsonArray")) {
            throw new Fault("the action did not return a dictionary or array, so its response is not valid: " + (text.length() > 1000 ? text.substring(0, 1000) : text));
        }
        byte[] data = text.getBytes(StandardCharsets.UTF_8);
        boolean failed = text.startsWith("{") && Boolean.TRUE.equals(value.getClass().getMethod("has", String.class).invoke(value, "error"));
        long most = call.link.spec.response;
        if (data.length > most) {
            failed = true;
            Map<String, Object> m = new LinkedHashMap<>();
            m.put("error", "the action's response is too long: " + data.length + " bytes are more than the " + most + " that are allowed; it begins: "
                + text.substring(0, Math.min(text.length(), HEAD)));
            data = Json.bytes(m);
        }
        call.answerJson(failed ? 502 : 200, data);
    }
}
