# Invokes itself by the API until it comes to zero.
import json
import os
from base64 import b64encode
from urllib.request import Request, urlopen


def main(args):
    n = int(args.get("n", 0))
    print(n)
    if n <= 0:
        print("Happy New Year!")
        return {}
    _, namespace, name = os.environ["__OW_ACTION_NAME"].split("/", 2)
    request = Request(
        f"{os.environ['__OW_API_HOST']}/api/v1/namespaces/{namespace}/actions/{name}",
        data=json.dumps({"n": n - 1}).encode(),
        headers={
            "Content-Type": "application/json",
            "Authorization": "Basic " + b64encode(os.environ["__OW_API_KEY"].encode()).decode(),
        },
    )
    with urlopen(request, timeout=30) as answer:
        return json.load(answer)
