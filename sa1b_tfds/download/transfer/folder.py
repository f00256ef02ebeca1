"""The folder of a download: small files that are replaced whole, drafts, and what to tidy up.

`partial.py` has the files on their way, `checked_files.py` those that passed their check. Whoever
writes here holds the folder's lock (`core/lock.py`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sa1b_tfds.core import files
from sa1b_tfds.tars.names import PART, PART_STATE

_UNPACKED = ".unpacked.part"


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Replaces `path` by `content` as JSON: a reader finds the old file or the new, never half."""
    files.write_whole(path, json.dumps(content, indent=1).encode(), alone=True)


def remove_strays(folder: Path, name: str) -> None:
    """Clears what a process leaves that dies between giving a file its name and tidying up."""
    for suffix in (_UNPACKED, PART, PART_STATE):
        (folder / f"{name}{suffix}").unlink(missing_ok=True)


def draft_of(plain: Path) -> Path:
    """Where a plain tar is written before it gets its name."""
    return plain.with_name(plain.name + _UNPACKED)


def remove_drafts(folder: Path) -> None:
    """Removes those that a process left behind which was killed; hold the folder's lock."""
    for draft in folder.glob(f"*{_UNPACKED}"):
        draft.unlink()
