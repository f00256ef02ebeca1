"""A real HTTP server on loopback that misbehaves as told, and counts every byte it sends."""

from __future__ import annotations

import contextlib
import functools
import gzip
import hashlib
import io
import json
import pathlib
import random
import socket
import struct
import tarfile
import threading
import time
import zlib
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

EXPIRED_BODY = b"URL signature expired"
SIGNATURE = "not-a-real-signature-0123456789"


def make_tar(
    number: int, *, pairs: int = 3, image_bytes: int = 60_000, form: str = "gzip"
) -> bytes:
    """A tar in SA-1B's form whose images are noise; the same number gives the same bytes.

    `form` is 'gzip', as Meta serves them, or 'plain'.
    """
    noise = random.Random(number)
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for index in range(pairs):
            stem = f"./sa_{number * 100 + index}"
            for name, data in (
                (f"{stem}.json", json.dumps({"image": {"image_id": index}}).encode()),
                (f"{stem}.jpg", b"\xff\xd8" + noise.randbytes(image_bytes)),
            ):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return packed(content.getvalue()) if form == "gzip" else content.getvalue()


def packed(plain: bytes) -> bytes:
    """The same in gzip's form, without a time in it."""
    return gzip.compress(plain, 1, mtime=0)


@functools.cache
def slow_tar(number: int, *, member: int = 2**24, members: int = 3) -> bytes:
    """A compressed tar, small, that takes long to unpack: its images are zeros."""
    content = io.BytesIO()
    compress = zlib.compressobj(1, wbits=31)
    jpeg = bytes([0xFF, 0xD8, number]) + bytes(member - 3)
    for index in range(members):
        for suffix, data in ((".json", b"{}"), (".jpg", jpeg)):
            info = tarfile.TarInfo(f"./sa_{number}{index}{suffix}")
            info.size = len(data)
            content.write(compress.compress(info.tobuf() + data + bytes(-len(data) % 512)))
    content.write(compress.compress(bytes(tarfile.RECORDSIZE)))
    content.write(compress.flush())
    return content.getvalue()


@functools.cache
def _md5_of_slow(number: int) -> str:
    return hashlib.md5(gzip.decompress(slow_tar(number))).hexdigest()


def form_of_slow(number: int, path: pathlib.Path) -> str:
    """'g' if the file is that slow tar, 'p' if it is the plain one; fails if it is neither."""
    data = path.read_bytes()
    if data == slow_tar(number):
        return "g"
    assert hashlib.md5(data).hexdigest() == _md5_of_slow(number), f"{path} is not whole"
    return "p"


