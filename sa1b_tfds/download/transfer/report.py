"""What a run tells: one result a file, and the `Reporter` that hears of it while it happens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sa1b_tfds.download.transfer.plan import DownloadPlan


@dataclass(kw_only=True)
class FileProgress:
    """Where a running file is, in bytes, for whoever watches from another thread.

    phase: what is done with it; then `inflated` bytes of it are, of a compressed tar.
    """

    name: str
    position: int = 0
    fetched: int = 0
    size: int | None = None
    phase: Literal["fetching", "checking", "unpacking"] = "fetching"
    inflated: int = 0


@dataclass(frozen=True, kw_only=True)
class FileResult:
    """What became of one file.

    Attributes:
      name: of the file.
      status: 'done' (fetched and checked), 'present' (was there and is whole), 'expired' (needs a
        fresh links file) or 'failed'.
      fetched: bytes that came over the network in this run.
      checked_by: 'md5', 'size' (size and form, no MD5 known) or 'none'; None where not whole.
      reason: why it is not whole.
    """

    name: str
    status: Literal["done", "present", "expired", "failed"]
    fetched: int = 0
    checked_by: str | None = None
    reason: str | None = None

    @property
    def is_whole(self) -> bool:
        return self.status in ("done", "present")


class Reporter:
    """Hears what a run does; always called from the thread that called `download`."""

    def planned(self, plan: DownloadPlan) -> None:
        """The sizes are known and work begins."""

    def note(self, text: str, name: str | None = None) -> None:
        """Something a person would want to know, about the file `name` or about the run."""

    def running(self, files: list[FileProgress]) -> None:
        """Where the running files are; several times a second."""

    def finished(self, result: FileResult) -> None:
        """One file is whole or given up."""

    def close(self) -> None:
        """Nothing more comes."""
