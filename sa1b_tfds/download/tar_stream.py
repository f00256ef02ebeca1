"""A tar behind a link -> pairs, in one pass and without storing it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sa1b_tfds.core.problems import BadInput, Problems
from sa1b_tfds.download.links import Link
from sa1b_tfds.download.transfer.settings import TransferConfig
from sa1b_tfds.download.transfer.stream import RemoteFile
from sa1b_tfds.tars.forms import forward
from sa1b_tfds.tars.pairs import Pair
from sa1b_tfds.tars.stream import stream_pairs


def stream_link(link: Link, problems: Problems) -> Iterator[Pair]:
    """Yields the pairs of a tar behind a link, as they become whole.

    Args:
      link: its name stands in what is reported; the URL never does.
      problems: takes what is no pair, torn or unsafe.

    Raises:
      TransferError: if the server does not give the tar; the message is safe to show.
    """
    with RemoteFile(link, TransferConfig()) as remote:
        file, length = forward(remote, remote.size())
        yield from stream_pairs(link.name, file, length, _CleanProblems(problems, remote.clean))


class _CleanProblems(Problems):
    """Hands on what is reported, cleaned."""

    def __init__(self, problems: Problems, clean: Callable[[str], str]):
        super().__init__(problems.on_error)
        self._problems = problems
        self._clean = clean

    def report(
        self, archive: str, member: str, reason: str, kind: type[BadInput] = BadInput
    ) -> None:
        self._problems.report(archive, self._clean(member), self._clean(reason), kind)
