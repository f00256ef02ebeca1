"""No secret of a link, a header or a proxy shows, whatever part of an answer echoes it."""

import base64
import contextlib
import io
import logging
import socket
import tempfile
import threading
import traceback
from pathlib import Path
from urllib.parse import quote, unquote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import sa1b_tfds
from sa1b_tfds.cli.main import main
from sa1b_tfds.core.problems import BadInput, Problems
from sa1b_tfds.download import tar_stream
from sa1b_tfds.download.links import Link, SignedUrl, redact
from sa1b_tfds.download.secrets import Secrets
from sa1b_tfds.download.transfer.answers import TransferError
from sa1b_tfds.download.transfer.settings import TransferConfig
from tests.messages import texts_of

NAME = "sa_000000.tar"
CONTROL = "\x1b[31m\x9b\x07\x7f"
HEAD = "HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n"
FAR = "HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: "


class Server:
    answer = b""
    port = 0


@contextlib.contextmanager
def serve():
    """A server that gives each request its `answer`, whatever that is."""
    server = Server()
    listener = socket.create_server(("127.0.0.1", 0))

    def work():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                connection.settimeout(5)
                received = b""
                while b"\r\n\r\n" not in received and (part := connection.recv(65536)):
                    received += part
                connection.sendall(server.answer)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    server.port = listener.getsockname()[1]
    try:
        yield server
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)


# What a server may say, with %s where it echoes.
PARTS = {
    "reason of a 400": "HTTP/1.1 400 %s\r\nContent-Length: 0\r\n\r\n",
    "reason of a 500": "HTTP/1.1 500 %s\r\nContent-Length: 0\r\n\r\n",
    "body of a 403": "HTTP/1.1 403 No\r\nConnection: close\r\n\r\n%s",
    "body of a 404": "HTTP/1.1 404 No\r\nConnection: close\r\n\r\n<b title='%s'>no</b> %s",
    "body of a 200": "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n%s",
    "ETag": HEAD + 'ETag: "%s"\r\n\r\n',
    "Last-Modified": HEAD + "Last-Modified: %s\r\n\r\n",
    "both": HEAD + 'ETag: "%s"\r\nLast-Modified: %s\r\n\r\nsome bytes of it',
    "name of a header": HEAD + "%s: 1\r\n\r\n",
    "no header at all": HEAD + "%s\r\n\r\n",
    "status line": "%s\r\n\r\n",
    "Content-Range": "HTTP/1.1 206 OK\r\nContent-Range: %s\r\n\r\n",
    "chunk's length": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%s\r\n",
    "redirect to a path": FAR + "/%s\r\n\r\n",
    "redirect to a host": FAR + "http://%s.invalid/a\r\n\r\n",
    "redirect to no link": FAR + "gopher://%s\r\n\r\n",
    "Retry-After": "HTTP/1.1 503 No\r\nRetry-After: %s\r\nContent-Length: 0\r\n\r\n",
}
# Characters that a link may hold, of which some end a URL in other texts.
SECRET = st.text(
    "abcdefghijkLMNOP0123456789-_.~'\"<>()!*,;%/+=:@$", min_size=12, max_size=40
).filter(lambda text: len(set(text)) > 5)
FORMS = {
    "as it is": lambda s: s,
    "encoded": lambda s: quote(s, safe=""),
    "decoded": unquote,
    "partly encoded": lambda s: s[:7] + quote(s[7:], safe="=~"),
    "cut": lambda s: s[: len(s) - 3],
    "in capitals": str.upper,
    "with control characters": lambda s: CONTROL + s + CONTROL,
}


# How a secret gets to a server, with its value as it is sent there.
PLACES = ("path", "query", "header", "proxy")


