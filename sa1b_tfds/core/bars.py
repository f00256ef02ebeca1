"""Bars of bytes on a terminal: one for a whole run, and one for each item that is worked on."""

from __future__ import annotations

from typing import Any, TextIO

from tqdm import tqdm


class Bars:
    """The bar of the run has the first row. Those of items are below it, by name, and come and go.

    Args:
      stream: the terminal.
      is_kept: whether the bar of the run stays on the terminal in the end.
    """

    def __init__(self, stream: TextIO, is_kept: bool = True):
        self._stream = stream
        self._is_kept = is_kept
        self._all: tqdm[Any] | None = None
        self._bars: dict[str, tqdm[Any]] = {}

    @property
    def names(self) -> set[str]:
        """The items that have a bar now."""
        return set(self._bars)

    def begin(self, title: str, total: int, position: int = 0) -> None:
        """Draws a new bar of the run. Positions and totals are bytes."""
        self.close()
        self._all = self._bar(title, total, position, row=0)

    def move_all(self, position: int, total: int, note: str) -> None:
        if self._all is not None:
            self._all.set_postfix_str(note, refresh=False)
            self._move(self._all, position, total)

    def move(self, name: str, position: int, total: int | None, note: str = "") -> None:
        """Moves the bar of an item. Its first time it is drawn in a free row."""
        title = f"{name} {note}".rstrip()
        if name not in self._bars:
            taken = {-bar.pos for bar in self._bars.values()}
            row = next(row for row in range(1, len(taken) + 2) if row not in taken)
            self._bars[name] = self._bar(title, total, position, row)
        bar = self._bars[name]
        bar.set_description_str(title, refresh=False)
        self._move(bar, position, total)

    def end(self, name: str) -> None:
        """Removes the bar of an item, if there is one."""
        if name in self._bars:
            self._bars.pop(name).close()

    def write(self, text: str) -> None:
        """A line above the bars."""
        tqdm.write(text, file=self._stream)

    def close(self) -> None:
        """Removes the bars of items, and draws that of the run for the last time."""
        for name in self.names:
            self.end(name)
        if self._all is not None:
            self._all.close()
            self._all = None

    def _bar(self, title: str, total: int | None, position: int, row: int) -> tqdm[Any]:
        return tqdm(
            desc=title,
            total=total,
            initial=position,
            position=row,
            leave=row == 0 and self._is_kept,
            file=self._stream,
            unit="B",
            unit_scale=True,
            miniters=0,  # drawn however little came, but no more than ten times a second
            smoothing=0.05,
            dynamic_ncols=True,
        )

    @staticmethod
    def _move(bar: tqdm[Any], position: int, total: int | None) -> None:
        bar.total = total
        bar.update(position - bar.n)
