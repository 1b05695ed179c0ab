"""Fetch one web page and say what is on it: title, links, size, and where the time went."""

import html.parser
import http.client
import re
import socket
import ssl
import time
import urllib.parse
import zlib

MAX_BYTES = 2 << 20  # of one page, after it is unpacked
MAX_LINKS = 200
MAX_REDIRECTS = 5
SECONDS = 15.0  # for everything together
AGENT = "brasa-fetch-page/1"


class FetchError(Exception):
    """The page can't be had; the text says why."""


class Budget:
    """What is left of the time for everything together."""

    def __init__(self, seconds):
        self.end = time.monotonic() + seconds

    def left(self):
        left = self.end - time.monotonic()
        if left <= 0:
            raise FetchError(f"gave up after {SECONDS:g} seconds")
        return left


def fetch(url, seconds=SECONDS):
    """Fetch a page, follow its redirects and return what is known of it."""
    budget, hops = Budget(seconds), []
    began = time.monotonic()
    while True:
        answer = one(url, budget)
        if answer["status"] not in (301, 302, 303, 307, 308) or not answer["location"]:
            break
        hops.append({"url": url, "status": answer["status"]})
        if len(hops) > MAX_REDIRECTS:
            raise FetchError(f"more than {MAX_REDIRECTS} redirects")
        url = urllib.parse.urljoin(url, answer["location"])
    body = answer.pop("body")
    answer.pop("location")
    out = {"url": url, **answer, "redirects": hops}
    if answer["content_type"].split(";")[0].strip().lower() in ("text/html", "application/xhtml+xml"):
        page = Page(url)
        page.feed(decode(body, answer["content_type"]))
        page.close()
        out |= {"title": page.text("title"), "description": page.description, "heading": page.text("h1"),
                "links": page.links, "links_truncated": page.more}
    out["timing_ms"]["total"] = ms(time.monotonic() - began)
    return out


