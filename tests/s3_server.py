"""moto's server of s3:// on loopback, with a bucket: what tests of object stores talk to."""

from __future__ import annotations

import contextlib
import logging
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

moto_server = pytest.importorskip("moto.server", reason="moto is not installed")
boto3 = pytest.importorskip("boto3", reason="boto3 is not installed")
pytest.importorskip("s3fs", reason="s3fs is not installed: pip install 'sa1b_tfds[s3]'")

KEY, SECRET = "a-key-of-the-test", "a-secret-of-the-test"
BUCKET = "sa1b-bucket"


class Get(NamedTuple):
    """A GET that was answered: which object, and how many bytes the answer has."""

    key: str
    bytes: int


class Server:
    """The server, which serves from the start.

    environment: of a process that is to reach it.
    requests: the lines that it has logged, one for each request.
    on_request: receives each line, in the thread that has answered the request.
    gets: the objects that it has sent, or parts of them.
    most: if set, no answer to a GET has more bytes, as if the object became shorter.
    client: boto3's.
    """

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.on_request: Callable[[str], None] = lambda line: None
        self.gets: list[Get] = []
        self.most: int | None = None
        self._handler = logging.Handler()
        self._handler.emit = self._note  # type: ignore[method-assign]
        logger = logging.getLogger("werkzeug")
        logger.addHandler(self._handler)
        logger.setLevel(logging.INFO)
        self._server = self._started(port=0)
        self._port = self._server.get_host_and_port()[1]
        address = f"http://127.0.0.1:{self._port}"
        self.environment = {
            **os.environ,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": address,
            "PYTHONPATH": str(pathlib.Path(__file__).parents[1]),
        }
        self.client = boto3.client(
            "s3",
            endpoint_url=address,
            region_name="us-east-1",
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
        )
        self.client.create_bucket(Bucket=BUCKET)

    def _note(self, record: logging.LogRecord) -> None:
        line = record.getMessage()
        self.requests.append(line)
        self.on_request(line)

    def _counted(self, app: Any) -> Any:
        """The server's WSGI application, with its GETs counted."""

        def counted(environ: dict[str, Any], start_response: Any) -> Any:
            answered: list[Any] = []
            body = app(environ, lambda *answer: answered.append(answer))
            if environ["REQUEST_METHOD"] == "GET":
                body = [b"".join(body)[: self.most]]
                key = environ["PATH_INFO"].removeprefix(f"/{BUCKET}/")
                status, headers, *rest = answered[0]
                if status.startswith("20") and key:
                    self.gets.append(Get(key, len(body[0])))
                headers = [each for each in headers if each[0].lower() != "content-length"]
                answered[0] = (status, [*headers, ("Content-Length", str(len(body[0])))], *rest)
            start_response(*answered[0])
            return body

        return counted

    def upload(self, path: pathlib.Path, key: str) -> None:
        self.client.upload_file(str(path), BUCKET, key)

    def run(self, code: str, *arguments: Any, **environment: str) -> subprocess.CompletedProcess:
        """Runs Python code in a process that reaches the server."""
        command = [sys.executable, "-c", code, *map(str, arguments)]
        return subprocess.run(
            command,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    def pause(self) -> None:
        """Stops serving; what is in the bucket stays."""
        self._server.stop()

    def go_on(self) -> None:
        self._server = self._started(self._port)

    def _started(self, port: int) -> Any:
        server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
        server.start()
        inner = server._server
        inner.app = self._counted(inner.app)
        return server

    def stop(self) -> None:
        self._server.stop()
        logging.getLogger("werkzeug").removeHandler(self._handler)


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    server = Server()
    try:
        yield server
    finally:
        server.stop()
