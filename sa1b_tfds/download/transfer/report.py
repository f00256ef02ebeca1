"""What a download reports of a file: where it is, and in the end what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sa1b_tfds.core.progress import Reporter
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

    is_counted = True
    images = 0

    @property
    def activity(self) -> str:
        """Such as 'unpacking 37%'; empty while it is fetched."""
        if self.phase == "fetching":
            return ""
        share = f" {self.inflated / self.size:.0%}" if self.inflated and self.size else ""
        return self.phase + share


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

    @property
    def text(self) -> str | None:
        """The line on it; None if it was there."""
        if self.status == "present":
            return None
        how = f", checked by {self.checked_by}" if self.status == "done" else f": {self.reason}"
        return self.status + how


DownloadReporter = Reporter[DownloadPlan, FileProgress, FileResult]
