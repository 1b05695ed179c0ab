package brasa;

import java.lang.reflect.Array;
import java.lang.reflect.Field;
import java.lang.reflect.Method;
import java.lang.reflect.Modifier;
import java.lang.reflect.RecordComponent;
import java.math.BigDecimal;
import java.math.BigInteger;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Comparator;
import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/**
 * Strict JSON. Objects become LinkedHashMap, lists ArrayList; whole numbers Long or, beyond it, BigInteger; others Double or,
 * beyond it, BigDecimal. Of a key that is given twice the last counts.
 */
public final class Json {
    private static final int DEEPEST = 512; // nested values; more would not fit on a thread's stack

    /** What is not JSON. */
    public static final class Malformed extends Exception {
        private static final long serialVersionUID = 1;

        Malformed(String message) {
            super(message, null, false, false);
        }
    }

    private Json() {}

    public static Object parse(String text) throws Malformed {
        return parse(text.getBytes(StandardCharsets.UTF_8));
    }

    public static Object parse(byte[] text) throws Malformed {
        return new Reader(text, 0, text.length).whole();
    }

    @SuppressWarnings("unchecked")
    static Map<String, Object> object(byte[] text, int from, int n) throws Malformed {
        if (new Reader(text, from, n).whole() instanceof Map<?, ?> m) return (Map<String, Object>) m;
        throw new Malformed("no object");
    }

    /** Writes a value. IllegalArgumentException if JSON cannot hold it. */
    public static String write(Object value) {
        return new String(bytes(value), StandardCharsets.UTF_8);
    }

    static byte[] bytes(Object value) {
        Writer w = new Writer();
        w.value(value, 0);
        return Arrays.copyOf(w.b, w.n);
    }

    private static final class Reader {
        private final byte[] b;
        private final int begin, end;
        private int at;

        Reader(byte[] b, int from, int n) {
            this.b = b;
            begin = from;
            at = from;
            end = from + n;
        }

        private Malformed bad(String what) {
            return new Malformed(what + " at byte " + (at - begin));
        }

        Object whole() throws Malformed {
            Object v = value(0);
            blank();
            if (at < end) throw bad("more than one value");
            return v;
        }

        private void blank() {
            while (at < end && (b[at] == ' ' || b[at] == '\n' || b[at] == '\r' || b[at] == '\t')) at++;
        }

        private Object value(int depth) throws Malformed {
            if (depth > DEEPEST) throw new Malformed("it is nested too deeply");
            blank();
            if (at >= end) throw bad("it ends too early");
            switch (b[at]) {
                case '{': return object(depth);
                case '[': return list(depth);
                case '"': return string();
                case 't': return word("true", Boolean.TRUE);
                case 'f': return word("false", Boolean.FALSE);
                case 'n': return word("null", null);
                default: return number();
            }
        }

        private Object word(String w, Object v) throws Malformed {
            for (int i = 0; i < w.length(); i++, at++) if (at >= end || b[at] != w.charAt(i)) throw bad("no value");
            return v;
        }

        private Map<String, Object> object(int depth) throws Malformed {
            Map<String, Object> m = new LinkedHashMap<>();
            at++;
            blank();
            if (at < end && b[at] == '}') {
                at++;
                return m;
            }
            while (true) {
                blank();
                if (at >= end || b[at] != '"') throw bad("no key");
                String key = string();
                blank();
                if (at >= end || b[at] != ':') throw bad("no ':'");
                at++;
                m.put(key, value(depth + 1));
                blank();
                if (at >= end) throw bad("it ends too early");
                byte c = b[at++];
                if (c == '}') return m;
                if (c != ',') throw bad("neither ',' nor '}'");
            }
        }

        private List<Object> list(int depth) throws Malformed {
            List<Object> l = new ArrayList<>();
            at++;
            blank();
            if (at < end && b[at] == ']') {
                at++;
                return l;
            }
            while (true) {
                l.add(value(depth + 1));
                blank();
                if (at >= end) throw bad("it ends too early");
                byte c = b[at++];
                if (c == ']') return l;
                if (c != ',') throw bad("neither ',' nor ']'");
            }
        }

        private String string() throws Malformed {
            int from = ++at;
            while (at < end && b[at] != '"' && b[at] != '\\' && b[at] >= 0x20) at++; // ASCII alone: others are negative
            if (at < end && b[at] == '"') return new String(b, from, at++ - from, StandardCharsets.ISO_8859_1);
            StringBuilder s = new StringBuilder(Math.max(32, 2 * (at - from)));
            for (int i = from; i < at; i++) s.append((char) b[i]);
            while (at < end) {
                int c = b[at];
                if (c == '"') {
                    at++;
                    return s.toString();
                }
                if (c == '\\') escape(s);
                else if (c < 0) utf8(s);
                else if (c < 0x20) throw bad("a control character in a string");
                else {
                    s.append((char) c);
                    at++;
                }
            }
            throw bad("a string without an end");
        }

