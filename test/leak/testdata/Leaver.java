import java.io.*;
import java.net.*;
import java.nio.file.*;
import java.util.*;
import java.util.concurrent.*;

/** A function that says what it finds of calls before it, and leaves what it is told to. */
public class Leaver {
    static int count;
    static final List<Object> kept = new ArrayList<>();
    static final ThreadLocal<String> local = new ThreadLocal<>();
    static final InheritableThreadLocal<String> inherited = new InheritableThreadLocal<>();
    static final PrintStream out = System.out;

    interface Step { void run(String note) throws Exception; }

    static final Map<String, Callable<Object>> LOOK = new TreeMap<>();
    static final Map<String, Step> LEAVE = new TreeMap<>();

    static List<String> list(String dir) {
        String[] names = new File(dir).list();
        List<String> l = names == null ? List.of() : new ArrayList<>(List.of(names));
        if (names != null) Collections.sort(l);
        return l;
    }

    static int lines(String file) throws IOException { return Files.readAllLines(Path.of(file)).size(); }

    static List<String> open() throws IOException {
        List<String> l = new ArrayList<>();
        for (String n : list("/proc/self/fd")) {
            try { l.add(n + " " + Files.readSymbolicLink(Path.of("/proc/self/fd/" + n)).toString().replaceAll("\\d+", "")); } catch (IOException e) { }
        }
        l.removeIf(s -> s.contains("/proc/") || s.matches(".*(modules|\\.jar|\\.so|urandom|random)")); // opened when they are first needed
        Collections.sort(l);
        return l;
    }

    static List<String> status(String... names) throws IOException {
        List<String> l = new ArrayList<>();
        for (String s : Files.readAllLines(Path.of("/proc/self/status"))) if (Set.of(names).contains(s.split(":")[0])) l.add(s);
        return l;
    }

    static void thread(Runnable r) {
        Thread t = new Thread(r, "left");
        t.setDaemon(true);
        t.start();
    }

    static void sleep(long ms) { try { Thread.sleep(ms); } catch (InterruptedException e) { } }