def one(url, budget):
    """Make one request and return its answer, with the body unless it is a redirect."""
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
    except ValueError as e:
        raise FetchError(f"{url[:200]!r} is not an address: {e}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise FetchError(f"{url[:200]!r} is not an http or https address")
    if parts.username is not None:
        raise FetchError("an address with a password in it is not fetched")
    try:
        host = parts.hostname.encode("idna").decode()
        name = parts.netloc.rpartition("@")[2].encode("idna").decode()
    except ValueError as e:
        raise FetchError(f"{url[:200]!r}: {e}") from None
    port = port or (443 if parts.scheme == "https" else 80)
    timing, at = {}, time.monotonic()

    def mark(name):
        nonlocal at
        now = time.monotonic()
        timing[name] = ms(now - at)
        at = now

    sock = None
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        mark("resolve")
        sock = connect(addresses, budget)
        mark("connect")
        if parts.scheme == "https":
            sock = ssl.create_default_context().wrap_socket(sock, server_hostname=host)
            mark("tls")
        request = http.client.HTTPConnection(host, port)
        request.sock = sock
        path = urllib.parse.quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
        query = "?" + urllib.parse.quote(parts.query, safe="/%:@!$&'()*+,;=~-._?") if parts.query else ""
        sock.settimeout(budget.left())
        request.request("GET", path + query, headers={
            "Host": name, "User-Agent": AGENT, "Accept": "text/html,*/*;q=0.5",
            "Accept-Encoding": "gzip, deflate", "Connection": "close"})
        answer = request.getresponse()
        mark("first_byte")
        out = {"status": answer.status, "content_type": answer.getheader("Content-Type", ""),
               "location": answer.getheader("Location", ""), "body": b""}
        if not (300 <= answer.status < 400 and out["location"]):
            wire, out["body"], out["truncated"] = read(answer, sock, budget)
            mark("body")
            out |= {"bytes": len(out["body"]), "bytes_on_wire": wire}
        out["timing_ms"] = timing
        return out
    except ssl.SSLCertVerificationError as e:
        raise FetchError(f"{host}: the certificate is not trusted: {e.verify_message}") from None
    except socket.gaierror as e:
        raise FetchError(f"{host}: no address found: {e.strerror}") from None
    except TimeoutError:
        raise FetchError(f"{host}: no answer in time") from None
    except (OSError, http.client.HTTPException) as e:
        raise FetchError(f"{host}: {e or type(e).__name__}") from None
    finally:
        if sock is not None:
            sock.close()


def connect(addresses, budget):
    """Connect to the first address that answers."""
    last = None
    for n, (family, kind, proto, _, address) in enumerate(addresses):
        sock = socket.socket(family, kind, proto)
        try:
            sock.settimeout(budget.left() / (len(addresses) - n))
            sock.connect(address)
            return sock
        except OSError as e:
            sock.close()
            last = e
    raise last


def read(answer, sock, budget):
    """Read a body up to MAX_BYTES, unpacked as it comes. A small answer that unpacks to a huge
    one ends there too."""
    coding = answer.getheader("Content-Encoding", "").lower().strip()
    unpack = {"gzip": lambda: zlib.decompressobj(31), "x-gzip": lambda: zlib.decompressobj(31),
              "deflate": lambda: zlib.decompressobj(15)}.get(coding, lambda: None)()
    wire, size, pieces = 0, 0, []
    while size < MAX_BYTES:
        sock.settimeout(budget.left())
        piece = answer.read1(64 << 10)
        if not piece:
            return wire, b"".join(pieces), False
        wire += len(piece)
        if unpack is not None:
            try:
                piece = unpack.decompress(piece, MAX_BYTES - size)
            except zlib.error as e:
                raise http.client.HTTPException(f"the body is not {coding}: {e}") from None
        piece = piece[:MAX_BYTES - size]
        size += len(piece)
        pieces.append(piece)
    return wire, b"".join(pieces), True


def decode(body, content_type):
    """Return the text of a page by the charset that it names."""
    m = re.search(r"charset=[\"']?([\w.:-]+)", content_type, re.I) or re.search(rb"charset=[\"']?([\w.:-]+)", body[:2048], re.I)
    name = m[1] if m else "utf-8"
    try:
        return body.decode(name if isinstance(name, str) else name.decode(), "replace")
    except LookupError:
        return body.decode("utf-8", "replace")


class Page(html.parser.HTMLParser):
    """Collects what a page says of itself."""

    def __init__(self, base):
        super().__init__(convert_charrefs=True)
        self.base, self.texts, self.inside = base, {}, None
        self.description, self.links, self.seen, self.more = None, [], set(), False
        self.link = None

    def handle_starttag(self, tag, attrs):
        get = dict(attrs).get
        if tag in ("title", "h1") and tag not in self.texts:
            self.inside, self.texts[tag] = tag, []
        elif tag == "meta" and (get("name") or "").lower() == "description" and self.description is None:
            self.description = (get("content") or "").strip()[:500]
        elif tag == "base" and get("href"):
            self.base = urllib.parse.urljoin(self.base, get("href"))
        elif tag == "a" and get("href"):
            self.add(get("href"))

    def add(self, href):
        try:
            url = urllib.parse.urldefrag(urllib.parse.urljoin(self.base, href.strip()))[0]
        except ValueError:
            return
        if not url.startswith(("http://", "https://")) or url in self.seen:
            return
        if len(self.links) == MAX_LINKS:
            self.more = True
            return
        self.seen.add(url)
        self.link = {"url": url[:2000], "text": ""}
        self.links.append(self.link)

    def handle_endtag(self, tag):
        if tag == self.inside:
            self.inside = None
        if tag == "a":
            self.link = None

    def handle_data(self, data):
        if self.inside and len(self.texts[self.inside]) < 100:
            self.texts[self.inside].append(data)
        if self.link is not None:
            self.link["text"] = " ".join((self.link["text"] + " " + data).split())[:200]

    def text(self, tag):
        return " ".join("".join(self.texts[tag]).split())[:300] if tag in self.texts else None


def ms(seconds):
    return round(seconds * 1000, 2)
