"""Asynchronous handlers."""
import asyncio

gates = {}


async def main(args, context):
    if args["do"] == "log":
        for i in range(args["count"]):
            print(args["tag"], i)
            await asyncio.sleep(0)
        await asyncio.get_running_loop().run_in_executor(None, print, args["tag"], "thread")
        return args["tag"]
    if args["do"] == "wait":
        try:
            await asyncio.Event().wait()
        finally:
            print("canceled")
    if args["do"] == "stream":
        return numbers()
    if args["do"] == "bigstream":
        return big(args["size"])
    if args["do"] == "error":
        raise ValueError("no good")
    return args


async def numbers():
    for i in range(3):
        await asyncio.sleep(0)
        yield "part %d\n" % i


async def big(size):
    for _ in range(size // 65536):
        yield b"z" * 65536


async def handle(event, context):
    async for chunk in event.stream():
        yield chunk
