package brasa;

import java.lang.reflect.Constructor;
import java.lang.reflect.Field;
import java.util.Map;

/** The process's environment, which Java reads once at the start: before it is known whose the process will be. */
final class Environment {
    private Environment() {}

    static void add(Map<String, Object> more) throws ReflectiveOperationException {
        if (!more.isEmpty()) apply(more);
    }

    /** Goes the way of add and leaves nothing. */
    static void warm() throws ReflectiveOperationException {
        apply(Map.of("BRASA_DRY_RUN", "1")).remove("BRASA_DRY_RUN");
    }

    private static Map<String, String> apply(Map<String, Object> more) throws ReflectiveOperationException {
        Class<?> c = Class.forName("java.lang.ProcessEnvironment");
        Field all = c.getDeclaredField("theEnvironment");
        all.setAccessible(true); // Add-Opens in the manifest
        Constructor<?> view = Class.forName("java.lang.ProcessEnvironment$StringEnvironment").getDeclaredConstructor(Map.class);
        view.setAccessible(true);
        @SuppressWarnings("unchecked")
        Map<String, String> env = (Map<String, String>) view.newInstance(all.get(null));
        for (Map.Entry<String, Object> e : more.entrySet()) env.put(e.getKey(), String.valueOf(e.getValue()));
        return env;
    }
}