        private void escape(StringBuilder s) throws Malformed {
            if (++at >= end) throw bad("a string without an end");
            switch (b[at++]) {
                case '"': s.append('"'); return;
                case '\\': s.append('\\'); return;
                case '/': s.append('/'); return;
                case 'b': s.append('\b'); return;
                case 'f': s.append('\f'); return;
                case 'n': s.append('\n'); return;
                case 'r': s.append('\r'); return;
                case 't': s.append('\t'); return;
                case 'u':
                    int v = 0;
                    for (int i = 0; i < 4; i++, at++) {
                        int d = at < end && b[at] > 0 ? Character.digit(b[at], 16) : -1;
                        if (d < 0) throw bad("an escape that is none");
                        v = v << 4 | d;
                    }
                    s.append((char) v);
                    return;
                default:
                    at--;
                    throw bad("an escape that is none");
            }
        }

        private void utf8(StringBuilder s) throws Malformed {
            int c = b[at] & 255;
            int n = c >= 0xF0 ? 3 : c >= 0xE0 ? 2 : 1;
            int v = c & (0x3F >> n);
            if (c < 0xC2 || c > 0xF4 || at + n >= end) throw bad("bytes that are not UTF-8");
            for (int i = 1; i <= n; i++) {
                int d = b[at + i];
                if ((d & 0xC0) != 0x80) throw bad("bytes that are not UTF-8");
                v = v << 6 | d & 0x3F;
            }
            if (v < (n == 3 ? 0x10000 : n == 2 ? 0x800 : 0x80) || v > 0x10FFFF || v >= 0xD800 && v < 0xE000) throw bad("bytes that are not UTF-8");
            s.appendCodePoint(v);
            at += n + 1;
        }

        private Object number() throws Malformed {
            int from = at;
            boolean whole = true;
            if (at < end && b[at] == '-') at++;
            if (at < end && b[at] == '0') at++;
            else digits();
            if (at < end && b[at] == '.') {
                whole = false;
                at++;
                digits();
            }
            if (at < end && (b[at] == 'e' || b[at] == 'E')) {
                whole = false;
                at++;
                if (at < end && (b[at] == '+' || b[at] == '-')) at++;
                digits();
            }
            if (whole && at - from <= 18) {
                long v = 0;
                for (int i = b[from] == '-' ? from + 1 : from; i < at; i++) v = v * 10 + b[i] - '0';
                if (b[from] == '-' && v == 0) return -0.0;
                return b[from] == '-' ? -v : v;
            }
            String text = new String(b, from, at - from, StandardCharsets.ISO_8859_1);
            if (whole) {
                BigInteger v = new BigInteger(text);
                return v.bitLength() < 64 ? (Object) v.longValue() : v;
            }
            double v = Double.parseDouble(text);
            if (!Double.isInfinite(v)) return v;
            try {
                return new BigDecimal(text);
            } catch (NumberFormatException e) {
                throw bad("a number that is too large");
            }
        }

        private void digits() throws Malformed {
            int from = at;
            while (at < end && b[at] >= '0' && b[at] <= '9') at++;
            if (at == from) throw bad("no value");
        }
    }

    private static final class Writer {
        byte[] b = new byte[256];
        int n;

        private void room(int more) {
            if (b.length - n < more) b = Arrays.copyOf(b, Math.max(2 * b.length, n + more));
        }

        private void ascii(String s) {
            room(s.length());
            for (int i = 0; i < s.length(); i++) b[n++] = (byte) s.charAt(i);
        }

        private void put(char c) {
            room(1);
            b[n++] = (byte) c;
        }

        void value(Object v, int depth) {
            if (depth > DEEPEST) throw new IllegalArgumentException("it is nested too deeply");
            if (v == null) ascii("null");
            else if (v instanceof CharSequence || v instanceof Character || v instanceof Enum<?>) string(v.toString());
            else if (v instanceof Boolean || v instanceof Long || v instanceof Integer || v instanceof BigInteger || v instanceof BigDecimal) ascii(v.toString());
            else if (v instanceof Number x) {
                if (!(v instanceof Short || v instanceof Byte) && (Double.isNaN(x.doubleValue()) || Double.isInfinite(x.doubleValue()))) throw new IllegalArgumentException(v + " is not JSON");
                ascii(v.toString());
            } else if (v instanceof Map<?, ?> m) map(m, depth);
            else if (v instanceof Iterable<?> l && !(v instanceof java.nio.file.Path)) list(l.iterator(), depth);
            else if (v instanceof Optional<?> o) value(o.orElse(null), depth);
            else if (v.getClass().isArray()) array(v, depth);
            else if (v.getClass().getName().startsWith("java.")) {
                // Dates, UUIDs, URIs and paths say themselves what they are; the rest of the library does not.
                if (v instanceof java.time.temporal.Temporal || v instanceof java.time.temporal.TemporalAmount || v instanceof java.util.UUID || v instanceof java.net.URI || v instanceof java.nio.file.Path) string(v.toString());
                else throw cannot(v);
            } else bean(v, depth);
        }

        private static IllegalArgumentException cannot(Object v) {
            return new IllegalArgumentException("a " + v.getClass().getName());
        }

