"""The builder's way to its tars: what `manual_dir` lacks is downloaded into it, if it may be."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sa1b_tfds.core.progress import reporter_for_people
from sa1b_tfds.download.links import LINKS_FILE_NAMES, LINKS_PAGE, as_options, read_links, select


class MissingTarsError(RuntimeError):
    """Tars that are asked for are not there. `reasons` has why, by name."""

    def __init__(self, reasons: dict[str, str], command: str, advice: str):
        self.reasons = reasons
        self.command = command
        shown = [f"  {name}: {reason}" for name, reason in sorted(reasons.items())[:10]]
        if len(reasons) > len(shown):
            shown.append(f"  and {len(reasons) - len(shown)} more")
        super().__init__(
            "\n".join([f"{len(reasons)} tar(s) of SA-1B missing:", *shown, advice, command])
        )


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

    Tars that are there are taken as they are, unread: the builder reads all of them anyway. With
    all of them there, nothing is written and no network is used.

    Args:
      links_file: None to look for one in `manual_dir`.
      manual_dir: where the tars are, and come to.
      wanted_names: of the tars; none where there is no tar at all, which is an error.
      **settings: for `download`, by name.

    Raises:
      MissingTarsError: one error for all tars that are lacking: which, why, and what to do.
      LinksError, SelectionTooLarge, FolderInUse: as `read_links` and `download` raise them.
    """
    folder = Path(manual_dir)
    source = find_links_file(folder) if links_file is None else Path(links_file)
    names = sorted(set(wanted_names))
    lacking = [name for name in names if not (folder / name).is_file()]
    if names and not lacking:
        return

    links_path = source or folder / LINKS_FILE_NAMES[0]
    command = f"  sa1b download --links-file {shlex.quote(str(links_path))} --output-dir " + (
        shlex.quote(str(folder)) + (f" {as_options(lacking)}" if lacking else "")
    )
    if source is None:
        raise MissingTarsError(
            dict.fromkeys(lacking or ["all tars"], f"not in {folder}, and no links file there"),
            command,
            f"Save the links file from {LINKS_PAGE} as {links_path} and load again, or run:",
        )
    # Who has the tars needs no HTTP.
    from sa1b_tfds.download.download import download

    settings.setdefault("reporter", reporter_for_people())
    results = download(select(read_links(source), names=lacking), folder, **settings)
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
