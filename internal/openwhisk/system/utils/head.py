def main(args):
    num = args.get("num") or 1
    return {"lines": (args.get("lines") or [])[:num], "num": num}
