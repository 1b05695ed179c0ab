import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.Enumeration;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.stream.Stream;
import java.util.zip.CRC32;
import java.util.zip.ZipEntry;
import java.util.zip.ZipFile;
import java.util.zip.ZipOutputStream;

/**
 * Writes the jars of a directory anew with their classes uncompressed, so that no start of a function
 * has to unpack them and the page cache has them once for all. Names, order, times and bytes stay. A jar
 * that can't be read stays as it is: whoever loads from it will say so.
 */
class Store {
    public static void main(String[] args) throws IOException {
        List<Path> jars;
        try (Stream<Path> all = Files.list(Path.of(args[0]))) {
            jars = all.filter(p -> p.toString().endsWith(".jar") && Files.isRegularFile(p)).sorted().toList();
        }
        for (Path jar : jars) {
            Path made = jar.resolveSibling("." + jar.getFileName() + ".new");
            try {
                write(jar, made);
                Files.move(made, jar, StandardCopyOption.REPLACE_EXISTING);
            } catch (IOException | RuntimeException e) {
                Files.deleteIfExists(made);
                System.out.println(jar.getFileName() + " stays compressed: " + e);
            }
        }
    }

    private static void write(Path from, Path to) throws IOException {
        Set<String> names = new HashSet<>();
        try (ZipFile in = new ZipFile(from.toFile()); OutputStream file = Files.newOutputStream(to); ZipOutputStream out = new ZipOutputStream(file)) {
            for (Enumeration<? extends ZipEntry> all = in.entries(); all.hasMoreElements();) {
                ZipEntry e = all.nextElement();
                if (!names.add(e.getName())) continue; // who looks it up finds one of them
                ZipEntry copy = new ZipEntry(e.getName());
                copy.setTimeLocal(e.getTimeLocal());
                byte[] b;
                try (InputStream data = in.getInputStream(e)) {
                    b = data.readAllBytes();
                }
                if (e.isDirectory() || e.getName().endsWith(".class")) {
                    CRC32 sum = new CRC32();
                    sum.update(b);
                    copy.setMethod(ZipEntry.STORED);
                    copy.setSize(b.length);
                    copy.setCrc(sum.getValue());
                }
                out.putNextEntry(copy);
                out.write(b);
                out.closeEntry();
            }
        }
    }
}
