#!/usr/bin/env python3
# A program that speaks ActionLoop and says when it is ready.
import json
import os
import sys
import time

loaded = os.environ.get("AT_LOAD")
calls = 0
out = os.fdopen(3, "wb")


def main(args):
    global calls
    calls += 1
    do = args.get("do") if isinstance(args, dict) else "echo"
    if do == "echo":
        print("out ✓", flush=True)
        print("err ✓", file=sys.stderr, flush=True)
        return args
    if do == "env":
        return {name: os.environ.get(name) for name in args["names"]}
    if do == "load":
        return {"loaded": loaded, "unicode": "héllo ✓ 你好"}
    if do == "count":
        return {"calls": calls}
    if do == "error":
        return {"error": {"code": 7, "text": "mine"}}
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


if os.environ.get("__OW_WAIT_FOR_ACK"):
    out.write(b'{"ok":true}\n')
    out.flush()
while True:
    line = sys.stdin.readline()
    if not line:
        break
    message = json.loads(line)
    for key, value in message.items():
        if key != "value":
            os.environ["__OW_" + key.upper()] = value
    out.write(json.dumps(main(message["value"]), ensure_ascii=False).encode() + b"\n")
    out.flush()
