package brasa;

/** A request that is not what it says, or not what the handler takes, which its caller can mend. */
final class Unfit extends RuntimeException {
    private static final long serialVersionUID = 1;

    Unfit(String message) {
        super(message, null, false, false);
    }
}
