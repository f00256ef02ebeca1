"""One HTTP request for a signed link: proxy, redirects, secret headers.

`answers.py` says what an answer means.

Every failure leaves here as a `TransferError` whose text is safe to show, and without a `__cause__`
or `__context__`: the exceptions of the libraries below quote whole URLs. That is why an error is
raised after its `except` block and not inside it.
"""

from __future__ import annotations

import contextlib
import http.client
import logging
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from urllib.parse import urljoin, urlsplit

import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    LocationParseError,
    NewConnectionError,
    ReadTimeoutError,
)

from sa1b_tfds.core.text import format_bytes
from sa1b_tfds.download.links import SignedUrl
from sa1b_tfds.download.secrets import Secrets
from sa1b_tfds.download.transfer.answers import (
    MOST_SAID,
    Answer,
    Refused,
    Stopped,
    TooSlow,
    TransferError,
    TryAgain,
    failure_of,
)
from sa1b_tfds.download.transfer.attempts import Pace

# A read of 256 KiB costs as little CPU a byte as larger ones (benchmarks/download.py) and keeps 16
# workers at 4 MiB.
READ_BYTES = 1 << 18

_REDIRECTS = frozenset((301, 302, 303, 307, 308))
_MAX_REDIRECTS = 5
_LOGS = ("connection", "connectionpool", "poolmanager", "response", "util.retry")
_NETWORK_ERRORS = (HTTPError, http.client.HTTPException, OSError, ValueError)


