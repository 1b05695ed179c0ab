# Sends one message over a WebSocket (RFC 6455) and closes it.
import os
import socket
import ssl
import struct
from base64 import b64encode
from hashlib import sha1
from urllib.parse import urlsplit

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # of the RFC
TIMEOUT = 30  # seconds
TEXT, CLOSE = 0x81, 0x88


def frame(kind, payload):
    if len(payload) < 126:
        length = bytes([0x80 | len(payload)])
    elif len(payload) < 1 << 16:
        length = bytes([0x80 | 126]) + struct.pack(">H", len(payload))
    else:
        length = bytes([0x80 | 127]) + struct.pack(">Q", len(payload))
    mask = os.urandom(4)  # what a client sends must be masked
    return bytes([kind]) + length + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(payload))


def connect(uri):
    u = urlsplit(uri)
    if u.scheme not in ("ws", "wss") or not u.hostname:
        raise ValueError(f"{uri!r} is no URI of a WebSocket")
    port = u.port or (443 if u.scheme == "wss" else 80)
    s = socket.create_connection((u.hostname, port), TIMEOUT)
    if u.scheme == "wss":
        s = ssl.create_default_context().wrap_socket(s, server_hostname=u.hostname)
    key = b64encode(os.urandom(16))
    target = (u.path or "/") + ("?" + u.query if u.query else "")
    s.sendall(
        f"GET {target} HTTP/1.1\r\nHost: {u.netloc.rpartition('@')[2]}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key.decode()}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    head = b""
    while b"\r\n\r\n" not in head:
        part = s.recv(4096)
        if not part or len(head) > 1 << 16:
            raise OSError("the server closed the connection")
        head += part
    if not head.startswith(b"HTTP/1.1 101") or b64encode(sha1(key + GUID).digest()) not in head:
        raise OSError("the server refused: " + head.split(b"\r\n", 1)[0].decode("latin-1"))
    return s


def main(args):
    uri, payload = args.get("uri"), args.get("payload")
    if not uri:
        return {"error": "You must specify a uri parameter."}
    if not payload:
        return {"error": "You must specify a payload parameter."}
    text = payload if isinstance(payload, str) else str(payload)
    try:
        s = connect(uri)
        with s:
            s.sendall(frame(TEXT, text.encode()) + frame(CLOSE, struct.pack(">H", 1000)))
            while s.recv(4096):  # until the server has closed it too
                pass
    except (OSError, ValueError) as err:
        print("Error communicating with websocket:", err)
        return {"error": str(err)}
    return {"payload": payload}
