"""The links file: tar names and their signed links. Reads and selects; opens no connection.

Meta's file is a TSV with the header `file_name<TAB>cdn_link`. Its links carry a signature that
expires, and that is a secret while it lasts: a link is held as a `SignedUrl`, which shows only its
host. `secrets.py` keeps it out of text that comes from elsewhere.

The file lists more than SA-1B's tars: the image ids, and tars of other datasets.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from urllib.parse import urlsplit

from sa1b_tfds.core.text import counted, first_few
from sa1b_tfds.tars.names import is_other_dataset, is_sa1b_name, tar_name, tar_number

LINKS_PAGE = "https://ai.meta.com/datasets/segment-anything-downloads/"
LINKS_FILE_NAMES = ("segment_anything_links.txt", "sa1b_links.txt")
IDS_NAME = "sa_images_ids.txt"

# A name becomes a file in the output folder, so it may not be a path, an option or a hidden file.
_SAFE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")
_URL = re.compile(
    r"(?P<site>https?://)(?P<user>[^\s/@]*@)?(?P<host>[^\s/?#'\"<>]+)"
    r"(?P<path>[^\s'\"<>?]*(?:\?\S*)?)",
    re.IGNORECASE,
)
_QUERY = re.compile(r"(?:/[^\s'\"<>?]*)?\?[^\s=?]+=\S+")
_AMPERSAND = re.compile(r"&(?:amp;)+|&#38;|&#x26;", re.IGNORECASE)  # in what a browser saved
_EXPIRY = re.compile(r"(?:^|&)oe=([0-9A-Fa-f]{8})(?:&|$)")
_FIRST_EXPIRY = 0x5E0BE100  # 2020: SA-1B is younger, so an `oe` before that is not a time


class LinksError(ValueError):
    """A links file that cannot be read; the message has its name and the line's number."""


def redact(text: str) -> str:
    """`text` with every URL cut to its host, and other paths with a query string removed.

    The second net: it finds what looks like a link. Where the link is known, `Secrets` finds it.
    """
    text = _URL.sub(_without_path, text)
    return _QUERY.sub("...?...", text)


def _without_path(url: re.Match[str]) -> str:
    is_links_page = url[0].rstrip(".,;:)") == LINKS_PAGE  # where links come from: no secret
    if is_links_page or not (url["user"] or url["path"]):
        return url[0]
    return f"{url['site']}{url['host']}/..."


class SignedUrl:
    """A link whose path and signature are secrets: only `reveal()` gives them away."""

    __slots__ = ("_url",)

    def __init__(self, url: str):
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("not an http or https link with a host")
        _ = parts.port  # raises ValueError where the port is no number
        if not url.isascii() or not url.isprintable() or " " in url:
            raise ValueError("a link holds a character that no link may hold")
        self._url = url

    def reveal(self) -> str:
        """The link itself. Pass it on, never keep or print it."""
        return self._url

    @property
    def host(self) -> str:
        return urlsplit(self._url).hostname or ""

    @property
    def origin(self) -> tuple[str, str, int]:
        """Scheme, host and port: what a secret header is bound to."""
        parts = urlsplit(self._url)
        default_port = 443 if parts.scheme == "https" else 80
        return parts.scheme, parts.hostname or "", parts.port or default_port

    @property
    def expires(self) -> datetime | None:
        """When the link expires, in UTC: `oe` in its query, in hexadecimal Unix time.

        None if the link does not say. The server decides, whatever the link says.
        """
        found = _EXPIRY.search(urlsplit(self._url).query)
        seconds = int(found[1], 16) if found else 0
        return datetime.fromtimestamp(seconds, timezone.utc) if seconds >= _FIRST_EXPIRY else None

    def __repr__(self) -> str:
        parts = urlsplit(self._url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/..."

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SignedUrl) and self._url == other._url

    def __hash__(self) -> int:
        return hash(self._url)


@dataclass(frozen=True, kw_only=True)
class Link:
    """One line of the links file: a file's name and where it is today."""

    name: str
    url: SignedUrl

    @property
    def is_tar(self) -> bool:
        """Whether it is one of SA-1B's tars, by its name."""
        return is_sa1b_name(self.name)

    @property
    def number(self) -> int | None:
        """The number in a tar's name (20 for `sa_000020.tar`), None where there is none."""
        return tar_number(self.name)


@dataclass(frozen=True, kw_only=True)
class LinksFile:
    """A links file as read: SA-1B's tars, its other entries, and notes on it for a person."""

    tars: Mapping[str, Link]
    others: Mapping[str, Link]
    notes: tuple[str, ...] = ()
    source: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What was asked for: links in the order of their names, and names without a link."""

    links: tuple[Link, ...]
    missing: tuple[str, ...] = ()
    source: Path | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(sorted([*(link.name for link in self.links), *self.missing]))


def read_links(path: str | Path) -> LinksFile:
    """Reads a links file.

    Args:
      path: the file, as saved from Meta's page.

    Returns:
      Its tars, its other entries, and notes on it.

    Raises:
        LinksError: a line cannot be read (the message has its number), or there is no link at all.
        FileNotFoundError: there is no such file; the message says where to get one.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace")
    except FileNotFoundError:
        raise FileNotFoundError(
            f"No links file at {path}. Request one at {LINKS_PAGE} and save it there."
        ) from None
    return parse_links(text, source=path)


