package brasa;

import java.io.File;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.net.MalformedURLException;
import java.net.URL;
import java.security.CodeSource;
import java.security.ProtectionDomain;
import java.security.cert.Certificate;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.Enumeration;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.jar.JarEntry;
import java.util.jar.JarFile;
import java.util.zip.ZipFile;

/**
 * Loads the function's classes: from the directory of its code, then from the jars in lib, then from those that were installed
 * for it. A class in a directory costs one
 * file that is opened and read, which is a tenth of what URLClassLoader does for it.
 */
final class Loader extends ClassLoader {
    static {
        registerAsParallelCapable();
    }

    private final List<Place> places = new ArrayList<>(2);
    private final ThreadLocal<int[]> depth = new ThreadLocal<>();
    private boolean jars; // written before any class is loaded
    private volatile long spent; // nanoseconds in loading from jars

    /** Somewhere that classes come from. */
    private abstract static class Place {
        final File file;
        private ProtectionDomain domain;

        Place(File file) {
            this.file = file;
        }

        abstract byte[] read(String name) throws IOException;

        abstract URL find(String name) throws IOException;

        synchronized ProtectionDomain domain(ClassLoader loader) throws IOException {
            if (domain == null) domain = new ProtectionDomain(new CodeSource(url(file), (Certificate[]) null), null, loader, null);
            return domain;
        }
    }

    private static URL url(File f) throws MalformedURLException {
        return f.toURI().toURL();
    }

    private static final class Dir extends Place {
        Dir(File file) {
            super(file);
        }

        @Override
        byte[] read(String name) throws IOException {
            File f = new File(file, name);
            if (!f.isFile()) return null;
            try (FileInputStream in = new FileInputStream(f)) {
                return in.readAllBytes();
            }
        }

        @Override
        URL find(String name) throws IOException {
            File f = new File(file, name);
            return f.exists() ? url(f) : null;
        }
    }

    private static final class Jar extends Place {
        private final String prefix;
        private JarFile jar;

        Jar(File file, String prefix) {
            super(file);
            this.prefix = prefix;
        }

        private synchronized JarFile open() throws IOException {
            // Signatures are not looked at: the code is the function's own, wherever it comes from.
            if (jar == null) jar = new JarFile(file, false, ZipFile.OPEN_READ, Runtime.version());
            return jar;
        }

        @Override
        byte[] read(String name) throws IOException {
            JarEntry e = open().getJarEntry(prefix + name);
            if (e == null) return null;
            try (InputStream in = jar.getInputStream(e)) {
                return in.readAllBytes();
            }
        }

        @Override
        URL find(String name) throws IOException {
            JarEntry e = open().getJarEntry(prefix + name);
            return e == null ? null : new URL("jar:" + url(file) + "!/" + e.getRealName());
        }
    }

    Loader(ClassLoader parent) {
        super(parent);
    }

    /** The packages of the parents' classes: those of the JDK, and the bootstrap's. */
    private static final class Parents {
        static final Set<String> PACKAGES = new HashSet<>(4096);

        static {
            for (Module m : ModuleLayer.boot().modules()) PACKAGES.addAll(m.getPackages());
            PACKAGES.add(Loader.class.getPackageName());
        }
    }

    /**
     * Asks the parents for what can be theirs alone, where there are jars and so many classes: for each that is not
     * theirs they look through their own places, and make an error with a stack.
     */
    @Override
    protected Class<?> loadClass(String name, boolean resolve) throws ClassNotFoundException {
        int dot = jars ? name.lastIndexOf('.') : -1;
        if (dot < 0 || Parents.PACKAGES.contains(name.substring(0, dot))) return super.loadClass(name, resolve);
        synchronized (getClassLoadingLock(name)) {
            Class<?> c = findLoadedClass(name);
            return c != null ? c : findClass(name);
        }
    }

    void addDir(File dir) {
        places.add(new Dir(dir));
    }

    void addJar(File jar, String prefix) {
        places.add(new Jar(jar, prefix));
    }

    /** Adds the jars in a directory, by their names; it need not exist. */
    void addJars(File dir) {
        String[] names = dir.list();
        if (names == null) return;
        Arrays.sort(names);
        for (String name : names) {
            if (!name.endsWith(".jar")) continue;
            addJar(new File(dir, name), "");
            jars = true;
        }
    }

    /** Whether the function's own code has a class. */
    boolean has(String name) {
        try {
            String file = name.replace('.', '/') + ".class";
            for (Place p : places) if (p.find(file) != null) return true;
        } catch (IOException e) {
            return false;
        }
        return false;
    }

    /** Microseconds that were spent in loading from jars. */
    long spentMicros() {
        return spent / 1000;
    }

    @Override
    protected Class<?> findClass(String name) throws ClassNotFoundException {
        String file = name.replace('.', '/').concat(".class");
        try {
            for (Place p : places) {
                long begin = p instanceof Jar && depth.get() == null ? System.nanoTime() : 0;
                if (begin != 0) depth.set(new int[1]); // what it loads in turn is counted with it
                try {
                    byte[] b = p.read(file);
                    if (b != null) return defineClass(name, b, 0, b.length, p.domain(this));
                } finally {
                    if (begin != 0) {
                        depth.remove();
                        spent += System.nanoTime() - begin;
                    }
                }
            }
        } catch (IOException e) {
            throw new ClassNotFoundException(name, e);
        }
        throw new ClassNotFoundException(name);
    }

    @Override
    protected URL findResource(String name) {
        try {
            for (Place p : places) {
                URL u = p.find(name);
                if (u != null) return u;
            }
        } catch (IOException e) {
            return null;
        }
        return null;
    }

    @Override
    protected Enumeration<URL> findResources(String name) throws IOException {
        List<URL> found = new ArrayList<>();
        for (Place p : places) {
            URL u = p.find(name);
            if (u != null) found.add(u);
        }
        return Collections.enumeration(found);
    }

    /** The main class of a jar as its manifest has it; null if it names none. */
    static String mainOf(File jar) throws IOException {
        try (JarFile j = new JarFile(jar, false)) {
            return j.getManifest() == null ? null : j.getManifest().getMainAttributes().getValue("Main-Class");
        }
    }
}
