def main(args):
    lines = args.get("lines") or []
    return {"lines": lines, "payload": "\n".join(str(line) for line in lines)}