def parse_links(text: str, *, source: Path | None = None) -> LinksFile:
    """Reads the text of a links file; see `read_links`."""
    where = source or "the links file"
    found: dict[str, Link] = {}
    notes = []
    for number, line in enumerate(text.splitlines(), start=1):
        fields = _AMPERSAND.sub("&", line).split()
        if not fields or [field.lower() for field in fields] == ["file_name", "cdn_link"]:
            continue
        # The line itself stays out of the message: it may hold a signature.
        problem = _problem_with(fields)
        if problem:
            raise LinksError(
                f"{where}, line {number}: {problem}. Each line is a file name, a tab and a link; "
                f"save the file again from {LINKS_PAGE}."
            )
        link = Link(name=fields[0], url=SignedUrl(fields[1]))
        before = found.get(link.name)
        if before is not None and before.url != link.url:
            notes.append(f"{where}, line {number}: {link.name} again, with another link: using it.")
        found[link.name] = link
    if not found:
        raise LinksError(f"{where} holds no link. Save it again from {LINKS_PAGE}.")
    others = {name: link for name, link in found.items() if not link.is_tar}
    if unasked := [name for name in others if name != IDS_NAME]:
        known = [f"{n} (another dataset)" if is_other_dataset(n) else n for n in unasked]
        notes.append(
            f"{where} lists more than SA-1B's tars: {first_few(known)}. Such a file is fetched only"
            f" if you name it: --names {unasked[0]}"
        )
    return LinksFile(
        tars={name: link for name, link in found.items() if link.is_tar},
        others=others,
        notes=tuple(notes),
        source=source,
    )


def _problem_with(fields: list[str]) -> str | None:
    if len(fields) != 2:
        return f"expected a file name and a link, found {counted(len(fields), 'field')}"
    if not _SAFE_NAME.fullmatch(fields[0]):
        return "the file name is not a plain name (letters, digits, '.', '_', '-')"
    try:
        SignedUrl(fields[1])
    except ValueError:
        return f"what follows {fields[0]} is not an http or https link"
    return None


def select(
    links: LinksFile,
    *,
    start: int | None = None,
    end: int | None = None,
    names: Iterable[str] | None = None,
    with_ids: bool = False,
) -> Selection:
    """Chooses from a links file, by the number in the tars' names or by name.

    Args:
      links: the file as read.
      start: first tar number, 0 where only `end` is given.
      end: the number after the last one. With it, every number in the range is asked for, and
        those that have no link are `missing`.
      names: these files instead of a range; they need not be tars of SA-1B.
      with_ids: `sa_images_ids.txt` as well.

    Returns:
      The chosen links, and the names without a link.

    Raises:
      ValueError: a range that holds nothing, or a range and names at once.
    """
    if names is not None and (start is not None or end is not None):
        raise ValueError("Choose tars by range (start, end) or by name (names), not by both.")
    first = first_of_range(start, end)
    entries = {**links.tars, **links.others}
    missing: list[str] = []
    if names is not None:
        wanted = dict.fromkeys(names)
        chosen = [entries[name] for name in wanted if name in entries]
        missing = [name for name in wanted if name not in entries]
    elif start is None and end is None:
        chosen = list(links.tars.values())
    else:
        chosen = [
            link
            for link in links.tars.values()
            if link.number is not None and first <= link.number < (end or math.inf)
        ]
        missing = missing_of_range(first, end, [link.name for link in chosen])
    if with_ids and IDS_NAME not in {link.name for link in chosen}:
        if IDS_NAME in entries:
            chosen.append(entries[IDS_NAME])
        else:
            missing.append(IDS_NAME)
    return Selection(
        links=tuple(sorted(chosen, key=lambda link: link.name)),
        missing=tuple(sorted(missing)),
        source=links.source,
    )


def first_of_range(start: int | None, end: int | None) -> int:
    """The first tar's number; raises a ValueError if a range holds nothing."""
    first = start or 0
    if first < 0 or (end is not None and end <= first):
        raise ValueError(f"The range start={first}, end={end} holds no tar (end is exclusive).")
    return first


def missing_of_range(first: int, end: int | None, names: Iterable[str]) -> list[str]:
    """The tars of a range that are not among those names; of a range without an end, none is."""
    there = {tar_number(name) for name in names}
    return [tar_name(number) for number in range(first, end or 0) if number not in there]


def as_options(names: Sequence[str]) -> str:
    """The command line's options that select just these files: a range where they are one."""
    numbers = [tar_number(name) for name in names]
    first = numbers[0]
    if first is not None and numbers == list(range(first, first + len(names))):
        return f"--start {first} --end {first + len(names)}"
    return "--names " + " ".join(names)
