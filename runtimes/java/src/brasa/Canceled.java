package brasa;

import java.util.concurrent.CancellationException;

/** The caller went away, or the deadline has passed. */
public class Canceled extends CancellationException {
    private static final long serialVersionUID = 1;

    public Canceled(String message) {
        super(message);
    }
}
