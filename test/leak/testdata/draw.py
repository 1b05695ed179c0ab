import os, random, secrets, ssl, socket, tempfile, time, uuid
from email.utils import make_msgid

try:
    import numpy.random
except ImportError:
    numpy = None

if os.environ.get("DEAR"):
    time.sleep(0.03)
own = random.Random()  # made while the code was loaded
system = random.SystemRandom()
tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE


def hello():
    """What a client of TLS sends first: its random number and its share of a key."""
    out = ssl.MemoryBIO()
    try:
        tls.wrap_bio(ssl.MemoryBIO(), out, server_hostname="example.com").do_handshake()
    except ssl.SSLWantReadError:
        pass
    return out.read()


def draw():
    h = hello()
    share = h.find(b"\x00\x1d\x00\x20") + 4  # of X25519
    out = {
        "random": repr(random.random()), "randbytes": random.randbytes(8).hex(), "uuid1": str(uuid.uuid1()), "uuid4": str(uuid.uuid4()),
        "urandom": os.urandom(8).hex(), "getrandom": os.getrandom(8).hex(), "secrets": secrets.token_hex(8), "system": repr(system.random()),
        "RAND_bytes": ssl.RAND_bytes(8).hex(), "tempfile": tempfile.mktemp(), "sequence": next(tempfile._get_candidate_names()),
        "client random": h[11:43].hex(), "session": h[44:76].hex(), "key share": h[share : share + 32].hex(), "new": repr(random.Random().random()),
        "file": open("/dev/urandom", "rb", 0).read(8).hex(), "message": make_msgid(),
        "shuffle": str(random.sample(range(1000), 12)),
    }
    if numpy:
        out["numpy"] = repr(numpy.random.random())
        out["generator"] = repr(numpy.random.default_rng().random())
    return out


draw()  # so that all of it has been used before the snapshot


def main(args):
    return draw()
