import java.io.FileInputStream;
import java.nio.ByteBuffer;
import java.nio.file.*;
import java.security.SecureRandom;
import java.util.*;
import java.util.concurrent.ThreadLocalRandom;
import java.util.stream.*;
import javax.crypto.KeyGenerator;
import javax.net.ssl.*;

public class Draw {
    static final SecureRandom secure = new SecureRandom();

    static { try { draw(); } catch (Exception e) { throw new IllegalStateException(e); } } // all of it has been used before

    public static Object main(Map<String, Object> args) throws Exception { return draw(); }

    static String hex(byte[] b, int from, int to) { return HexFormat.of().formatHex(b, from, to); }

    /** What a client of TLS sends first. */
    static byte[] hello() throws Exception {
        SSLContext c = SSLContext.getInstance("TLS");
        c.init(null, null, null);
        SSLEngine e = c.createSSLEngine("example.com", 443);
        e.setUseClientMode(true);
        ByteBuffer out = ByteBuffer.allocate(32768);
        e.wrap(ByteBuffer.allocate(0), out);
        return Arrays.copyOf(out.array(), out.position());
    }

    static Map<String, Object> draw() throws Exception {
        Map<String, Object> m = new LinkedHashMap<>();
        m.put("secure", Long.toHexString(secure.nextLong()));
        m.put("strong", Long.toHexString(SecureRandom.getInstanceStrong().nextLong()));
        m.put("drbg", Long.toHexString(SecureRandom.getInstance("DRBG").nextLong()));
        m.put("sha", Long.toHexString(SecureRandom.getInstance("SHA1PRNG").nextLong()));
        m.put("uuid", UUID.randomUUID().toString());
        m.put("math", Double.toString(Math.random()));
        m.put("threadLocal", Long.toHexString(ThreadLocalRandom.current().nextLong()));
        m.put("new", Long.toHexString(new Random().nextLong()));
        m.put("split", Long.toHexString(new SplittableRandom().nextLong()));
        List<Integer> cards = IntStream.range(0, 52).boxed().collect(Collectors.toList());
        Collections.shuffle(cards);
        m.put("shuffle", cards.toString());
        m.put("key", HexFormat.of().formatHex(KeyGenerator.getInstance("AES").generateKey().getEncoded()));
        try (FileInputStream f = new FileInputStream("/dev/urandom")) { m.put("file", HexFormat.of().formatHex(f.readNBytes(8))); }
        Path p = Files.createTempFile("x", "");
        Files.delete(p);
        m.put("temporary", p.toString());
        byte[] h = hello();
        m.put("clientRandom", hex(h, 11, 43));
        m.put("session", hex(h, 44, 76));
        m.put("rest", hex(h, 76, h.length));
        return m;
    }
}