        private void map(Map<?, ?> m, int depth) {
            put('{');
            boolean more = false;
            for (Map.Entry<?, ?> e : m.entrySet()) {
                if (more) put(',');
                more = true;
                Object k = e.getKey();
                if (!(k instanceof CharSequence || k instanceof Number || k instanceof Enum<?> || k instanceof Boolean || k instanceof Character || k instanceof java.util.UUID)) {
                    throw new IllegalArgumentException("a key that is " + (k == null ? "null" : "a " + k.getClass().getName()));
                }
                string(k.toString());
                put(':');
                value(e.getValue(), depth + 1);
            }
            put('}');
        }

        private void list(Iterator<?> l, int depth) {
            put('[');
            for (boolean more = false; l.hasNext(); more = true) {
                if (more) put(',');
                value(l.next(), depth + 1);
            }
            put(']');
        }

        private void array(Object v, int depth) {
            put('[');
            for (int i = 0; i < Array.getLength(v); i++) {
                if (i > 0) put(',');
                value(Array.get(v, i), depth + 1);
            }
            put(']');
        }

        /** A record by its components; another object by its public fields and getters. */
        private void bean(Object v, int depth) {
            Class<?> c = v.getClass();
            Map<String, Object> m = new LinkedHashMap<>();
            try {
                if (c.isRecord()) {
                    for (RecordComponent r : c.getRecordComponents()) {
                        r.getAccessor().setAccessible(true);
                        m.put(r.getName(), r.getAccessor().invoke(v));
                    }
                } else {
                    for (Field f : c.getFields()) {
                        if (Modifier.isStatic(f.getModifiers())) continue;
                        f.setAccessible(true);
                        m.put(f.getName(), f.get(v));
                    }
                    Method[] methods = c.getMethods();
                    Arrays.sort(methods, BY_NAME); // their own order says nothing
                    for (Method f : methods) {
                        String name = property(f);
                        if (name == null || m.containsKey(name)) continue;
                        f.setAccessible(true);
                        m.put(name, f.invoke(v));
                    }
                    if (m.isEmpty()) throw cannot(v);
                }
            } catch (ReflectiveOperationException | RuntimeException e) {
                if (e instanceof IllegalArgumentException ours) throw ours;
                Throwable cause = e.getCause() == null ? e : e.getCause();
                throw new IllegalArgumentException("a " + c.getName() + ", which cannot be read: " + cause);
            }
            map(m, depth);
        }

        private static final Comparator<Method> BY_NAME = new Comparator<>() {
            @Override
            public int compare(Method x, Method y) {
                return x.getName().compareTo(y.getName());
            }
        };

        private static String property(Method f) {
            if (f.getParameterCount() > 0 || Modifier.isStatic(f.getModifiers()) || f.getDeclaringClass() == Object.class || f.getReturnType() == void.class) return null;
            String name = f.getName();
            int skip = name.startsWith("get") ? 3 : name.startsWith("is") && f.getReturnType() == boolean.class ? 2 : name.length();
            if (name.length() <= skip || !Character.isUpperCase(name.charAt(skip))) return null;
            return Character.toLowerCase(name.charAt(skip)) + name.substring(skip + 1);
        }

        void string(String s) {
            int length = s.length();
            room(length + 2);
            b[n++] = '"';
            for (int i = 0; i < length; i++) {
                char c = s.charAt(i);
                if (b.length - n < 8 + length - i) room(8 + length - i);
                if (c >= 0x20 && c < 0x80 && c != '"' && c != '\\') b[n++] = (byte) c;
                else if (c < 0x80) control(c);
                else if (c < 0x800) {
                    b[n++] = (byte) (0xC0 | c >> 6);
                    b[n++] = (byte) (0x80 | c & 0x3F);
                } else if (Character.isHighSurrogate(c) && i + 1 < length && Character.isLowSurrogate(s.charAt(i + 1))) {
                    int v = Character.toCodePoint(c, s.charAt(++i));
                    b[n++] = (byte) (0xF0 | v >> 18);
                    b[n++] = (byte) (0x80 | v >> 12 & 0x3F);
                    b[n++] = (byte) (0x80 | v >> 6 & 0x3F);
                    b[n++] = (byte) (0x80 | v & 0x3F);
                } else if (Character.isSurrogate(c)) { // alone: only its escape is JSON
                    control(c);
                } else {
                    b[n++] = (byte) (0xE0 | c >> 12);
                    b[n++] = (byte) (0x80 | c >> 6 & 0x3F);
                    b[n++] = (byte) (0x80 | c & 0x3F);
                }
            }
            put('"');
        }

        private void control(char c) {
            b[n++] = '\\';
            switch (c) {
                case '"', '\\' -> b[n++] = (byte) c;
                case '\n' -> b[n++] = 'n';
                case '\r' -> b[n++] = 'r';
                case '\t' -> b[n++] = 't';
                default -> {
                    b[n++] = 'u';
                    for (int shift = 12; shift >= 0; shift -= 4) b[n++] = (byte) Character.forDigit(c >> shift & 15, 16);
                }
            }
        }
    }
}
