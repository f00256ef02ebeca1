"""gcp-storage-emulator in the place of Google's hosts: what TensorFlow's gs:// talks to.

TensorFlow asks https://www.googleapis.com and https://storage.googleapis.com, whatever variables of
emulators say. Its libcurl goes through `https_proxy` and trusts `CURL_CA_BUNDLE`. So this is a
proxy on loopback which says that it is those hosts, by a certificate of its own.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import json
import pathlib
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer
from typing import Any
from unittest import mock
from urllib.parse import unquote

import pytest

emulator = pytest.importorskip(
    "gcp_storage_emulator.server", reason="gcp-storage-emulator is not installed"
)
storage_of = pytest.importorskip("gcp_storage_emulator.storage")
buckets = pytest.importorskip("gcp_storage_emulator.handlers.buckets")
pytest.importorskip("cryptography", reason="cryptography is not installed")

BUCKET = "sa1b-bucket"
TOKEN = "a-token-of-the-test"
_HOSTS = ("www.googleapis.com", "storage.googleapis.com")


def _write_certificate(folder: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """Writes a certificate of the hosts, which vouches for itself, and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "A test on loopback")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(map(x509.DNSName, _HOSTS)), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    chain, private = folder / "certificate.pem", folder / "key.pem"
    chain.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(_pem(key))
    return chain, private


def _write_account(folder: pathlib.Path) -> pathlib.Path:
    """Writes the credentials of a made-up service account."""
    from cryptography.hazmat.primitives.asymmetric import rsa

    account = {
        "type": "service_account",
        "client_email": "test@loopback",
        "client_id": "1",
        "private_key_id": "1",
        "private_key": _pem(rsa.generate_private_key(65537, 2048)).decode(),
    }
    path = folder / "account.json"
    path.write_text(json.dumps(account))
    return path


def _pem(key: Any) -> bytes:
    from cryptography.hazmat.primitives import serialization

    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


class _Request(emulator.Request):
    """The emulator's request. An empty body is one, and URLs in answers are those of the hosts."""

    def __init__(self, request_handler: Any, method: str):
        super().__init__(request_handler, method)
        self._base_url = self._base_url.replace("http:", "https:", 1)
        self._full_url = self._base_url + self._path

    @property
    def data(self) -> Any:
        return super().data or b""


class _Handler(emulator.RequestHandler):
    """The emulator's handler, behind a proxy's CONNECT and TLS."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # an answer is sent in parts, and each would wait for 40 ms
    server: _Server

    def do_CONNECT(self) -> None:
        if self.path.partition(":")[0] not in _HOSTS:
            self.send_error(403)
            return
        self.send_response_only(200)
        self.end_headers()
        self.request = self.server.tls.wrap_socket(self.connection, server_side=True)
        self.setup()
        self.close_connection = False

    def parse_request(self) -> bool:
        is_right = super().parse_request()
        if is_right and self.path.startswith("/oauth2/"):
            self._give_token()
            return False
        if is_right and self.command != "CONNECT":
            if self.headers.get("Transfer-Encoding") == "chunked":
                del self.headers["Content-Length"]  # libcurl sends both; the first one holds
            self.server.note(self)
            if self.server.refuses(self):
                emulator._read_raw_data(self)  # else libcurl goes on sending it
                self.send_error(403)
                return False
        return is_right

    def finish(self) -> None:
        super().finish()
        self.connection.close()  # the server closes only the socket that it has made

    def _give_token(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        answer = json.dumps({"access_token": TOKEN, "expires_in": 3600, "token_type": "Bearer"})
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer.encode())


class _Server(ThreadingHTTPServer):
    """Serves in threads, and notes each request.

    requests: method, path and the range of bytes that is asked for.
    tokens: what the requests had as their authorization.
    refuses: whether a request is answered with 403, as when permissions were taken away.
    """

    tls: ssl.SSLContext

    def __init__(self, storage: Any):
        super().__init__(("127.0.0.1", 0), functools.partial(_Handler, storage))
        self.requests: list[tuple[str, str, str | None]] = []
        self.tokens: set[str | None] = set()
        self.refuses: Callable[[Any], bool] = lambda handler: False

    def note(self, handler: Any) -> None:
        path = unquote(handler.path)
        self.tokens.add(handler.headers.get("Authorization"))
        self.requests.append((handler.command, path, handler.headers.get("Range")))


class Server:
    """A server with a bucket, until it is stopped.

    environment: what a process needs to reach it.
    storage: the emulator's; what is in the bucket.
    http: see `_Server`.
    """

    def __init__(self, folder: pathlib.Path):
        certificate, key = _write_certificate(folder)
        self.storage = storage_of.Storage(use_memory_fs=True)
        buckets.create_bucket(BUCKET, self.storage)
        self.http = _Server(self.storage)
        self.http.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.http.tls.load_cert_chain(certificate, key)
        self._thread = threading.Thread(target=self.http.serve_forever)
        self._thread.start()
        self.environment = {
            "https_proxy": f"http://127.0.0.1:{self.http.server_port}",
            "CURL_CA_BUNDLE": str(certificate),
            "GOOGLE_APPLICATION_CREDENTIALS": str(_write_account(folder)),
        }

    def names(self) -> list[str]:
        """The names of all objects."""
        return sorted(each["name"] for each in self.storage.get_file_list(BUCKET)[0])

    def read(self, name: str) -> bytes:
        return self.storage.get_file(BUCKET, name)

    def stop(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self._thread.join()


@contextlib.contextmanager
def serving(folder: pathlib.Path) -> Iterator[Server]:
    """Serves while the body runs. `folder` receives a certificate."""
    with mock.patch.object(emulator, "Request", _Request):
        server = Server(folder)
        try:
            yield server
        finally:
            server.stop()
