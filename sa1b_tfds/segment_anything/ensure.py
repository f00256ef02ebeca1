"""Downloads the tars that are missing in a folder, if there are links for them."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sa1b_tfds.core.progress import reporter_for_people
from sa1b_tfds.core.text import counted
from sa1b_tfds.download.links import LINKS_FILE_NAMES, LINKS_PAGE, as_options, read_links, select


class MissingTarsError(RuntimeError):
    """Tars that are asked for are missing. `reasons` says why, by name."""

    def __init__(self, reasons: dict[str, str], command: str, advice: str):
        self.reasons = reasons
        self.command = command
        shown = [f"  {name}: {reason}" for name, reason in sorted(reasons.items())[:10]]
        if len(reasons) > len(shown):
            shown.append(f"  and {len(reasons) - len(shown)} more")
        number = counted(len(reasons), "tar")
        super().__init__("\n".join([f"{number} of SA-1B missing:", *shown, advice, command]))


def find_links_file(manual_dir: str | Path) -> Path | None:
    """The links file in `manual_dir`, under Meta's name or the community's, if there is one."""
    candidates = (Path(manual_dir) / name for name in LINKS_FILE_NAMES)
    return next((path for path in candidates if path.is_file()), None)


def ensure_tars(
    links_file: str | Path | None,
    manual_dir: str | Path,
    wanted_names: Iterable[str],
    **settings: Any,
) -> None:
    """Downloads the wanted tars that are not in `manual_dir`.

    Tars that are there are not read, as the builder reads all of them anyway. If all are there,
    nothing is written and no network is used.

    Args:
      links_file: None looks for one in `manual_dir`.
      manual_dir: the folder of the tars, which downloaded ones come to as well.
      wanted_names: names of tars. No name at all means that there is no tar, which is an error.
      **settings: keyword arguments of `download`.

    Raises:
      MissingTarsError: one error for all missing tars: which, why, and what to do.
      LinksError, SelectionTooLarge, FolderInUse: as `read_links` and `download` raise them.
    """
    folder = Path(manual_dir)
    source = find_links_file(folder) if links_file is None else Path(links_file)
    names = sorted(set(wanted_names))
    missing = [name for name in names if not (folder / name).is_file()]
    if names and not missing:
        return

    links_path = source or folder / LINKS_FILE_NAMES[0]
    command = f"  sa1b download --links-file {shlex.quote(str(links_path))} --output-dir " + (
        shlex.quote(str(folder)) + (f" {as_options(missing)}" if missing else "")
    )
    if source is None:
        raise MissingTarsError(
            dict.fromkeys(missing or ["all tars"], f"not in {folder}, and no links file there"),
            command,
            f"Save the links file from {LINKS_PAGE} as {links_path} and load again, or run:",
        )
    # Imported here: a user who has the tars needs no HTTP.
    from sa1b_tfds.download.download import download

    settings.setdefault("reporter", reporter_for_people())
    results = download(select(read_links(source), names=missing), folder, **settings)
    failed = {
        result.name: result.reason or result.status for result in results if not result.is_whole
    }
    if failed:
        raise MissingTarsError(
            failed,
            command,
            f"Save a fresh links file from {LINKS_PAGE} if links have expired, then load again, "
            "which continues, or run:",
        )
