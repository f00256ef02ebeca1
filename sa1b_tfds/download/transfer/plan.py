"""What a download has to do: what is there, what the server would send, and whether it fits."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from sa1b_tfds.core.text import counted, format_bytes
from sa1b_tfds.download.links import Link, as_options
from sa1b_tfds.download.transfer.answers import (
    LinkExpired,
    TransferError,
    content_length,
    total_of_range,
)
from sa1b_tfds.download.transfer.checked_files import CheckedFiles
from sa1b_tfds.download.transfer.partial import Partial
from sa1b_tfds.download.transfer.transport import Transport
from sa1b_tfds.tars.forms import is_packed, unpacked_bytes
from sa1b_tfds.tars.names import is_tar_name


@dataclass(frozen=True, kw_only=True)
class PlannedFile:
    """One file of a plan.

    Attributes:
      name: of the file.
      action: 'present' (checked before), 'check' (there, but nobody knows it is whole), 'unpack'
        (there, and compressed), 'fetch', 'continue' (a partial is there), 'expired' or 'missing'
        (no link).
      size: bytes of the whole file, None where the server did not say.
      on_disk: bytes that need not be fetched.
      unpacked: bytes that are more when it is unpacked, at most; 0 where it is not.
      reason: why it cannot be fetched.
      expires: when its link expires, None where the link does not say.
    """

    name: str
    action: Literal["present", "check", "unpack", "fetch", "continue", "expired", "missing"]
    size: int | None = None
    on_disk: int = 0
    unpacked: int = 0
    reason: str | None = None
    expires: datetime | None = None

    @property
    def needs_its_link(self) -> bool:
        """Whether bytes are to come over the network, if the link allows it."""
        return self.action in ("fetch", "continue", "expired")

    @property
    def to_fetch(self) -> int:
        """Bytes, 0 where the size is not known."""
        return max(0, (self.size or 0) - self.on_disk)


@dataclass(frozen=True, kw_only=True)
class DownloadPlan:
    """All files of a selection, in the order of their names, and the bytes free for them.

    workers: files at a time, of which each, if it is unpacked, is there twice.
    """

    files: tuple[PlannedFile, ...]
    free: int
    workers: int = 1

    @property
    def title(self) -> str:
        return counted(len(self.files), "file")

    @property
    def items(self) -> tuple[PlannedFile, ...]:
        return self.files

    @property
    def to_fetch(self) -> int:
        """Bytes that come over the network."""
        return sum(file.to_fetch for file in self.files)

    @property
    def needed(self) -> int:
        """Bytes that the disk takes more, while it is fullest."""
        return self._needed_for(self.files)

    def _needed_for(self, files: Sequence[PlannedFile]) -> int:
        twice = sorted((file.size or 0) for file in files if file.unpacked)[-self.workers :]
        return sum(file.to_fetch + file.unpacked for file in files) + sum(twice)

    @property
    def fits(self) -> tuple[str, ...]:
        """Names of the files that, taken in order, fit on the disk."""
        number = 0
        while number < len(self.files) and self._needed_for(self.files[: number + 1]) <= self.free:
            number += 1
        return tuple(file.name for file in self.files[:number])


class SelectionTooLarge(RuntimeError):
    """The selection does not fit on the disk; nothing was written. `plan` has the figures."""

    def __init__(self, plan: DownloadPlan, folder: Path):
        self.plan = plan
        fits = plan.fits
        super().__init__(
            f"The selection needs {format_bytes(plan.needed)} more and {folder} has "
            f"{format_bytes(plan.free)} free; nothing was written. "
            + (
                f"What fits is the first {len(fits)} of {counted(len(plan.files), 'file')}:"
                f" {as_options(fits)}"
                if fits
                else "Not one file fits: free some space or choose another folder."
            )
        )


def plan_file(
    link: Link,
    folder: Path,
    *,
    transport: Transport,
    checked: CheckedFiles,
    accept: Sequence[str],
    unpack: bool,
) -> PlannedFile:
    """Looks at the disk, and at the server where only that has the size.

    `accept` lists the checks that a file must have passed for not being read again; an empty one
    accepts what is there unread. `unpack`: a compressed tar is unpacked.
    """

    def more(size: int | None) -> int:
        return unpacked_bytes(size) - size if unpack and size and is_tar_name(link.name) else 0

    file = functools.partial(PlannedFile, name=link.name, expires=link.url.expires)
    final = folder / link.name
    if final.exists():
        size = final.stat().st_size
        if more(size) and is_packed(final):
            return file(action="unpack", size=size, on_disk=size, unpacked=more(size))
        known = not accept or checked.checked_by(link.name) in accept
        return file(action="present" if known else "check", size=size, on_disk=size)
    partial = Partial(folder, link.name)
    action: Literal["continue", "fetch"] = "continue" if partial.offset else "fetch"
    size_on_server = partial.size
    if size_on_server is None:
        try:
            size_on_server = _ask_size(link, transport)
        except LinkExpired as error:
            return file(action="expired", on_disk=partial.offset, reason=str(error))
        except TransferError:
            # The fetch itself retries, and says what is wrong if it stays wrong.
            size_on_server = None
    unpacked = more(size_on_server)
    return file(action=action, size=size_on_server, on_disk=partial.offset, unpacked=unpacked)


def _ask_size(link: Link, transport: Transport) -> int | None:
    # One byte by GET: a link is signed for GET, and some hosts refuse HEAD for that.
    with transport.get(link.url, {"Range": "bytes=0-0"}) as answer:
        if answer.status == 200:
            return content_length(answer)
        return total_of_range(answer, 0)
