package brasa;

import java.io.File;
import java.io.IOException;
import java.io.InputStream;
import java.lang.reflect.Constructor;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.lang.reflect.Modifier;
import java.lang.reflect.Type;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.TimeZone;

/** The handler and how it wants to be called. */
class Function {
    private static final String[] DEFAULT_HANDLERS = {"main", "handle", "handler"};

    private final Method method;
    private final Object target; // null: the method is static
    private final Type[] types;
    private final long dependencyMicros, codeMicros;

    Function(Method method, Object target, long dependencyMicros, long codeMicros) {
        this.method = method;
        this.target = target;
        this.types = method.getGenericParameterTypes();
        this.dependencyMicros = dependencyMicros;
        this.codeMicros = codeMicros;
    }

    Map<String, Object> timing() {
        Map<String, Object> m = new LinkedHashMap<>();
        m.put("dependency_us", dependencyMicros);
        m.put("code_us", codeMicros);
        return m;
    }

    /** Loads the code up to its handler. */
    static Function load(Spec spec) throws Throwable {
        File code = new File(spec.code);
        Randomness.reseed(spec.seed);
        Environment.add(spec.env);
        System.setProperty("user.dir", spec.code); // nothing is resolved against it yet
        if (spec.env.get("TZ") instanceof String tz) TimeZone.setDefault(TimeZone.getTimeZone(tz));
        if (spec.contract.equals("openwhisk")) return Action.load(Action.places(spec), spec.handler);
        Loader loader = new Loader(Function.class.getClassLoader());
        String entry = spec.entry;
        if (!entry.isEmpty() && !new File(code, entry).exists()) throw new Fault("the code has no file " + entry);
        String main = "";
        if (entry.endsWith(".jar")) {
            File jar = new File(code, entry);
            loader.addJar(jar, "");
            loader.addDir(code);
            String named = Loader.mainOf(jar);
            if (named != null) main = named.trim();
        } else {
            loader.addDir(code);
            if (entry.endsWith(".class")) main = entry.substring(0, entry.length() - 6).replace('/', '.');
        }
        loader.addJars(new File(code, "lib"));
        for (String dir : spec.path) loader.addJars(new File(dir));
        return load(loader, main, spec.handler);
    }

    static Function load(Loader loader, String main, String wanted) throws Throwable {
        long begin = System.nanoTime();
        Thread.currentThread().setContextClassLoader(loader);
        String name = wanted.replace("::", ".").replace(':', '.').replace('#', '.');
        String method = name;
        int dot = name.lastIndexOf('.');
        if (!name.isEmpty() && loader.has(name)) {
            main = name;
            method = "";
        } else if (dot > 0) {
            main = name.substring(0, dot);
            method = name.substring(dot + 1);
        }
        if (main.isEmpty()) throw new Fault("the code does not say which class is the function; name it with --handler CLASS::METHOD");
        Class<?> c;
        try {
            c = Class.forName(main, true, loader);
        } catch (ClassNotFoundException e) {
            if (e.getMessage() != null && !e.getMessage().equals(main)) throw e;
            throw new Fault("the code has no class " + main);
        }
        Method m = find(c, method);
        m.setAccessible(true);
        Object target = null;
        if (!Modifier.isStatic(m.getModifiers())) {
            try {
                Constructor<?> make = c.getDeclaredConstructor();
                make.setAccessible(true);
                target = make.newInstance();
            } catch (NoSuchMethodException e) {
                throw new Fault(c.getName() + "." + m.getName() + " is not static, and the class has no constructor without parameters");
            } catch (InvocationTargetException e) {
                throw e.getCause();
            }
        }
        long spent = loader.spentMicros();
        return new Function(m, target, spent, Math.max(0, (System.nanoTime() - begin) / 1000 - spent));
    }

    private static Method find(Class<?> c, String wanted) {
        String[] names = wanted.isEmpty() ? DEFAULT_HANDLERS : new String[] {wanted};
        for (String name : names) {
            List<Method> found = new ArrayList<>(1);
            for (Class<?> k = c; k != null && k != Object.class && found.isEmpty(); k = k.getSuperclass()) {
                for (Method m : k.getDeclaredMethods()) {
                    if (m.getName().equals(name) && !m.isBridge() && !m.isSynthetic() && !Modifier.isAbstract(m.getModifiers()) && !isProgram(m)) found.add(m);
                }
            }
            if (found.size() > 1) throw new Fault(c.getName() + " has " + found.size() + " methods " + name + "; a handler is the only one of its name");
            if (found.isEmpty()) continue;
            Method m = found.get(0);
            if (m.getParameterCount() > 2) throw new Fault(c.getName() + "." + name + " takes " + m.getParameterCount() + " arguments; a handler takes at most two");
            return m;
        }
        if (wanted.isEmpty()) throw new Fault(c.getName() + " has none of the methods main, handle or handler; " + there(c));
        throw new Fault(c.getName() + " has no method " + wanted + "; " + there(c));
    }

    /** Whether a method is main(String[]), where a program begins. */
    private static boolean isProgram(Method m) {
        return m.getName().equals("main") && m.getParameterCount() == 1 && m.getParameterTypes()[0] == String[].class;
    }

    private static String there(Class<?> c) {
        StringBuilder s = new StringBuilder();
        int n = 0;
        for (Method m : c.getDeclaredMethods()) {
            if (m.isSynthetic() || m.isBridge() || n++ >= 10) continue;
            s.append(s.length() == 0 ? "it has " : ", ").append(m.getName());
            if (isProgram(m)) s.append("(String[]), which begins a program and is no handler");
        }
        return s.length() == 0 ? "it has no method" : s.toString();
    }

    /** Calls the handler. */
    Object call(Call call) throws Throwable {
        Object[] args = new Object[types.length];
        Event event = new Event(call);
        boolean first = true;
        for (int i = 0; i < args.length; i++) {
            Class<?> c = Bind.raw(types[i]);
            if (c == Context.class) args[i] = new Context(call);
            else if (!first) throw new Fault(method.getName() + " takes two arguments of which neither is a " + Context.class.getName());
            else {
                args[i] = argument(event, c, types[i]);
                first = false;
            }
        }
        try {
            return method.invoke(target, args);
        } catch (InvocationTargetException e) {
            throw e.getCause();
        }
    }

    /** Answers with what the handler has returned. */
    void answer(Call call, Object value) throws Exception {
        call.answer(value);
    }

    private Object argument(Event event, Class<?> c, Type t) {
        if (c == Event.class) return event;
        if (c == Object.class) return method.getName().equals("main") ? event.args() : event;
        if (c == String.class) return event.text();
        if (c == byte[].class) return event.bytes();
        if (c == InputStream.class) return event.stream();
        Map<String, Object> args = event.args();
        if (c == Map.class && !(t instanceof java.lang.reflect.ParameterizedType p && Bind.raw(p.getActualTypeArguments()[1]) != Object.class)) return args;
        // A body that is no object, as a list is.
        Object value = args.size() == 1 && args.containsKey("body") && !Map.class.isAssignableFrom(c) && !(args.get("body") instanceof Map) && !declares(c) ? args.get("body") : args;
        return Bind.to(value, t, value == args ? "the input" : "the body");
    }

    /** Whether a class is made of an object's fields. */
    private static boolean declares(Class<?> c) {
        return !c.isPrimitive() && !c.isArray() && !c.isEnum() && !c.getName().startsWith("java.");
    }
}