    static {
        LOOK.put("a static", () -> List.of(count, kept.size()));
        LOOK.put("a thread local", () -> List.of(String.valueOf(local.get()), String.valueOf(inherited.get())));
        LOOK.put("a property", () -> System.getProperties().stringPropertyNames().stream().filter(p -> p.startsWith("left")).toList());
        LOOK.put("a property of security", () -> String.valueOf(java.security.Security.getProperty("left")));
        LOOK.put("providers", () -> java.security.Security.getProviders().length);
        LOOK.put("the locale", () -> List.of(Locale.getDefault().toString(), TimeZone.getDefault().getID()));
        LOOK.put("standard output", () -> System.out == out);
        LOOK.put("standard input", () -> System.in.getClass().getName());
        LOOK.put("a logger", () -> List.of(java.util.logging.Logger.getLogger("left").getHandlers().length, String.valueOf(java.util.logging.Logger.getLogger("").getLevel())));
        LOOK.put("a handler of URLs", () -> { try { new URL("left://x"); return true; } catch (MalformedURLException e) { return false; } });
        LOOK.put("an authenticator", () -> List.of(Authenticator.getDefault() == null, CookieHandler.getDefault() == null, ProxySelector.getDefault().getClass().getName()));
        LOOK.put("the handler of exceptions", () -> Thread.getDefaultUncaughtExceptionHandler() == null);
        LOOK.put("threads", () -> { int n = 0; for (Thread t : Thread.getAllStackTraces().keySet()) if (t.getName().startsWith("left") || t.getName().startsWith("pool")) n++; return n; });
        LOOK.put("the thread", () -> List.of(Thread.currentThread().getPriority(), Thread.currentThread().isInterrupted()));
        LOOK.put("a class loader", () -> Thread.currentThread().getContextClassLoader() == null);
        LOOK.put("a preference of memory", () -> System.getenv().containsKey("LEFT"));
        LOOK.put("files in /tmp", () -> list("/tmp"));
        LOOK.put("files in /dev/shm", () -> list("/dev/shm"));
        LOOK.put("open files", Leaver::open);
        LOOK.put("connections", () -> List.of(lines("/proc/self/net/tcp"), lines("/proc/self/net/tcp6"), lines("/proc/self/net/unix")));
        LOOK.put("children", () -> list("/proc").stream().filter(s -> s.matches("\\d+")).count());
        LOOK.put("what the kernel says", () -> status("SigIgn", "SigBlk", "Umask", "VmLck", "Cpus_allowed", "Seccomp_filters"));
        LOOK.put("the host's name", () -> Files.readString(Path.of("/proc/sys/kernel/hostname")));
        LOOK.put("the code", () -> list("/code"));

        LEAVE.put("a static", n -> { count++; kept.add(n); });
        LEAVE.put("a thread local", n -> { local.set(n); inherited.set(n); });
        LEAVE.put("a property", n -> System.setProperty("left", n));
        LEAVE.put("a property of security", n -> java.security.Security.setProperty("left", n));
        LEAVE.put("a provider", n -> java.security.Security.addProvider(new java.security.Provider("Left", "1", "") { }));
        LEAVE.put("the locale", n -> { Locale.setDefault(Locale.JAPAN); TimeZone.setDefault(TimeZone.getTimeZone("Asia/Tokyo")); });
        LEAVE.put("standard output", n -> System.setOut(new PrintStream(OutputStream.nullOutputStream())));
        LEAVE.put("standard input", n -> System.setIn(InputStream.nullInputStream()));
        LEAVE.put("a logger", n -> { java.util.logging.Logger l = java.util.logging.Logger.getLogger("left"); kept.add(l); l.addHandler(new java.util.logging.ConsoleHandler()); java.util.logging.Logger.getLogger("").setLevel(java.util.logging.Level.ALL); });
        LEAVE.put("a handler of URLs", n -> URL.setURLStreamHandlerFactory(p -> p.equals("left") ? new URLStreamHandler() { protected URLConnection openConnection(URL u) { return null; } } : null));
        LEAVE.put("an authenticator", n -> { Authenticator.setDefault(new Authenticator() { }); CookieHandler.setDefault(new CookieManager()); });
        LEAVE.put("the handler of exceptions", n -> Thread.setDefaultUncaughtExceptionHandler((t, e) -> { }));
        LEAVE.put("a thread", n -> thread(() -> sleep(600000)));
        LEAVE.put("a thread that writes", n -> thread(() -> { for (;;) { System.out.println("LEFT-PRINTED"); sleep(1); } }));
        LEAVE.put("a busy thread", n -> thread(() -> { while (true) count++; }));
        LEAVE.put("a timer", n -> new Timer("left", true).schedule(new TimerTask() { public void run() { count++; } }, 1, 1));
        LEAVE.put("an executor", n -> kept.add(Executors.newScheduledThreadPool(2, r -> { Thread t = new Thread(r, "left"); t.setDaemon(true); return t; }).scheduleAtFixedRate(() -> count++, 1, 1, TimeUnit.MILLISECONDS)));
        LEAVE.put("work of the common pool", n -> ForkJoinPool.commonPool().submit(() -> { sleep(5); count++; }));
        LEAVE.put("a shutdown hook", n -> Runtime.getRuntime().addShutdownHook(new Thread(() -> System.out.println("LEFT-PRINTED"))));
        LEAVE.put("the thread", n -> { Thread.currentThread().setPriority(1); });
        LEAVE.put("a class loader", n -> Thread.currentThread().setContextClassLoader(null));
        LEAVE.put("memory that is freed", n -> { for (int i = 0; i < 2000; i++) { byte[] b = n.repeat(20).getBytes(); kept.add(b); } kept.clear(); });
        LEAVE.put("memory outside of the heap", n -> { java.nio.ByteBuffer b = java.nio.ByteBuffer.allocateDirect(1 << 16); while (b.remaining() > n.length()) b.put(n.getBytes()); kept.add(b); });
        LEAVE.put("a string", n -> kept.add((n + n).substring(2).intern()));
        LEAVE.put("garbage", n -> System.gc());
        LEAVE.put("a file in /tmp", n -> Files.writeString(Path.of("/tmp/left file"), n));
        LEAVE.put("a directory in /tmp", n -> Files.createDirectory(Path.of("/tmp/left directory")));
        LEAVE.put("a file in /dev/shm", n -> Files.writeString(Path.of("/dev/shm/left"), n));
        LEAVE.put("a temporary file that is gone", n -> Files.delete(Files.createTempFile("left", "")));
        LEAVE.put("a file that is deleted on exit", n -> { File f = new File("/tmp/never"); f.deleteOnExit(); });
        LEAVE.put("an open file", n -> kept.add(new FileInputStream("/etc/passwd")));
        LEAVE.put("a listener", n -> kept.add(new ServerSocket(0)));
        LEAVE.put("a mapped file", n -> { try (RandomAccessFile f = new RandomAccessFile("/tmp/left map", "rw")) { kept.add(f.getChannel().map(java.nio.channels.FileChannel.MapMode.READ_WRITE, 0, 4096)); } });
        LEAVE.put("a child", n -> new ProcessBuilder("/bin/sleep", "600").redirectInput(ProcessBuilder.Redirect.from(new File("/dev/null"))).redirectOutput(ProcessBuilder.Redirect.DISCARD).redirectError(ProcessBuilder.Redirect.DISCARD).start());
        LEAVE.put("a child that has ended", n -> new ProcessBuilder("/bin/true").start().waitFor());
    }

