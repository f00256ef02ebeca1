"""gcp-storage-emulator in the place of Google's hosts: what TensorFlow's gs:// talks to.

TensorFlow asks https://www.googleapis.com and https://storage.googleapis.com, whatever variables of
emulators say. Its libcurl goes through `https_proxy` and trusts `CURL_CA_BUNDLE`. So this is a
proxy on loopback which says that it is those hosts, by a certificate of its own.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import os
import pathlib
import re
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from typing import Any

import pytest

emulator = pytest.importorskip(
    "gcp_storage_emulator.server", reason="gcp-storage-emulator is not installed"
)
pytest.importorskip("cryptography", reason="cryptography is not installed")

BUCKET = "sa1b-bucket"
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
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return chain, private


class _Request(emulator.Request):
    """The emulator's request, where a body may be empty, and of https."""

    def __init__(self, request_handler, method):
        super().__init__(request_handler, method)
        self._base_url = self._base_url.replace("http:", "https:", 1)
        self._full_url = self._base_url + self._path

    @property
    def data(self):
        return super().data or b""


emulator.Request = _Request


class _Handler(emulator.RequestHandler):
    """The emulator's handler, behind a proxy's CONNECT and TLS."""

    protocol_version = "HTTP/1.1"

    def do_CONNECT(self) -> None:
        if self.path.partition(":")[0] not in _HOSTS:
            self.send_error(403)
            return
        self.send_response_only(200)
        self.end_headers()
        self.request = self.server.tls.wrap_socket(self.connection, server_side=True)
        self.setup()
        self.close_connection = False

    def parse_request(self):
        ok = super().parse_request()
        if ok and self.command != "CONNECT":
            if self.headers.get("Transfer-Encoding") == "chunked":
                del self.headers["Content-Length"]
            self.server.requests.append(f"{self.command} {self.path} {self.headers.get('Range')} {self.headers.get('Content-Range')} {self.headers.get('Content-Length')}")
        return ok

    def send_response(self, code, message=None):
        super().send_response(code, message)
        self.server.requests.append(f"   -> {code}")


class Server:
    def __init__(self, folder: pathlib.Path):
        from gcp_storage_emulator.handlers import buckets
        from gcp_storage_emulator.storage import Storage
        chain, private = _write_certificate(folder)
        self.storage = Storage(use_memory_fs=True)
        buckets.create_bucket(BUCKET, self.storage)
        self.httpd = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Handler, self.storage))
        self.httpd.requests = self.requests = []
        self.httpd.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.httpd.tls.load_cert_chain(chain, private)
        self.thread = threading.Thread(target=self.httpd.serve_forever)
        self.thread.start()
        address = "http://127.0.0.1:%d" % self.httpd.server_port
        self.environment = {**os.environ, "https_proxy": address, "http_proxy": address, "CURL_CA_BUNDLE": str(chain), "NO_GCE_CHECK": "true", "TF_CPP_MIN_LOG_LEVEL":"0"}
    def stop(self):
        self.httpd.shutdown()
        self.httpd.server_close()
        self.thread.join()
