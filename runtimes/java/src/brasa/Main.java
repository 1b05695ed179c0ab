package brasa;

import java.io.IOException;

/**
 * Brasa's bootstrap for Java 17 and newer: frame protocol 1 over descriptor 3.
 *
 * <p>It boots, is told its function (LOAD), and serves calls. Booting knows nothing of the function, so that a booted
 * process can wait in stock. Before a stem says HELLO it loads and calls a function of its own, so that what a claim needs is
 * loaded, linked and in private pages. What a function may return and what it gets is written in docs/runtimes/java.md and
 * tested in test/contract.
 */
public final class Main {
    private Main() {}

    public static void main(String[] args) throws Exception {
        Link link = new Link(3);
        Link.instance = new LineLog(link, 0, Long.MAX_VALUE);
        Output.install();
        Randomness.install();
        if (Boolean.getBoolean("brasa.rehearse")) DryRun.run();
        link.lead();
        // What has been loaded by now is archived, or found to come from the archive.
        if (Boolean.getBoolean("brasa.archive")) System.exit(0);
        link.hello();
        Spec spec = link.awaitLoad();
        Function function;
        try {
            function = Function.load(spec);
        } catch (Throwable e) {
            Link.instance.flush();
            link.send(Frames.json(Frames.LOAD_FAILED, 0, Fault.of(e)));
            Runtime.getRuntime().halt(1);
            return;
        }
        Link.instance.flush();
        link.loaded(function);
        link.serve();
    }

    /** Ends the process because the host is gone, and with it whoever would care. */
    static void gone(IOException ignored) {
        Runtime.getRuntime().halt(0);
    }
}
