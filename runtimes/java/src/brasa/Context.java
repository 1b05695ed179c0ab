package brasa;

import java.util.logging.Logger;

/** What is known of a call besides its request. May be used by any thread. */
public final class Context {
    private final Call call;

    Context(Call call) {
        this.call = call;
    }

    public String invocationId() { return Spec.text(call.meta, "id"); }

    /** The invocation that led to this one, or empty. */
    public String cause() { return Spec.text(call.meta, "cause"); }

    /** 1 for the first. */
    public int attempt() { return (int) Spec.number(call.meta, "attempt", 1); }

    public String functionName() { return call.link.spec.function; }

    public String namespace() { return call.link.spec.namespace; }

    public String revision() { return call.link.spec.revision; }

    /** Bytes. */
    public long memoryLimit() { return call.link.spec.memory; }

    /** Milliseconds since 1970, as System.currentTimeMillis counts; Long.MAX_VALUE if there is none. */
    public long deadline() { return Spec.number(call.meta, "deadline_ms", Long.MAX_VALUE); }

    /** Milliseconds until the deadline, never below zero; a day if there is none. */
    public long remainingMs() {
        long day = 86400000;
        return deadline() == Long.MAX_VALUE ? day : Math.max(0, Math.min(deadline() - System.currentTimeMillis(), day));
    }

    /** Whether the caller has gone. The thread of the handler is interrupted when that happens. */
    public boolean canceled() { return call.canceled; }

    /** Runs an action when the caller goes, on a thread that must not wait; at once if it has gone. */
    public void onCancel(Runnable action) { call.onCancel(action); }

    public Logger logger() { return Logger.getLogger("brasa." + functionName().replace('/', '.')); }
}
