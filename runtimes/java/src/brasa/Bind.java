package brasa;

import java.lang.reflect.Array;
import java.lang.reflect.Constructor;
import java.lang.reflect.Field;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Modifier;
import java.lang.reflect.ParameterizedType;
import java.lang.reflect.RecordComponent;
import java.lang.reflect.Type;
import java.math.BigDecimal;
import java.math.BigInteger;
import java.util.ArrayList;
import java.util.Collection;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;

/** Makes what a handler's parameter is declared as of a JSON value: records, objects with fields, lists of these. */
final class Bind {
    private Bind() {}

    static Object to(Object v, Type t, String where) {
        Class<?> c = raw(t);
        if (c == Optional.class) return Optional.ofNullable(v == null ? null : to(v, argument(t, 0), where));
        if (v == null) {
            if (c.isPrimitive()) return c == boolean.class ? (Object) false : c == char.class ? (Object) '\0' : number(0L, c, where);
            return null;
        }
        if (c == Object.class || c == String.class && v instanceof String) return v;
        if (c == boolean.class || c == Boolean.class) {
            if (v instanceof Boolean) return v;
        } else if (c == char.class || c == Character.class) {
            if (v instanceof String s && s.length() == 1) return s.charAt(0);
        } else if (c.isPrimitive() || Number.class.isAssignableFrom(c)) {
            if (v instanceof Number n) return number(n, c, where);
        } else if (c == byte[].class) {
            if (v instanceof byte[]) return v;
            if (v instanceof String s) return s.getBytes(java.nio.charset.StandardCharsets.UTF_8);
        } else if (c.isEnum()) {
            for (Object e : c.getEnumConstants()) if (((Enum<?>) e).name().equals(v)) return e;
        } else if (Map.class.isAssignableFrom(c) && c.isAssignableFrom(LinkedHashMap.class)) {
            if (v instanceof Map<?, ?> m) {
                Type of = argument(t, 1);
                if (raw(of) == Object.class) return v;
                Map<Object, Object> out = new LinkedHashMap<>();
                for (Map.Entry<?, ?> e : m.entrySet()) out.put(e.getKey(), to(e.getValue(), of, where + "." + e.getKey()));
                return out;
            }
        } else if (c == List.class || c == Collection.class || c == Iterable.class || c == ArrayList.class || c == Set.class) {
            if (v instanceof List<?> l) return fill(l, c == Set.class ? new LinkedHashSet<>() : new ArrayList<>(l.size()), argument(t, 0), where);
        } else if (c.isArray()) {
            if (v instanceof List<?> l) {
                Object out = Array.newInstance(c.getComponentType(), l.size());
                for (int i = 0; i < l.size(); i++) Array.set(out, i, to(l.get(i), c.getComponentType(), where + "[" + i + "]"));
                return out;
            }
        } else if (v instanceof Map<?, ?> m && !c.getName().startsWith("java.")) {
            return c.isRecord() ? record(m, c, where) : object(m, c, where);
        }
        throw new Unfit(where + " is " + kind(v) + " and must be a " + c.getSimpleName());
    }

    private static Collection<Object> fill(List<?> l, Collection<Object> out, Type t, String where) {
        int i = 0;
        for (Object v : l) out.add(to(v, t, where + "[" + i++ + "]"));
        return out;
    }

    private static Object record(Map<?, ?> m, Class<?> c, String where) {
        RecordComponent[] parts = c.getRecordComponents();
        Class<?>[] types = new Class<?>[parts.length];
        Object[] values = new Object[parts.length];
        for (int i = 0; i < parts.length; i++) {
            types[i] = parts[i].getType();
            values[i] = to(m.get(parts[i].getName()), parts[i].getGenericType(), where + "." + parts[i].getName());
        }
        try {
            Constructor<?> make = c.getDeclaredConstructor(types);
            make.setAccessible(true);
            return make.newInstance(values);
        } catch (InvocationTargetException e) {
            // A compact constructor that refuses its values says what the caller did wrong.
            throw new Unfit(where + ": " + e.getCause().getMessage());
        } catch (ReflectiveOperationException e) {
            throw new Fault("a " + c.getName() + " cannot be made: " + e);
        }
    }

    private static Object object(Map<?, ?> m, Class<?> c, String where) {
        try {
            Constructor<?> make = c.getDeclaredConstructor();
            make.setAccessible(true);
            Object out = make.newInstance();
            for (Class<?> k = c; k != Object.class; k = k.getSuperclass()) {
                for (Field f : k.getDeclaredFields()) {
                    if ((f.getModifiers() & (Modifier.STATIC | Modifier.FINAL)) != 0 || !m.containsKey(f.getName())) continue;
                    f.setAccessible(true);
                    f.set(out, to(m.get(f.getName()), f.getGenericType(), where + "." + f.getName()));
                }
            }
            return out;
        } catch (NoSuchMethodException e) {
            throw new Fault("a " + c.getName() + " cannot be made of arguments: it is no record and has no constructor without parameters");
        } catch (InvocationTargetException e) {
            throw new Fault("a " + c.getName() + " cannot be made: " + e.getCause());
        } catch (ReflectiveOperationException e) {
            throw new Fault("a " + c.getName() + " cannot be made: " + e);
        }
    }

    private static Object number(Number n, Class<?> c, String where) {
        boolean whole = n instanceof Long || n instanceof BigInteger || n instanceof Double d && d == Math.rint(d) && Math.abs(d) < 1e18;
        if (c == double.class || c == Double.class || c == Number.class && !whole) return n.doubleValue();
        if (c == float.class || c == Float.class) return n.floatValue();
        if (c == Number.class) return n;
        if (c == BigDecimal.class) return new BigDecimal(n.toString());
        if (!whole) throw new Unfit(where + " is " + n + " and must be a whole number");
        if (c == BigInteger.class) return n instanceof BigInteger ? n : BigInteger.valueOf(n.longValue());
        long v = n.longValue();
        boolean fits = !(n instanceof BigInteger);
        Object out = v;
        if (c == int.class || c == Integer.class) {
            fits &= v == (int) v;
            out = (int) v;
        } else if (c == short.class || c == Short.class) {
            fits &= v == (short) v;
            out = (short) v;
        } else if (c == byte.class || c == Byte.class) {
            fits &= v == (byte) v;
            out = (byte) v;
        }
        if (!fits) throw new Unfit(where + " is " + n + ", which is too large for " + c.getSimpleName());
        return out;
    }

    private static String kind(Object v) {
        return v instanceof Map ? "an object" : v instanceof List ? "a list" : v instanceof String ? "text" : v instanceof Number ? "a number" : v instanceof Boolean ? "true or false" : "bytes";
    }

    static Class<?> raw(Type t) {
        if (t instanceof Class<?> c) return c;
        if (t instanceof ParameterizedType p) return (Class<?>) p.getRawType();
        return Object.class;
    }

    private static Type argument(Type t, int i) {
        return t instanceof ParameterizedType p && p.getActualTypeArguments().length > i ? p.getActualTypeArguments()[i] : Object.class;
    }
}