def _damaged() -> dict[str, tuple[bytes, str]]:
    """Compressed tars that are none, by what is wrong, each with what has to be said of it."""
    plain = make_tar(7, image_bytes=20_000, form="plain")
    tar, half = packed(plain), len(plain) // 2
    crc, length = zlib.crc32(plain), len(plain)

    def ending(*numbers: int) -> bytes:
        return tar[:-8] + struct.pack("<II", *numbers)

    def flipped(at: int) -> bytes:
        return tar[:at] + bytes([tar[at] ^ 16]) + tar[at + 1 :]

    def matters(at: int) -> bool:
        """Whether a bit there changes what is in it: zeros may be written in several ways."""
        try:
            return gzip.decompress(flipped(at)) != plain
        except (OSError, EOFError, zlib.error):
            return True

    near_the_end = next(at for at in range(len(tar) - 9, 0, -1) if matters(at))
    whole, end = f"from byte 10 to {len(tar):,}", f"byte {len(tar):,}"
    changed = f"it is damaged: the checksum of what was compressed {whole} is wrong: a byte in it"
    flip = r"it is damaged: .*\bbyte\b"  # found at once, or at the end of the data or the file
    return {
        "cut in the header": (tar[:7], "it ends at byte 7, in the middle of a header"),
        "cut at the start of the data": (tar[:10], "it ends at byte 10, before its compressed da"),
        "cut in the middle": (tar[:9_999], "it ends at byte 9,999, before its compressed data"),
        "cut in the checksum": (tar[:-5], f"ends at byte {len(tar) - 5:,}, in the middle of the"),
        "cut by one byte": (tar[:-1], f"ends at byte {len(tar) - 1:,}, in the middle of the chec"),
        "a bit flipped early": (flipped(500), flip),
        "a bit flipped in the middle": (flipped(len(tar) // 2), flip),
        "a bit flipped at the end": (flipped(near_the_end), flip),
        "another checksum": (ending(crc ^ 1, length), changed),
        "another length": (ending(crc, length + 512), f"the length of what was compressed {whole}"),
        "garbage after it": (tar + b"garbage", f"ends at {end}, but more follows it"),
        "garbage after zeros": (tar + bytes(70_000) + b"garbage", f"ends at {end}, but more follo"),
        "a web page after it": (tar + b"<html>" * 9000, f"ends at {end}, but more follows it"),
        "half a member after it": (tar + tar[:5], f"{len(tar) + 5:,}, in the middle of a header"),
        "another tar after it": (tar + tar, r"zeros from byte \d+ to \d+, but more follows them"),
        "a member that is no gzip": (tar + b"\x1f\x8b\xff" + bytes(99), f"no gzip header at {end}"),
        "its own header only": (packed(b""), "no header and no end marker at byte 0"),
        "compressed twice": (packed(tar), "it is no tar: it is compressed with gzip twice. Unpack"),
        "no tar in it": (packed(b"<html>" * 9000), "it is no tar: it begins with b'<html><html>"),
        "half a tar in it": (packed(plain[:half]), "it claims 20002 bytes, |the tar is torn here"),
        "a bomb of zeros": (packed(bytes(2**25)), "zeros from byte 0 on, more than end a tar"),
    }


DAMAGED = _damaged()


@dataclass(kw_only=True)
class Fault:
    """How one request is answered otherwise than it should be.

    Attributes:
      status, body, headers: an answer of its own instead of the file.
      send: bytes of the body after which the connection is cut; a negative number counts from
        its end.
      stall: seconds of silence after `send` bytes.
      corrupt: the body's bytes are wrong.
      ignore_range: 200 and the whole file.
      truncate_to: the file is said, and is, only this long.
      add: headers beside the right ones, None to leave one out.
      chunked: no Content-Length.
      before: called first, for instance to exchange the file.
    """

    status: int | None = None
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    send: int | None = None
    stall: float = 0.0
    corrupt: bool = False
    ignore_range: bool = False
    truncate_to: int | None = None
    add: dict[str, str | None] = field(default_factory=dict)
    chunked: bool = False
    before: Callable[[], None] | None = None


@dataclass(kw_only=True)
class Request:
    """What was asked, and what was sent."""

    name: str
    start: int
    probe: bool
    headers: dict[str, str]
    url: str
    status: int = 0
    sent: int = 0


class FaultServer:
    """Serves `files` by name. `faults[name]` are used up, one a request, probes excepted.

    With `redirects_to` it sends every request on to that server, under another host's name.
    """

    def __init__(self, files: dict[str, bytes], *, bytes_per_second: float | None = None):
        self.files = dict(files)
        self.faults: dict[str, list[Fault]] = defaultdict(list)
        self.expired_keys: set[str] = set()
        self.redirects_to: FaultServer | None = None
        self.requests: list[Request] = []
        self.bytes_per_second = bytes_per_second
        self.supports_range = True
        self.stopping = threading.Event()
        owner = self

        class Handler(_Handler):
            server_owner = owner

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, request, client_address):
                pass  # a client that is killed cuts its connections

        self._server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def port(self) -> int:
        return self._server.server_address[1]

    def url(self, name: str, *, key: str = "1", host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}/secret-path/{name}?key={key}&sig={SIGNATURE}"

    def links_text(self, *, key: str = "1") -> str:
        lines = [f"{name}\t{self.url(name, key=key)}" for name in self.files]
        return "\n".join(["file_name\tcdn_link", *lines, ""])

    def etag(self, name: str) -> str:
        return f'"{hashlib.sha256(self.files[name]).hexdigest()[:16]}"'

    def of(self, name: str) -> list[Request]:
        return [r for r in self.requests if r.name == name and not r.probe]

    def __enter__(self) -> FaultServer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_owner: FaultServer

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        owner = self.server_owner
        parts = urlsplit(self.path)
        name = parts.path.rpartition("/")[2]
        asked = self.headers.get("Range", "")
        probe = asked == "bytes=0-0"
        start = int(asked[6:].partition("-")[0]) if asked.startswith("bytes=") else 0
        request = Request(
            name=name,
            start=start,
            probe=probe,
            headers={k.title(): v for k, v in self.headers.items()},
            url=self.path,
        )
        owner.requests.append(request)
        fault = owner.faults[name].pop(0) if owner.faults[name] and not probe else Fault()
        if parse_qs(parts.query).get("key", [""])[0] in owner.expired_keys:
            fault = Fault(status=403, body=EXPIRED_BODY)
        if owner.redirects_to is not None:
            url = owner.redirects_to.url(name, host="localhost")
            fault = Fault(status=302, headers={"Location": url})
        if fault.before:
            fault.before()
        if fault.status is not None:
            request.status = fault.status
            self.send_response(fault.status)
            for key, value in {**fault.headers, "Content-Length": str(len(fault.body))}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(fault.body)
            return
        self._send_file(request, fault, ranged=bool(asked))

    def _send_file(self, request: Request, fault: Fault, *, ranged: bool) -> None:
        owner, name = self.server_owner, request.name
        data = owner.files[name]
        if fault.truncate_to is not None:
            data = data[: fault.truncate_to]
        if fault.corrupt:
            data = bytes(byte ^ 0x55 for byte in data[:5000]) + data[5000:]
        ranged = ranged and owner.supports_range and not fault.ignore_range
        headers: dict[str, str | None] = {"ETag": owner.etag(name), "Accept-Ranges": "bytes"}
        body = data
        if ranged and request.start >= len(data):
            request.status, body = 416, b""
            headers["Content-Range"] = f"bytes */{len(data)}"
        elif ranged:
            end = 1 if request.probe else len(data)
            request.status, body = 206, data[request.start : end]
            headers["Content-Range"] = f"bytes {request.start}-{end - 1}/{len(data)}"
        else:
            request.status = 200
            request.start = 0
        headers["Content-Length"] = None if fault.chunked else str(len(body))
        if fault.chunked:
            headers["Transfer-Encoding"] = "chunked"
        self.send_response(request.status)
        for key, value in {**headers, **fault.add}.items():
            if value is not None:
                self.send_header(key, value)
        self.end_headers()
        self._send_body(request, body, fault)

    def _send_body(self, request: Request, body: bytes, fault: Fault) -> None:
        step = 16_384
        limit = len(body[: fault.send])
        for at in range(0, limit, step):
            block = body[at : min(at + step, limit)]
            framed = b"%x\r\n%s\r\n" % (len(block), block) if fault.chunked else block
            self.connection.sendall(framed)
            request.sent += len(block)
            if self.server_owner.bytes_per_second:
                time.sleep(len(block) / self.server_owner.bytes_per_second)
        if fault.stall:
            self.server_owner.stopping.wait(fault.stall)
        if fault.send is not None:
            self.close_connection = True
            # Linger 0 makes close() a reset, as a broken connection is.
            with contextlib.suppress(OSError):
                if fault.stall == 0 and limit % 2:
                    self.connection.setsockopt(
                        socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                    )
                self.connection.shutdown(socket.SHUT_RDWR)
        elif fault.chunked:
            self.connection.sendall(b"0\r\n\r\n")
