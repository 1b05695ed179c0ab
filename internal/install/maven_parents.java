import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Base64;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import javax.xml.parsers.DocumentBuilderFactory;
import org.w3c.dom.Element;
import org.w3c.dom.Node;

/**
 * What the installer of jars runs before Maven where a pom.xml has a parent. Maven loads the extensions
 * that parents name, which are programs, into the process that has the registry's password. This gets
 * the parents, refuses those that have some, and leaves what it has read where Maven finds it.
 *
 * Arguments: the pom.xml, Maven's local repository, its settings, the address of the public repository.
 * A line that begins with "brasa: " says what the caller must mend.
 */
class Parents {
    static final String OURS = "org.apache.maven.plugins";
    static final Set<String> listed = new HashSet<>(), managed = new HashSet<>();
    static String user;

    public static void main(String[] args) throws Exception {
        List<String> places = new ArrayList<>();
        Element pom = read(Files.readAllBytes(Path.of(args[0])));
        if (Files.exists(Path.of(args[2]))) {
            Element settings = read(Files.readAllBytes(Path.of(args[2])));
            places.add(text(at(settings, "mirrors", "mirror"), "url"));
            Element server = at(settings, "servers", "server");
            if (server != null) {
                user = text(server, "username") + ":" + text(server, "password");
            }
        } else {
            places.add(args[3]);
            for (Element r : all(at(pom, "repositories"), "repository")) {
                places.add(text(r, "url"));
            }
        }
        for (int depth = 0; at(pom, "parent") != null; depth++) {
            Element parent = at(pom, "parent");
            String group = text(parent, "groupId"), artifact = text(parent, "artifactId"), version = text(parent, "version");
            String name = group + ":" + artifact + ":" + version;
            if (depth > 50 || !name.matches("[A-Za-z0-9_.-]+:[A-Za-z0-9_.-]+:[A-Za-z0-9_.+-]+")) {
                mend("the parent " + name + " is none whose name and version can be read");
            }
            String file = group.replace('.', '/') + "/" + artifact + "/" + version + "/" + artifact + "-" + version + ".pom";
            byte[] got = get(places, file);
            if (got == null) {
                mend("no registry has the parent " + name);
            }
            pom = read(got);
            check(name, pom);
            if (user == null && !Files.exists(Path.of(args[2]))) {
                for (Element r : all(at(pom, "repositories"), "repository")) {
                    places.add(text(r, "url"));
                }
            }
            Path to = Path.of(args[1]).resolve(file);
            Files.createDirectories(to.getParent());
            Files.write(to, got);
        }
    }

    static void mend(String why) {
        System.out.println("brasa: " + why);
        System.exit(1);
    }

    static byte[] get(List<String> places, String file) throws Exception {
        // A password goes to the registry alone.
        HttpClient client = HttpClient.newBuilder().connectTimeout(Duration.ofSeconds(15))
            .followRedirects(user == null ? HttpClient.Redirect.NORMAL : HttpClient.Redirect.NEVER).build();
        for (String place : places) {
            HttpRequest.Builder r = HttpRequest.newBuilder(URI.create(place.replaceAll("/*$", "/") + file)).timeout(Duration.ofSeconds(60));
            if (user != null) {
                r.header("Authorization", "Basic " + Base64.getEncoder().encodeToString(user.getBytes(StandardCharsets.UTF_8)));
            }
            HttpResponse<byte[]> answer = client.send(r.build(), HttpResponse.BodyHandlers.ofByteArray());
            if (answer.statusCode() == 200) {
                return answer.body();
            }
            if (answer.statusCode() != 404) {
                System.out.println("Could not transfer " + file + ": status code: " + answer.statusCode());
                System.exit(1);
            }
        }
        return null;
    }

    /** Refuses a pom whose build would load a program. */
    static void check(String name, Element pom) {
        List<Element> builds = new ArrayList<>(all(pom, "build"));
        for (Element profile : all(at(pom, "profiles"), "profile")) {
            builds.addAll(all(profile, "build"));
        }
        boolean loads = false;
        for (Element build : builds) {
            loads |= !all(at(build, "extensions"), "extension").isEmpty();
            for (Element plugin : all(at(build, "plugins"), "plugin")) {
                listed.add(key(plugin));
                loads |= extends_(plugin) || changed(plugin);
            }
            for (Element plugin : all(at(build, "pluginManagement", "plugins"), "plugin")) {
                loads |= changed(plugin) || extends_(plugin) && key(plugin).startsWith(OURS + ":");
                if (extends_(plugin)) {
                    managed.add(key(plugin));
                }
            }
        }
        for (String plugin : managed) {
            loads |= listed.contains(plugin);
        }
        if (loads) {
            mend("the parent " + name + " brings extensions of Maven along, which are programs and are not run");
        }
    }

    static String key(Element plugin) {
        String group = text(plugin, "groupId");
        return (group.isEmpty() || group.contains("$") ? OURS : group) + ":" + text(plugin, "artifactId");
    }

    static boolean extends_(Element plugin) {
        String said = text(plugin, "extensions");
        return !said.isEmpty() && !said.equals("false");
    }

    /** Says whether it is the plugin that we run, with more in it than its own. */
    static boolean changed(Element plugin) {
        return !text(plugin, "artifactId").matches("(?!maven-dependency-plugin$)[A-Za-z0-9_.-]*") && !all(at(plugin, "dependencies"), "dependency").isEmpty();
    }

    static Element read(byte[] xml) throws Exception {
        DocumentBuilderFactory f = DocumentBuilderFactory.newInstance();
        f.setFeature("http://apache.org/xml/features/disallow-doctype-decl", true);
        return f.newDocumentBuilder().parse(new java.io.ByteArrayInputStream(xml)).getDocumentElement();
    }

    static List<Element> all(Element in, String name) {
        List<Element> out = new ArrayList<>();
        for (Node n = in == null ? null : in.getFirstChild(); n != null; n = n.getNextSibling()) {
            if (n instanceof Element e && e.getTagName().equals(name)) {
                out.add(e);
            }
        }
        return out;
    }

    static Element at(Element in, String... names) {
        for (String name : names) {
            List<Element> found = all(in, name);
            in = found.isEmpty() ? null : found.get(found.size() - 1);
        }
        return in;
    }

    static String text(Element in, String name) {
        Element e = at(in, name);
        return e == null ? "" : e.getTextContent().trim();
    }
}
