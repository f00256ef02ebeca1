"""The secrets of a request, and how text from outside is freed of them before it is shown or kept.

Every text that a server, a proxy or a library below gives goes through `Secrets.clean`. It replaces
the secrets themselves, which are known here; the patterns of `links.redact` are the second net.
"""

from __future__ import annotations

import base64
import binascii
import functools
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from urllib.parse import unquote, unquote_plus, urlsplit

from sa1b_tfds.core.text import printable
from sa1b_tfds.download.links import SignedUrl, redact
from sa1b_tfds.tars.names import tar_number

_MASK = "..."
_SHORTEST = 4  # a shorter value is in every text
# An echo may be cut: so many characters of a secret in a row are hidden as well, and so many of its
# beginning. Fewer could be a word.
_PIECE = 12
_BEGINNING = 8
# One character of a secret may be written as it is, percent-encoded, or after a backslash.
_CHARACTER = re.compile(r"\\?(%[0-9A-Fa-f]{2}|.)", re.DOTALL)
_LOWER = {code: chr(code).lower() for code in range(128)} | {ord(" "): "+"}


class Secrets:
    """What must not be shown of some requests.

    Args:
      urls: their links, with those they were redirected to. Their hosts, and a tar's name, may be
        shown; the paths, the values in the queries and passwords may not.
      headers: whose values are secret.
      proxy: URL of the proxy, for its password.
    """

    def __init__(
        self,
        urls: Iterable[SignedUrl],
        headers: Mapping[str, str] | None = None,
        proxy: str | None = None,
    ):
        self._urls = tuple(urls)
        self._headers = dict(headers or {})
        self._proxy = proxy

    def and_of(self, url: SignedUrl) -> Secrets:
        """These, and those of another link."""
        return Secrets((*self._urls, url), self._headers, self._proxy)

    def clean(self, text: str) -> str:
        """`text` in one line, without secrets, URLs and characters that steer a terminal."""
        return redact(printable(self.mask(text)))

    def mask(self, text: str) -> str:
        """`text` with the secrets replaced by dots, and nothing else."""
        hidden = self._hidden(text)
        groups = itertools.groupby(zip(text, hidden, strict=True), key=lambda pair: pair[1])
        return "".join(_MASK if hide else "".join(c for c, _ in group) for hide, group in groups)

    def keep(self, text: str | None) -> str | None:
        """`text` if it may be stored: None if a secret or a control character is in it."""
        if text is None or not text.isprintable() or any(self._hidden(text)):
            return None
        return text

    def _hidden(self, text: str) -> list[bool]:
        """Of each character, whether it is a part of a secret."""
        hidden = [False] * len(text)
        for read in (_as_it_is, _decoded):
            characters, ends = read(text)
            for length, pieces in self._pieces.items():
                for at in range(len(characters) - length + 1):
                    if characters[at : at + length] in pieces:
                        first, last = ends[at], ends[at + length]
                        hidden[first:last] = [True] * (last - first)
        return hidden

    @functools.cached_property
    def _pieces(self) -> Mapping[int, set[str]]:
        """What is looked for, by its length."""
        pieces: dict[int, set[str]] = {}
        for secret in self._texts():
            for form in {secret, unquote(secret), unquote_plus(secret)}:
                for text in {_as_it_is(form)[0], _decoded(form)[0]}:
                    length = min(_PIECE, len(text))
                    if length >= _SHORTEST:
                        found = pieces.setdefault(length, set())
                        found.update(text[i : i + length] for i in range(len(text) - length + 1))
                        for beginning in range(_BEGINNING, length):
                            pieces.setdefault(beginning, set()).add(text[:beginning])
        return pieces

    def _texts(self) -> Iterator[str]:
        for url in self._urls:
            parts = urlsplit(url.reveal())
            folders, _, name = parts.path.rpartition("/")
            yield from folders.split("/")
            if tar_number(name) is None:
                yield name
            for field in re.split("[&;]", parts.query):
                key, has_value, value = field.partition("=")
                yield value if has_value else key
            yield parts.fragment
            yield parts.username or ""
            yield parts.password or ""
        for value in self._headers.values():
            yield from (value, *value.split())
            yield from _credentials(value.split())
        if self._proxy and (password := urlsplit(self._proxy).password):
            user_and_password = urlsplit(self._proxy).netloc.rpartition("@")[0]
            yield from (password, base64.b64encode(user_and_password.encode()).decode())


def _credentials(words: Sequence[str]) -> Iterator[str]:
    """User and password that a header of Basic authentication holds."""
    if len(words) == 2 and words[0].lower() == "basic":
        try:
            decoded = base64.b64decode(words[1], validate=True).decode("utf-8", "replace")
        except (binascii.Error, ValueError):
            return
        yield from decoded.split(":", 1)


def _as_it_is(text: str) -> tuple[str, Sequence[int]]:
    """The text to compare, and where each of its characters is, and ends, in the given one."""
    return text.translate(_LOWER), range(len(text) + 1)


def _decoded(text: str) -> tuple[str, Sequence[int]]:
    """The same of the text that is percent-encoded, or has backslashes, in any of its places."""
    found = list(_CHARACTER.finditer(text))
    characters = [chr(int(m[1][1:], 16)) if len(m[1]) == 3 else m[1] for m in found]
    places = [m.start() for m in found]
    return "".join(characters).translate(_LOWER), [*places, len(text)]
