"""The functions of the contract suite; args["do"] says which."""
import logging
import os
import sys
import threading

import brasa

go_on = threading.Event()
done = threading.Event()


def main(args, context):
    return globals()["do_" + args["do"]](args, context)


def do_dict(args, context):
    return {"text": "héllo ✓ 你好", "number": 1.5, "list": [1, None, True]}


def do_list(args, context):
    return [1, "two"]


def do_text(args, context):
    return "plain ✓"


def do_bytes(args, context):
    return bytes(range(256))


def do_number(args, context):
    return 42


def do_bool(args, context):
    return False


def do_null(args, context):
    return None


def do_echo(args, context):
    del args["do"]
    return args


def do_response(args, context):
    return {"statusCode": 201, "headers": {"X-One": "1", "Set-Cookie": ["a=1", "b=2"]}, "body": "made"}


def do_base64(args, context):
    return {"statusCode": 200, "headers": {"content-type": "image/x"}, "body": "AAEC/w==", "isBase64Encoded": True}


def do_status(args, context):
    return {"statusCode": args["status"], "body": "x"}


def do_header(args, context):
    return brasa.Response("x", headers={args["name"]: args["value"]})


def do_error(args, context):
    raise ValueError("no good: é")


def do_unserialisable(args, context):
    return {"x": object()}


def do_nan(args, context):
    return {"x": float("nan")}


def do_exit(args, context):
    print("about to exit")
    os._exit(3)


def do_recursion(args, context):
    return do_recursion(args, context)


def do_loop(args, context):
    while True:
        pass


def do_stream(args, context):
    for i in range(3):
        yield "part %d\n" % i


def do_objects(args, context):
    yield {"n": 1}
    yield {"n": 2}


def do_sse(args, context):
    return brasa.Response(("data: %d\n\n" % i for i in range(3)), headers={"Content-Type": "text/event-stream"})


def do_midway(args, context):
    yield "one\n"
    yield "two\n"
    raise RuntimeError("broke in the middle")


def do_endless(args, context):
    try:
        while True:
            yield b"x" * 65536
    finally:
        print("closed")


def do_big(args, context):
    return b"y" * args["size"]


def do_bigstream(args, context):
    for _ in range(args["size"] // 65536):
        yield b"z" * 65536


def do_log(args, context):
    for i in range(args["count"]):
        print(args["tag"], i)
        sys.stderr.write("%s err %d\n" % (args["tag"], i))
    t = threading.Thread(target=lambda: print(args["tag"], "thread"))
    t.start()
    t.join()
    logging.getLogger("x").warning("%s logging", args["tag"])
    return args["tag"]


def do_hugeline(args, context):
    print("x" * args["size"])
    return "ok"


def do_unfinished(args, context):
    sys.stdout.write("no end")
    return "ok"


def do_later(args, context):
    def late():
        go_on.wait()
        print("late line")
        done.set()

    go_on.clear()
    done.clear()
    threading.Thread(target=late, daemon=True).start()
    return "ok"


def do_release(args, context):
    go_on.set()
    done.wait()
    return "ok"


def do_context(args, context):
    return {
        "id": context.invocation_id,
        "function": context.function_name,
        "namespace": context.namespace,
        "revision": context.revision,
        "memory": context.memory_limit,
        "cause": context.cause,
        "remaining": context.remaining_ms(),
    }


def do_env(args, context):
    return {k: os.environ.get(k) for k in args["names"]}


def do_stray(args, context):
    raise SystemExit(7)
