"""Tars on loopback, as the official builder of TFDS wants them."""

from __future__ import annotations

import contextlib
import functools
import http.server
import pathlib
import threading
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def served(tars: pathlib.Path) -> Iterator[pathlib.Path]:
    """A folder with the links file that the official builder wants, its tars on loopback."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments: Any) -> None:
            pass

    handler = functools.partial(Handler, directory=str(tars))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    links = tars.parent / "links"
    links.mkdir()
    lines = ["file_name\tcdn_link"]
    for tar in sorted(tars.iterdir()):
        lines.append(f"{tar.name}\thttp://127.0.0.1:{server.server_port}/{tar.name}")
    (links / "segment_anything_links.txt").write_text("\n".join(lines) + "\n")
    try:
        yield links
    finally:
        server.shutdown()