def request_of(place, secret, port):
    """The link, the command's options, and the secret as the server receives it."""
    if place == "path":
        sent = quote(secret, safe="'\"<>()!*,;=:@$+~")
        return f"http://127.0.0.1:{port}/{sent}/{NAME}?more=1", [], sent
    if place == "query":
        sent = quote(secret, safe="'\"<>()!*,;=:@$+~/")
        return f"http://127.0.0.1:{port}/v/{NAME}?sig={sent}&more=1", [], sent
    url = f"http://127.0.0.1:{port}/v/{NAME}?more=1"
    if place == "header":
        return url, ["--header", f"Authorization: Bearer {secret}"], secret
    user = f"user:{quote(secret, safe='')}"
    sent = base64.b64encode(user.encode()).decode()
    return url, ["--proxy", f"http://{user}@127.0.0.1:{port}"], sent


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(list(PARTS)), st.sampled_from(list(FORMS)), st.sampled_from(PLACES), SECRET)
@example("reason of a 400", "with control characters", "query", "0123456789abcdef")
@example("body of a 404", "as it is", "query", "abcd<efgh>ijkl'mn")
@example("ETag", "as it is", "query", "0123456789abcdef")
@example("no header at all", "as it is", "path", "0123456789abcdef")
@example("name of a header", "as it is", "header", "0123456789abcdef")
@example("body of a 200", "as it is", "query", "0123456789abcdef")
def test_no_echo_of_a_secret_is_shown_or_stored(part, form, place, secret):
    with serve() as server:
        url, options, sent = request_of(place, secret, server.port)
        said = FORMS[form](sent)
        server.answer = PARTS[part].replace("%s", said).encode()
        with watched() as shown:
            run(url, options, shown)
    for where, text in shown.items():
        for piece in {secret, sent, said, unquote(sent)}:
            assert piece[:8].lower() not in text.lower(), f"{where}: {text}"
            for at in range(len(piece) - 12 + 1):
                assert piece[at : at + 12].lower() not in text.lower(), f"{where}: {text}"
        assert "\x1b[31m" not in text, where
        assert "\x9b" not in text, where


@contextlib.contextmanager
def watched():
    """Yields a dict that has, at the end, what was printed and logged."""
    shown, log = {}, io.StringIO()
    handler = logging.StreamHandler(log)
    logger = logging.getLogger()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        with (
            contextlib.redirect_stdout(io.StringIO()) as out,
            contextlib.redirect_stderr(io.StringIO()) as err,
        ):
            yield shown
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    shown |= {"stdout": out.getvalue(), "stderr": err.getvalue(), "log": log.getvalue()}


def run(url, options, shown):
    """Downloads and streams from the link; what files and errors say goes to `shown`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "links.txt").write_text(f"{NAME}\t{url}\n")
        (folder / "md5.txt").write_text("")
        command = ["download", "--links-file", folder / "links.txt", "--output-dir", folder / "out"]
        command += ["--md5-file", folder / "md5.txt", "--retries", "0", "--timeout", "5", *options]
        main([str(word) for word in command])
        main([str(word) for word in [*command, "--json"]])
        state_files = [path for path in (folder / "out").iterdir() if path.suffix == ".json"]
        shown["state_files"] = "".join(path.read_text() for path in state_files)
    if options:  # which a stream does not have, so that no server can echo them
        return
    try:
        list(tar_stream.stream_link(Link(name=NAME, url=SignedUrl(url)), Problems()))
    except (TransferError, BadInput) as error:
        shown["exception"] = "".join(traceback.format_exception(error))


@pytest.fixture(autouse=True, scope="module")
def no_retries():
    before = tar_stream.TransferConfig
    tar_stream.TransferConfig = lambda: TransferConfig(retries=0, timeout=5)
    yield
    tar_stream.TransferConfig = before


@pytest.mark.parametrize("sign", ["'", '"', "<", ">", "%27"])
def test_a_link_with_any_sign_shows_only_its_host(sign):
    url = f"https://u:pw{sign}word@cdn.example:8443/v{sign}path/a.tar?oh=a{sign}signature"

    for shown in (repr(SignedUrl(url)), redact(url.replace(f"v{sign}path", "path"))):
        assert shown == "https://cdn.example:8443/..."


def test_our_own_messages_pass_as_they_are():
    texts = texts_of(Path(sa1b_tfds.__file__).parent)
    texts = [t for t in texts if " " in t and "(?" not in t and r"\S" not in t]  # no patterns
    assert any("a login page of the network?" in text for text in texts)
    for text in texts:
        assert redact(text) == text


def test_names_in_a_tar_cannot_steer_a_terminal():
    problem = BadInput("a.tar", "sa_1\x1b[31m.jpg", "it holds\x9b a\u202e name\nof two lines")

    assert problem.member == "sa_1 [31m.jpg"
    assert str(problem) == "a.tar: sa_1 [31m.jpg: it holds a name of two lines"


def test_a_page_of_an_error_is_read_as_a_person_sees_it():
    secrets = Secrets(
        [SignedUrl("https://cdn.example/v/path-of-it/sa_000001.tar?a=1&sig=secret12")]
    )

    for text in ("no such secret12 in path-of-it", "no such SECRET%312 in path%2Dof-it"):
        assert secrets.clean(text) == "no such ... in ..."
    assert (
        secrets.clean("sa_000001.tar at cdn.example is a=1")
        == "sa_000001.tar at cdn.example is a=1"
    )
    assert secrets.keep('"5e-1"') == '"5e-1"'
    assert secrets.keep('"5e-secret12"') is secrets.keep("a\tb") is secrets.keep(None) is None
