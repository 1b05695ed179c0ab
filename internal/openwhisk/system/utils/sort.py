def main(args):
    lines = args.get("lines") or []
    print("sort input:", lines)
    lines = sorted(lines, key=str)  # as strings, whatever they are
    print("sorted:", lines)
    return {"lines": lines, "length": len(lines)}
