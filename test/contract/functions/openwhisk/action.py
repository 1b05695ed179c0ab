import os
import sys
import time

loaded = os.environ.get("AT_LOAD")
calls = 0


def main(args):
    global calls
    calls += 1
    do = args.get("do") if isinstance(args, dict) else "echo"
    if do == "echo":
        print("out ✓")
        print("err ✓", file=sys.stderr)
        return args
    if do == "env":
        return {name: os.environ.get(name) for name in args["names"]}
    if do == "load":
        return {"loaded": loaded, "unicode": "héllo ✓ 你好"}
    if do == "count":
        return {"calls": calls}
    if do == "error":
        return {"error": {"code": 7, "text": "mine"}}
    if do == "throw":
        raise ValueError("thrown on purpose")
    if do == "exit":
        os._exit(3)
    if do == "hang":
        time.sleep(600)
    if do == "text":
        return "just text"
    if do == "list":
        return [1, "two"]
    if do == "nothing":
        return None
    if do == "big":
        return {"text": "x" * args["size"]}
    if do == "memory":
        hold = []
        while True:
            hold.append(bytearray(8 << 20))


def niam(args):
    return {"entry": "niam"}
