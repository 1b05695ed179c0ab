from urllib.error import URLError
from urllib.request import urlopen


def main(args):
    url = str(args.get("payload", ""))
    if "://" not in url:
        url = "http://" + url
    if not url.startswith(("http://", "https://")):
        return {"error": "the payload is no address of a web page"}
    print("Curl to", url)
    try:
        with urlopen(url, timeout=10) as answer:
            text = answer.read(512 << 10).decode("utf-8", "replace")
    except (URLError, OSError, ValueError) as err:
        text = str(err)
    return {"msg": text}
