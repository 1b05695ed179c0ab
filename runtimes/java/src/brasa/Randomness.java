package brasa;

import java.io.FileInputStream;
import java.io.IOException;
import java.lang.reflect.Field;
import java.security.Provider;
import java.security.SecureRandom;
import java.security.SecureRandomSpi;
import java.security.Security;
import java.util.Random;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.atomic.AtomicLong;

/**
 * Keeps what is random from repeating when the process is put back to an earlier state.
 *
 * <p>SecureRandom, and with it UUID.randomUUID and TLS, reads each number from the kernel and keeps none: Java's own reads
 * ahead into memory. Generators that are no secret are given new seeds.
 */
final class Randomness {
    private static FileInputStream kernel;
    private static Field threadSeed, threadSecondarySeed, shuffle, mathHolder;
    private static AtomicLong[] sequences = {};

    private Randomness() {}

    /** Makes SecureRandom read from the kernel, and finds what is to be seeded. */
    static void install() {
        try {
            kernel = new FileInputStream("/dev/urandom");
            Security.insertProviderAt(new Source(), 1);
            Security.setProperty("securerandom.strongAlgorithms", "NativePRNG:Brasa");
            threadSeed = open(Thread.class, "threadLocalRandomSeed");
            threadSecondarySeed = open(Thread.class, "threadLocalRandomSecondarySeed");
            shuffle = open(java.util.Collections.class, "r");
            mathHolder = open(Class.forName("java.lang.Math$RandomNumberGeneratorHolder"), "randomNumberGenerator");
            sequences = new AtomicLong[] {
                (AtomicLong) open(ThreadLocalRandom.class, "seeder").get(null),
                (AtomicLong) open(Random.class, "seedUniquifier").get(null),
                (AtomicLong) open(java.util.SplittableRandom.class, "defaultGen").get(null),
            };
        } catch (IOException | ReflectiveOperationException | RuntimeException e) {
            System.err.println("brasa: this Java's random generators cannot be seeded anew: " + e);
        }
    }

    private static Field open(Class<?> c, String name) throws ReflectiveOperationException {
        Field f = c.getDeclaredField(name);
        f.setAccessible(true); // Add-Opens in the manifest
        return f;
    }

    static void bytes(byte[] b) {
        try {
            for (int at = 0; at < b.length;) {
                int n = kernel.read(b, at, b.length - at);
                if (n <= 0) throw new IOException("it ended");
                at += n;
            }
        } catch (IOException e) {
            throw new IllegalStateException("read /dev/urandom", e);
        }
    }

    /** Gives every generator that code did not make itself a new start, from the kernel and 64 hex digits of the host. */
    static void reseed(String seed) {
        byte[] b = new byte[8 * 4];
        bytes(b);
        long s = 0;
        for (int i = 0; i < seed.length(); i++) s = s * 0x9E3779B97F4A7C15L + Character.digit(seed.charAt(i), 16) + 1;
        for (byte x : b) s = (s ^ x) * 0xBF58476D1CE4E5B9L + 0x94D049BB133111EBL;
        try {
            for (AtomicLong a : sequences) a.set(s = next(s));
            Thread[] threads = new Thread[Thread.activeCount() + 16];
            int n = Thread.currentThread().getThreadGroup().enumerate(threads);
            for (int i = 0; i < n; i++) {
                threadSeed.setLong(threads[i], s = next(s));
                threadSecondarySeed.setInt(threads[i], (int) (s = next(s)));
            }
            Thread own = Thread.currentThread(); // a virtual one is in no group
            threadSeed.setLong(own, s = next(s));
            if (shuffle.get(null) instanceof Random r) r.setSeed(s = next(s));
            ((Random) mathHolder.get(null)).setSeed(next(s));
        } catch (ReflectiveOperationException | RuntimeException e) {
            throw new IllegalStateException("seed generators anew", e);
        }
    }

    /** SplitMix64's step. */
    private static long next(long s) {
        s += 0x9E3779B97F4A7C15L;
        s = (s ^ s >>> 30) * 0xBF58476D1CE4E5B9L;
        s = (s ^ s >>> 27) * 0x94D049BB133111EBL;
        return s ^ s >>> 31;
    }

    /** Every kind of SecureRandom that Java has, from the kernel. */
    static final class Source extends Provider {
        private static final long serialVersionUID = 1;

        Source() {
            super("Brasa", "1", "random numbers from the kernel, none kept in memory");
            for (String name : new String[] {"NativePRNG", "NativePRNGNonBlocking", "NativePRNGBlocking", "DRBG", "SHA1PRNG"}) {
                putService(new Kind(this, name));
            }
        }
    }

    /** A service that is made without reflection. */
    private static final class Kind extends Provider.Service {
        Kind(Provider p, String name) {
            super(p, "SecureRandom", name, Spi.class.getName(), null, java.util.Map.of("ThreadSafe", "true"));
        }

        @Override
        public Object newInstance(Object parameter) {
            return new Spi();
        }
    }

    /** Reads from the kernel. */
    static final class Spi extends SecureRandomSpi {
        private static final long serialVersionUID = 1;

        @Override
        protected void engineSetSeed(byte[] seed) { } // the kernel's numbers are as good without

        @Override
        protected void engineNextBytes(byte[] b) {
            Randomness.bytes(b);
        }

        @Override
        protected byte[] engineGenerateSeed(int n) {
            byte[] b = new byte[n];
            Randomness.bytes(b);
            return b;
        }
    }

    /** Draws one number of each kind, so that a first use finds all there. */
    static void warm() {
        new SecureRandom().nextLong();
        java.util.UUID.randomUUID();
        Math.random();
        ThreadLocalRandom.current().nextInt();
    }
}
