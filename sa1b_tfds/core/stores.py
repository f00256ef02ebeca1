"""Object stores (gs://, s3://) where they differ from disks, by fsspec or by TensorFlow.

An object appears when all of it was sent. Several objects never appear at once, because a folder
cannot be renamed: whoever writes several writes the one last by which the others are known.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from etils import epath

from sa1b_tfds.core import files

# Their errors are of kinds of their own, or the cause of an OSError without a name.
_LIBRARIES = ("botocore.", "aiohttp.", "gcsfs.", "google.auth.", "tensorflow.python.framework.")


class StoreError(OSError):
    """An object store did not do what it was asked for. The text says for which tar or folder."""


@contextlib.contextmanager
def errors_named(what: str) -> Iterator[None]:
    """Raises an OSError that names `what` in place of a store's error, which names no tar."""
    try:
        yield
    except Exception as e:
        modules = [f"{type(each).__module__}." for each in (e, e.__cause__)]
        of_library = any(module.startswith(_LIBRARIES) for module in modules)
        if isinstance(e, StoreError) or not of_library:
            raise
        text = " ".join(str(e).split()) or type(e).__name__
        raise StoreError(text if what in text else f"{what}: {text}") from e


def look_anew(folder: epath.Path) -> None:
    """Has fsspec ask the store at each look into a folder, as other processes write there.

    By default it remembers what it has listed, and takes what was written since for missing.
    """
    if (system := files.object_store(folder)) is None:
        return
    from etils.epath import backend  # epath keeps a file system of its own

    for each in (system, backend.fsspec_backend.fs(os.fspath(folder))):
        each.dircache.use_listings_cache = False
        each.invalidate_cache()


def copy(source: epath.Path, target: epath.Path) -> None:
    """Copies an object within a store, which does it by itself if fsspec asks for it.

    TensorFlow's gs:// cannot ask for that: there all bytes come here and go back.
    """
    if (system := files.object_store(source)) is not None:
        system.cp_file(os.fspath(source), os.fspath(target))
    else:
        source.copy(target, overwrite=True)
