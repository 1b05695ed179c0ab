import re


def main(args):
    payload = str(args.get("payload", ""))
    separator = args.get("separator")
    if separator is None:
        lines = payload.splitlines()
    elif separator == "":
        lines = list(payload)
    else:
        lines = re.split(separator, payload)
    return {"lines": lines, "payload": payload}