    /** Marks in all memory of the process that it may write. */
    static Set<String> memory() throws IOException {
        Set<String> found = new TreeSet<>();
        byte[] head = "LEAK~MARK~".getBytes();
        for (int i = 0; i < head.length; i++) head[i] ^= 0x55;
        byte[] b = new byte[1 << 20];
        try (RandomAccessFile f = new RandomAccessFile("/proc/self/mem", "r")) {
            for (String line : Files.readAllLines(Path.of("/proc/self/maps"))) {
                if (!line.contains(" rw") || line.contains("[v")) continue;
                String[] where = line.split(" ")[0].split("-");
                long at = Long.parseUnsignedLong(where[0], 16), end = Long.parseUnsignedLong(where[1], 16);
                while (at < end) {
                    int n;
                    try {
                        f.seek(at);
                        n = f.read(b, 0, (int) Math.min(b.length, end - at));
                    } catch (IOException e) { break; }
                    if (n <= 0) break;
                    next:
                    for (int i = 0; i + 26 <= n; i++) {
                        if (b[i] != 'L') continue;
                        for (int k = 1; k < head.length; k++) if (b[i + k] != (head[k] ^ 0x55)) continue next;
                        String mark = new String(b, i + 10, 16, java.nio.charset.StandardCharsets.ISO_8859_1);
                        if (mark.matches("[0-9a-f]{16}")) found.add(mark);
                    }
                    at += n;
                }
            }
        }
        Arrays.fill(b, (byte) 0);
        return found;
    }

    public static Object main(Map<String, Object> args) throws Exception {
        if (args.get("names") != null) return Map.of("look", List.copyOf(LOOK.keySet()), "leave", List.copyOf(LEAVE.keySet()));
        Map<String, Object> found = new TreeMap<>();
        for (Map.Entry<String, Callable<Object>> e : LOOK.entrySet()) found.put(e.getKey(), e.getValue().call());
        List<String> marks = Boolean.TRUE.equals(args.get("memory")) ? List.copyOf(memory()) : List.of();
        String failed = "", leave = (String) args.get("leave");
        if (leave != null && !leave.isEmpty()) {
            try { LEAVE.get(leave).run((String) args.get("note")); } catch (Exception e) { failed = e.toString(); }
        }
        return Map.of("found", found, "marks", marks, "failed", failed);
    }
}
