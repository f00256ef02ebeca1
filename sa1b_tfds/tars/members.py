"""The headers of a tar -> the members that may be read. Each size is checked before it is used."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from sa1b_tfds.core.problems import Problems, TornArchive
from sa1b_tfds.tars.inflate import MAGIC, Damaged

# A 16384 x 16384 JPEG is about 100 MB, and the JSON of SA-1B's fullest image about 1 MB.
MAX_BYTES = {".jpg": 256 * 2**20, ".json": 16 * 2**20}
_MAX_HEADER_BYTES = 2**20  # of a long name or a pax header
_MAX_DIGITS = 19  # of a size in a pax header; no file system has larger files
# The zeros after the first block of zeros: a second block, and padding to the end of the record.
_MAX_END = tarfile.BLOCKSIZE + tarfile.RECORDSIZE
_OTHER_FORMS = (
    (MAGIC, "compressed with gzip twice"),
    (b"BZh", "compressed with bzip2"),
    (b"\xfd7zXZ\0", "compressed with xz"),
    (b"]\0\0", "compressed with lzma"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd"),
    (b"\x04\x22\x4d\x18", "compressed with lz4"),
    (b"\x1f\x9d", "compressed with compress"),
    (b"LZIP", "compressed with lzip"),
    (b"PK\x03\x04", "a zip file"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z file"),
    (b"Rar!", "a RAR file"),
)
_LINKS = (tarfile.SYMTYPE, tarfile.LNKTYPE)


class Member(NamedTuple):
    """A file in an archive: its name, its size and where its bytes begin."""

    name: str
    size: int
    offset: int = 0


class ForwardFile(Protocol):
    """A file that only moves forward, which is all that `members` needs."""

    def read(self, count: int, /) -> bytes:
        """Returns `count` bytes; fewer only at the end of the file."""

    def seek(self, position: int, /) -> int:
        """Skips to a position at or after the current one; returns the new position."""


def members(
    archive: str, file: ForwardFile, length: int | None, problems: Problems
) -> Iterator[Member]:
    """Yields the files of a tar that may be read; reports the others, and a torn tar.

    Args:
      archive: the tar's name, for reports.
      file: the tar. The caller may read each yielded member from it, but not beyond its end.
      length: the tar's length in bytes; None if unknown.
      problems: receives torn tars and unsafe members.
    """
    member = ""
    try:
        for info in _headers(file, length):
            member = info.name
            available = info.size if length is None else max(0, length - info.offset)
            limit = MAX_BYTES.get(suffix_of(info.name), available)
            if info.type == tarfile.GNUTYPE_SPARSE:
                raise tarfile.ReadError("a sparse file")
            if info.name.startswith("/") or ".." in info.name.split("/"):
                problems.report(archive, member, "its path leads out of the archive")
            elif info.type == tarfile.DIRTYPE:
                continue
            elif info.type not in tarfile.REGULAR_TYPES:
                kind = "a link" if info.type in _LINKS else "not a regular file"
                problems.report(archive, member, f"it is {kind}, and SA-1B has only files")
            elif info.size > available:
                raise _cut_off(info.size, available)
            elif info.size > limit:
                problems.report(archive, member, too_large(info.size, limit))
            else:
                yield Member(info.name, info.size, info.offset)
    except _NoTar as e:
        problems.report(archive, "", f"it is no tar: {e}", TornArchive)
    except tarfile.TarError as e:
        report_damage(archive, member, e, problems)


def report_damage(archive: str, member: str, error: tarfile.TarError, problems: Problems) -> None:
    """Reports the error that ended the reading of a tar at `member`."""
    if isinstance(error, Damaged):  # the damage may be far before this member
        problems.report(archive, "", f"it is damaged: {error}. Download it again", TornArchive)
    else:
        report_torn(archive, member, str(error), problems)


def report_torn(archive: str, member: str, why: str, problems: Problems) -> None:
    """Reports a tar that is torn at `member`."""
    problems.report(
        archive, member, f"the tar is torn here ({why}): download it again", TornArchive
    )


class _NoTar(tarfile.TarError):
    """The file was never a tar."""


class _Header(NamedTuple):
    name: str
    size: int
    offset: int
    type: bytes


def _headers(file: ForwardFile, length: int | None) -> Iterator[_Header]:
    """Yields a tar's headers; raises a TarError if it is torn or not a tar.

    A size may be any number up to 2 ** 88. It is compared with `length` before anything is sought
    or read by it. If the length is unknown, seeking there simply reaches the end of the file.

    tarfile parses each block of 512 bytes, but does not walk the tar, because its walk is not safe:
    it takes a broken header or the end of the file for the end of the archive, steps backwards at a
    negative size, and gives long and pax headers as much stack and memory as they ask for.
    """
    position = 0
    extended: dict[str, str] = {}  # the fields of long and pax headers, which the next member has
    while True:
        file.seek(position)
        block = file.read(tarfile.BLOCKSIZE)
        if len(block) < tarfile.BLOCKSIZE:
            if position == 0 and (form := _other_form(block)):
                raise _NoTar(form)
            raise tarfile.ReadError(f"no header and no end marker at byte {position}")
        if not any(block):
            _check_end(file, position)
            return
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "backslashreplace")
        except tarfile.HeaderError:
            if position == 0:
                begins = f"it begins with {block[:16]!r}. Download it again"
                raise _NoTar(_other_form(block) or begins) from None
            raise
        position += tarfile.BLOCKSIZE
        if info.size < 0:
            raise tarfile.ReadError(f"a size of {info.size}")
        if info.type in (tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
            if info.size > _MAX_HEADER_BYTES:
                raise tarfile.ReadError(f"a header of {info.size} bytes")
            end = _end_of(info.size, position, length)
            body = file.read(info.size)
            if info.type == tarfile.GNUTYPE_LONGNAME:
                extended["path"] = body.rstrip(b"\0").decode("utf-8", "backslashreplace")
            else:
                extended |= _pax_records(body)
            position = end
        elif info.type in (tarfile.GNUTYPE_LONGLINK, tarfile.XGLTYPE):
            position = _end_of(info.size, position, length)  # link targets and defaults: not used
        else:
            kind = tarfile.GNUTYPE_SPARSE if "sparse" in extended else info.type
            size = extended.get("size", str(info.size))
            if not size.isdecimal() or len(size) > _MAX_DIGITS:
                raise tarfile.ReadError(f"a size of {size:.20}")
            name = extended.get("path", info.name)
            yield _Header(name, int(size), position, kind)
            # POSIX: an unknown type has data as a file has; links and folders have none.
            if info.isreg() or info.type not in tarfile.SUPPORTED_TYPES:
                position = _end_of(int(size), position, length)
            extended = {}


def _check_end(file: ForwardFile, position: int) -> None:
    """Raises a ReadError unless only the zeros that end a tar follow.

    Zeros also mark parts that a download never wrote, and the seams of tars that were joined.
    """
    rest = file.read(_MAX_END + 1)
    if any(rest):
        at = position + tarfile.BLOCKSIZE + len(rest) - len(rest.lstrip(b"\0"))
        raise tarfile.ReadError(
            f"zeros from byte {position} to {at}, but more follows them: either bytes are missing"
            " there, or the file holds more than one tar"
        )
    if len(rest) > _MAX_END:
        raise tarfile.ReadError(f"zeros from byte {position} on, more than end a tar")


def _other_form(beginning: bytes) -> str | None:
    """Describes a file packed in another form by its first bytes; None if they are unknown."""
    for magic, form in _OTHER_FORMS:
        if beginning.startswith(magic):
            return f"it is {form}. Unpack it: a tar is read plain, or compressed with gzip"
    return None


def _pax_records(body: bytes) -> dict[str, str]:
    """Reads path, size and sparse fields from records "<length> <key>=<value>\\n".

    A record's length counts the whole record, its own digits included.
    """
    records = {}
    start = 0
    while start < len(body) and body[start]:
        space = body.find(b" ", start, start + 8)
        digits = body[start:space] if space > 0 else b""
        stop = start + int(digits) if digits.isdigit() else 0
        if not start < space < stop <= len(body):
            raise tarfile.ReadError("a broken pax header")
        key, _, value = body[space + 1 : stop].partition(b"=")
        if key in (b"path", b"size") or key.startswith(b"GNU.sparse"):
            text = value.removesuffix(b"\n").decode("utf-8", "backslashreplace")
            records["sparse" if key.startswith(b"GNU") else key.decode()] = text
        start = stop
    return records


def _end_of(size: int, position: int, length: int | None) -> int:
    """Returns the end of `size` bytes from `position` on, rounded up to a block.

    Raises:
      ReadError: if the tar is shorter.
    """
    if length is not None and size > length - position:
        raise _cut_off(size, max(0, length - position))
    return position - (-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def _cut_off(size: int, available: int) -> tarfile.ReadError:
    return tarfile.ReadError(f"it claims {size} bytes, {available} are there")


def suffix_of(name: str) -> str:
    """Returns the suffix with its dot; the last character if the name has no dot."""
    return name[name.rfind(".") :]


def too_large(size: int, limit: int) -> str:
    """Returns the reason to report for a file over its limit."""
    return f"its {size} bytes are over the limit of {limit}"
