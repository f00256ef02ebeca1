"""`sa1b show`."""

from __future__ import annotations

import argparse
import pathlib
import sys
from typing import TYPE_CHECKING, Any

from sa1b_tfds.cli.options import (
    Commands,
    add_command,
    add_config,
    output_file,
    positive,
)
from sa1b_tfds.core.text import counted

if TYPE_CHECKING:
    from etils import epath


def add(commands: Commands) -> None:
    command = add_command(
        commands,
        "show",
        _show,
        "Draw images with their masks, as an HTML page, a contact sheet or a training batch.",
        examples=("tars --open", "data --config original --batch --out batch.png"),
        docs="show.md",
    )
    group = command.add_argument_group("source")
    add = group.add_argument
    add("source", metavar="SOURCE", help="a tar, a folder of tars or files, or prepared data")
    add_config(group)
    add(
        "--n",
        type=positive,
        metavar="N",
        help="number of images, from all tars in turns (default: 16; with --batch: 4)",
    )
    add = command.add_argument_group("output").add_argument
    add(
        "--out",
        type=_out,
        metavar="FILE",
        help="file to write: .html for a page, .png for a contact sheet"
        " (default: sa1b.html; with --batch: batch.png)",
    )
    add(
        "--batch",
        action="store_true",
        help="draw what a model sees: images of a training batch, with masks, boxes and points"
        " (default: images as they are)",
    )
    add("--open", action="store_true", help="open the file in the browser (default: only write it)")
    add(
        "--stats",
        type=pathlib.Path,
        metavar="FILE",
        help="statistics for the page, from `sa1b stats --json FILE` (default: read all of SOURCE)",
    )


def _show(options: argparse.Namespace) -> int:
    from sa1b_tfds.core.files import write_whole

    if options.batch:
        out = options.out or output_file("batch.png")
        if out.suffix != ".png":
            options.parser.error(f"--batch draws a picture: --out must end in .png, got {out}")
    else:
        out = options.out or output_file("sa1b.html")
    is_page = out.suffix == ".html"
    if options.stats and not is_page:
        options.parser.error(f"--stats is for a page, and {out} is a picture")
    n, content = _batch(options) if options.batch else _examples(options, is_page=is_page)
    write_whole(out, content)
    hint = "; --open opens it in the browser" if is_page and not options.open else ""
    print(f"{counted(n, 'image')} in {out}{hint}")
    if options.open:
        import webbrowser

        webbrowser.open(pathlib.Path(out).absolute().as_uri())
    return 0


def _batch(options: argparse.Namespace) -> tuple[int, bytes]:
    """The images of a training batch, and their picture."""
    from sa1b_tfds.core import quiet

    quiet.import_tensorflow()

    import numpy as np
    import tensorflow_datasets as tfds

    import sa1b_tfds
    from sa1b_tfds.examples.parts import ShardPart, find_parts
    from sa1b_tfds.show import show_batch
    from sa1b_tfds.show.pictures import encode_png

    config = sa1b_tfds.TrainingConfig(
        batch_size=options.n or 4, masks_per_image=16, drop_remainder=False
    )
    source: Any = options.source
    parts = find_parts(source, options.config)
    if isinstance(parts[0], ShardPart):
        source = parts[0].path.parent
    else:
        skip = tfds.decode.SkipDecoding()
        source = sa1b_tfds.read_tars(source, decoders={"image": skip, "masks": skip})
    with quiet.errors_in_a_line():
        batch = next(iter(sa1b_tfds.training_dataset(source, config)))
    return len(batch["image"]), encode_png(np.asarray(show_batch(batch)))


def _examples(options: argparse.Namespace, *, is_page: bool) -> tuple[int, bytes]:
    """The number of images, and the page or the contact sheet of them."""
    from sa1b_tfds.core.problems import Problems, summed_up
    from sa1b_tfds.examples.parts import find_parts
    from sa1b_tfds.show import contact_sheet, make_page
    from sa1b_tfds.show.pictures import encode_png, take

    problems = Problems("skip")
    parts = find_parts(options.source, options.config)
    examples = take(parts, options.n or 16, problems)
    for line in summed_up(problems.found):
        print(f"left out: {line}", file=sys.stderr)
    if not examples:
        raise ValueError(f"{options.source} holds no image that can be shown.")
    if not is_page:
        return len(examples), encode_png(contact_sheet(examples))
    page = make_page(examples, statistics=_statistics(options), problems=problems.found)
    return len(examples), page.encode()


def _statistics(options: argparse.Namespace) -> dict[str, Any]:
    """Returns the statistics of the whole source."""
    from sa1b_tfds.cli.stats import read_statistics
    from sa1b_tfds.core import own_json
    from sa1b_tfds.show.numbers import statistics_as_html

    if options.stats is None:
        return read_statistics(options.source, options.config).as_dict()

    def checked(statistics: Any) -> dict[str, Any]:
        statistics_as_html(statistics)
        return statistics

    return own_json.read(options.stats, checked, "make it again with `sa1b stats --json`")


def _out(text: str) -> epath.Path:
    if pathlib.Path(text).suffix not in (".html", ".png"):
        raise argparse.ArgumentTypeError(f"{text!r} ends neither in .html nor in .png")
    return output_file(text)