class Transport:
    """HTTP for `connections` threads at once.

    Args:
      connections: how many threads use it.
      timeout: seconds without a byte after which a connection counts as lost.
      speed_limit: bytes a second; so does one that is slower for `speed_time` seconds.
      proxy: URL of an http(s) proxy; without it the usual environment variables decide.
      headers: sent to the link's own host only, never to another one it redirects to.
    """

    def __init__(
        self,
        *,
        connections: int,
        timeout: float,
        speed_limit: float = 0.0,
        speed_time: float = 60.0,
        proxy: str | None = None,
        headers: Mapping[str, str] | None = None,
    ):
        self._connections = connections
        self._timeout = timeout
        self._speed_limit = speed_limit
        self._speed_time = speed_time
        self._proxy = proxy
        self._headers = dict(headers or {})
        self._pools: dict[str | None, urllib3.PoolManager] = {}
        self._running: set[urllib3.BaseHTTPResponse] = set()
        self._lock = threading.Lock()
        self._aborted = False

    @contextlib.contextmanager
    def get(self, url: SignedUrl, extra: Mapping[str, str]) -> Iterator[Answer]:
        """The answer to a GET, its body unread: status 200, 206 or 416.

        Raises:
          LinkExpired: 410; 401 or 403 to a link whose time is past; 403 with a word of that.
          TryAgain: no connection, or a status that passes (408, 429, 5xx).
          Refused: any other status, or a redirect that is not followed.
        """
        answer = self._follow(url, extra)
        response = answer.response
        with self._lock:
            self._running.add(response)
            aborted = self._aborted
        try:
            if aborted:
                raise Stopped("stopped")
            if answer.status not in (200, 206, 416):
                body = b""
                with contextlib.suppress(TransferError):
                    body = self.read(answer, 512)
                raise failure_of(answer, body)
            yield answer
        finally:
            with self._lock:
                self._running.discard(response)
            # An unread body must not come back as the next answer's first bytes.
            response.close()

    def read(self, answer: Answer, count: int = READ_BYTES) -> bytes:
        """What has arrived of the body, at most `count` bytes, b"" at its end.

        Raises:
          TryAgain: the connection was lost, has stalled, or is too slow.
        """
        began = time.monotonic()
        failure = None
        try:
            chunk = answer.response.read1(count, decode_content=False)
        except _NETWORK_ERRORS as error:
            failure = self._explain(error, answer.secrets)
        if failure is not None:
            raise failure
        if answer.pace.is_too_slow(len(chunk), time.monotonic() - began):
            speed = f"{format_bytes(self._speed_limit)}/s"
            raise TooSlow(f"less than {speed} for {self._speed_time:g} s")
        return chunk

    def abort(self) -> None:
        """Ends every read that is waiting for bytes, now and from now on."""
        with self._lock:
            self._aborted = True
            running = list(self._running)
        for response in running:
            with contextlib.suppress(OSError, ValueError, RuntimeError, AttributeError):
                response.shutdown()

    def close(self) -> None:
        for pool in self._pools.values():
            pool.clear()

    def secrets_of(self, url: SignedUrl) -> Secrets:
        """What of a link, and of what is sent to it, must not be shown."""
        return Secrets([url], self._headers, self._proxy or _proxy_from_environment(url))

    def _follow(self, url: SignedUrl, extra: Mapping[str, str]) -> Answer:
        origin = url.origin
        expires = url.expires
        host = url.host  # of the link: that of a redirect is the server's text
        secrets = self.secrets_of(url)
        for _ in range(_MAX_REDIRECTS + 1):
            own = self._headers if url.origin == origin else {}
            headers = {**own, **extra, "Accept-Encoding": "identity"}
            response = self._request(url, headers, secrets)
            if response.status not in _REDIRECTS:
                pace = Pace(self._speed_limit, self._speed_time)
                return Answer(response, secrets, expires, pace)
            target = response.headers.get("Location", "")
            response.close()
            url = _redirected(url, target, host)
            secrets = secrets.and_of(url)
        raise Refused(f"{host}: more than {_MAX_REDIRECTS} redirects")

    def _request(
        self, url: SignedUrl, headers: Mapping[str, str], secrets: Secrets
    ) -> urllib3.BaseHTTPResponse:
        try:
            with _clean_log(secrets):
                return self._pool_for(url).request(
                    "GET",
                    url.reveal(),
                    headers={"User-Agent": "sa1b_tfds", **headers},
                    retries=False,
                    redirect=False,
                    preload_content=False,
                    decode_content=False,
                )
        except _NETWORK_ERRORS as error:
            failure = self._explain(error, secrets)
        raise failure

    def _pool_for(self, url: SignedUrl) -> urllib3.PoolManager:
        proxy = self._proxy or _proxy_from_environment(url)
        with self._lock:
            if proxy not in self._pools:
                self._pools[proxy] = self._new_pool(proxy)
            return self._pools[proxy]

    def _new_pool(self, proxy: str | None) -> urllib3.PoolManager:
        timeout = urllib3.Timeout(connect=min(self._timeout, 30.0), read=self._timeout)
        if proxy is None:
            return urllib3.PoolManager(maxsize=self._connections, timeout=timeout)
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        credentials = None
        if parts.username:
            credentials = f"{parts.username}:{parts.password or ''}"
        return urllib3.ProxyManager(
            f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}",
            maxsize=self._connections,
            timeout=timeout,
            proxy_headers=urllib3.make_headers(proxy_basic_auth=credentials),
        )

    def _explain(self, error: Exception, secrets: Secrets) -> TransferError:
        if isinstance(error, NewConnectionError):  # which is a ConnectTimeoutError as well
            why = getattr(error.__cause__, "strerror", None) or str(error)
            return TryAgain(f"no connection: {secrets.clean(why)}")
        if isinstance(error, ConnectTimeoutError):
            return TryAgain("no connection: the host did not answer")
        if isinstance(error, ReadTimeoutError):
            return TryAgain(f"no byte for {self._timeout:g} s")
        if isinstance(error, LocationParseError):
            return Refused("the link cannot be parsed")
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            return Refused(
                "the host's certificate is not trusted here (a proxy that inspects traffic? then "
                "point SSL_CERT_FILE at its certificate)"
            )
        # A ProtocolError holds the error below it as a second argument; its first is the sentence.
        said = str(error.args[0]) if error.args else type(error).__name__
        return TryAgain(f"connection lost ({secrets.clean(said)[:MOST_SAID]})")


def _redirected(url: SignedUrl, location: str, host: str | None = None) -> SignedUrl:
    """Where a redirect leads; `host` is the one to name if that is refused."""
    host = host or url.host
    refusal = f"{host} redirects to something that is not an http or https link"
    try:
        target = SignedUrl(urljoin(url.reveal(), location))
    except ValueError:
        target = None
    if target is None:
        raise Refused(refusal)
    if url.origin[0] == "https" and target.origin[0] == "http":
        raise Refused(f"{host} redirects from https to unencrypted http; not followed")
    return target


def _proxy_from_environment(url: SignedUrl) -> str | None:
    if urllib.request.proxy_bypass(url.host):
        return None
    return urllib.request.getproxies().get(url.origin[0])


class _CleanLog(logging.Filter):
    def __init__(self, secrets: Secrets):
        super().__init__()
        self._secrets = secrets

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = self._secrets.clean(record.getMessage()), ()
        record.exc_info = record.exc_text = None
        return True


@contextlib.contextmanager
def _clean_log(secrets: Secrets) -> Iterator[None]:
    """urllib3 logs whole request lines at level DEBUG, and links of odd answers as warnings."""
    clean = _CleanLog(secrets)
    logs = [logging.getLogger(f"urllib3.{name}") for name in _LOGS]
    for log in logs:
        log.addFilter(clean)
    try:
        yield
    finally:
        for log in logs:
            log.removeFilter(clean)
