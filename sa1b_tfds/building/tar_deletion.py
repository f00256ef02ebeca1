"""Which finished tars `--delete-tars` deletes, and when.

A tar that the build downloaded can be downloaded again: it is deleted as soon as it is finished. A
tar of the user's own is deleted only if all of it is in the data, and only when the running build
cannot need it again. In both cases its shards are read first: they must be intact.

When can a build not need a tar again? A tar is converted again when one of its images turns out to
be in an earlier tar as well (`conversion.py`). So a tar is no longer needed once all tars before it
are finished and none of its images is in them.

That holds for what the running build converts. A tar that an earlier build staged in another form,
or with other options, is not finished for this build. If such a tar was deleted, this build cannot
end; the next one, with the options of the earlier build, then needs all other tars. So none is
deleted.
"""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable, Sequence
from typing import Literal

from absl import logging

from sa1b_tfds.building.conversion import Conversion
from sa1b_tfds.building.conversion_task import ConversionTask
from sa1b_tfds.building.staging import FinishedTar
from sa1b_tfds.building.tar_supply import is_in_flight
from sa1b_tfds.examples.image_ids import ImageIds
from sa1b_tfds.tars.archive import Archive, TarArchive
from sa1b_tfds.tars.kept import forget_all

DeleteTars = Literal["never", "downloaded", "all"]


class TarDeletion:
    """Deletes tars one by one, and says once of each tar that stays why it does.

    Args:
      own_tars: whether the user's own tars are deleted as well.
    """

    def __init__(self, *, own_tars: bool):
        self._own_tars = own_tars
        self._stay: set[str] = set()

    def delete(
        self, archive: Archive, finished: FinishedTar, is_intact: Callable[[FinishedTar], bool]
    ) -> None:
        """Deletes a finished tar if it may be deleted.

        A downloaded tar was checked when it came, and its link is there. The user's own tar may be
        torn and the only one: it stays if not all of it is in the data.

        Args:
          archive: a folder of extracted files is never deleted.
          finished: what was made of it.
          is_intact: reads the shards and says whether they are what was written.
        """
        in_flight = is_in_flight(archive)
        if not isinstance(archive, TarArchive) or archive.name in self._stay:
            return
        if not in_flight and not self._own_tars:
            return
        if not in_flight and not finished.is_whole:
            self._stay.add(archive.name)
            logging.warning("%s is not deleted: not all of it is in the data.", archive.name)
        elif not is_intact(finished):
            self._stay.add(archive.name)
            logging.error(
                "%s is not deleted: its shards are damaged. Build with --add, to have it converted"
                " again.",
                archive.name,
            )
        elif in_flight:
            forget_all(archive.path)
            archive.path.parent.rmtree()
        else:
            try:
                archive.path.unlink()
            except OSError as e:
                self._stay.add(archive.name)
                logging.warning("%s cannot be deleted and stays: %s", archive.path, e.strerror)
            else:
                forget_all(archive.path)
                logging.warning("%s is deleted: all of it is in the data.", archive.name)


def delete_after_each_task(
    deletion: TarDeletion, conversion: Conversion, archives: Sequence[Archive]
) -> Callable[[ConversionTask], None]:
    """Returns what deletes the tars that may be deleted after a task has ended.

    Before that it deletes downloaded tars that an earlier build finished and had no time to delete.

    Args:
      deletion: deletes a tar.
      conversion: what is being converted.
      archives: of the build, without those that are staged and gone.
    """
    staging = conversion.staging
    for archive in filter(is_in_flight, archives):
        tar = staging.finished(archive.name)
        if tar and archive.identity() is not None and conversion.is_up_to_date(tar):
            deletion.delete(archive, tar, staging.is_intact)
    unneeded = _UnneededTars(conversion, archives)

    def after(task: ConversionTask) -> None:
        finished = staging.finished(task.archive.name)
        if is_in_flight(task.archive) and finished is not None:
            deletion.delete(task.archive, finished, staging.is_intact)
        for own, finished in unneeded.since_last_call():
            if not is_in_flight(own):
                deletion.delete(own, finished, staging.is_intact)

    return after


class _UnneededTars:
    """Goes along the archives of a build in their order. Used by several threads."""

    def __init__(self, conversion: Conversion, archives: Sequence[Archive]):
        self._staging = conversion.staging
        self._is_up_to_date = conversion.is_up_to_date
        self._waiting = collections.deque(archives)
        self._ids = ImageIds()
        self._lock = threading.Lock()
        deleted = set(self._staging.archives()) - {archive.name for archive in archives}
        for finished in filter(None, map(self._staging.finished, sorted(deleted))):
            self._has_repeated(finished)
            if not self._is_up_to_date(finished):
                self._waiting.clear()

    def since_last_call(self) -> list[tuple[Archive, FinishedTar]]:
        """The tars that this build cannot need again, and could at the last call."""
        unneeded = []
        with self._lock:
            while self._waiting:
                finished = self._staging.finished(self._waiting[0].name)
                if finished is None or not self._is_up_to_date(finished):
                    break
                archive = self._waiting.popleft()
                if not self._has_repeated(finished):
                    unneeded.append((archive, finished))
        return unneeded

    def _has_repeated(self, finished: FinishedTar) -> bool:
        """Whether one of its images was there before; remembers all of them."""
        earlier = [self._ids.add(i, finished.archive) for i in finished.image_ids.tolist()]
        return any(earlier)
