"""What a server's answer means: the file or a part of it, an expired link, or a reason to wait.

The text of every error here is safe to show.
"""

from __future__ import annotations

import dataclasses
import email.utils
import html
import re
import time
from collections.abc import Mapping
from datetime import datetime, timezone

import urllib3

from sa1b_tfds.download.secrets import Secrets
from sa1b_tfds.download.transfer.attempts import Pace

# Of a page that comes with an error: tags, and what no browser shows.
_MARKUP = re.compile(r"<(style|script)\b.*?(</\1>|\Z)|<[^>]*>?", re.DOTALL | re.IGNORECASE)
_UNAUTHORIZED, _FORBIDDEN, _GONE = 401, 403, 410
_SAYS_EXPIRED = re.compile(r"expir", re.IGNORECASE)  # 'URL signature expired' is Meta's
_WORTH_A_RETRY = frozenset((408, 425, 429))
_SAYS_WHEN = frozenset((429, 503))
_LONGEST_WAIT_S = 3600.0
MOST_SAID = 60  # characters of what a server says, in a message
# Numbers of at most 13 digits, which is 10 TB: longer ones are no sizes, and int() refuses the
# longest.
_NUMBER = re.compile(r"[0-9]{1,13}")
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,13})-([0-9]{1,13})/([0-9]{1,13}|\*)")
_CONTENT_RANGE_416 = re.compile(r"bytes \*/([0-9]{1,13})")
OTHER_RANGE = "the server answered with another range than asked for"


class TransferError(Exception):
    """A transfer that did not work; the message is safe to show."""


class TryAgain(TransferError):
    """May work if asked again, after `wait` seconds where the server (or we) say how long."""

    def __init__(self, message: str, *, wait: float | None = None):
        super().__init__(message)
        self.wait = wait


class TooSlow(TryAgain):
    """The body came slower than the lowest speed."""


class LinkExpired(TransferError):
    """The link is no longer accepted; only a fresh links file helps."""


class Refused(TransferError):
    """Asking again gives the same answer."""


class Stopped(TransferError):
    """The run was stopped."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a server answered, its body unread; `Transport.read` reads that.

    Attributes:
      status: of the answer.
      headers: as they came. Nothing of them is shown or stored but what `kept` gives.
      secrets: of the request.
      expires: when the link expires, as far as it says that.
    """

    response: urllib3.BaseHTTPResponse
    secrets: Secrets
    expires: datetime | None
    pace: Pace

    @property
    def status(self) -> int:
        return self.response.status

    @property
    def headers(self) -> Mapping[str, str]:
        return self.response.headers

    @property
    def is_past(self) -> bool:
        """Whether the link has expired, by the time in it."""
        return self.expires is not None and self.expires <= datetime.now(timezone.utc)

    def kept(self, header: str) -> str | None:
        """A header's value that may be stored; None where there is none, or a secret is in it."""
        return self.secrets.keep(self.headers.get(header))


def content_length(answer: Answer) -> int | None:
    """Bytes of the body, None where the server does not say.

    Raises:
      TryAgain: if the server says what no file has.
    """
    length = answer.headers.get("Content-Length", "")
    if _NUMBER.fullmatch(length):
        return int(length)
    if length.isdecimal():
        raise TryAgain(f"the server says a length of {len(length):,} digits")
    return None


def total_of_range(answer: Answer, start: int) -> int | None:
    """The whole file's size from an answer 206, None where it says none.

    Raises:
      TryAgain: if the answer does not begin at `start`.
    """
    found = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", "").strip())
    if not found or int(found[1]) != start:
        raise TryAgain(OTHER_RANGE)
    return None if found[3] == "*" else int(found[3])


def total_of_416(answer: Answer) -> int | None:
    """The whole file's size from an answer 416, None where it says none."""
    found = _CONTENT_RANGE_416.fullmatch(answer.headers.get("Content-Range", "").strip())
    return int(found[1]) if found else None


def refuse_other_content(answer: Answer) -> None:
    """Raises Refused if the body is not the file as it is."""
    if answer.headers.get("Content-Type", "").lower().startswith("text/html"):
        # A proxy's login page must not be taken for gigabytes of a tar.
        raise Refused(
            "the server sent a web page instead of the file (a login page of the network?)"
        )
    if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Refused("the server compressed the file although asked not to")


def failure_of(answer: Answer, body: bytes) -> TransferError:
    """What an answer means that is not the file; `body` is the beginning of what came with it."""
    response, secrets = answer.response, answer.secrets
    # Before the markup goes, as a secret may look like it; and after that, as it may hide one.
    text = html.unescape(_MARKUP.sub(" ", secrets.mask(body.decode("utf-8", "replace"))))
    said = secrets.clean(text) or secrets.clean(response.reason or "") or "no reason given"
    status = answer.status
    message = f"HTTP {status} ({said[:MOST_SAID].strip()})"
    if status == _GONE:
        return LinkExpired(message)
    if status in (_UNAUTHORIZED, _FORBIDDEN):
        # What has expired by a 401 is a token.
        if answer.is_past or (status == _FORBIDDEN and _SAYS_EXPIRED.search(said)):
            return LinkExpired(message)
        return Refused(
            f"{message}: the server refuses access. A mirror may want a token, or another one:"
            " --header 'Authorization: Bearer TOKEN'. If the link is Meta's, save a fresh links"
            " file"
        )
    if status in _WORTH_A_RETRY or status >= 500:
        wait = _retry_after(response) if status in _SAYS_WHEN else None
        if wait is not None and wait > _LONGEST_WAIT_S:
            return Refused(f"{message}: the server asks to wait {wait:.0f} s; come back then")
        return TryAgain(message, wait=wait)
    return Refused(message)


def _retry_after(response: urllib3.BaseHTTPResponse) -> float | None:
    """Seconds from a Retry-After header, which holds seconds or a date."""
    value = response.headers.get("Retry-After", "").strip()
    if value.isdecimal():
        return float(value) if _NUMBER.fullmatch(value) else None
    try:
        date = email.utils.parsedate_to_datetime(value).timestamp()
    except (TypeError, ValueError, OverflowError, IndexError):
        return None
    return max(0.0, date - time.time())
