"""One self-contained HTML page: thumbnails with masks, scores and statistics.

No input is trusted. All text is escaped. Pictures are encoded again, not copied from the source. A
Content-Security-Policy forbids scripts and everything from outside; so hovering and the toggle are
CSS.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from PIL import Image

from sa1b_tfds.core.problems import BadInput, summed_up
from sa1b_tfds.core.text import counted
from sa1b_tfds.examples import jpeg
from sa1b_tfds.examples.example import Example
from sa1b_tfds.masks import overlay
from sa1b_tfds.show import pictures
from sa1b_tfds.show.charts import number
from sa1b_tfds.show.numbers import statistics_as_html

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_QUALITY = 85
_STYLE = """
:root { color-scheme: light dark; font: 15px/1.4 system-ui, sans-serif }
body { margin: 1.5rem }
h1 { font-size: 1.4rem; margin-bottom: 0; overflow-wrap: anywhere }
main, .charts { display: flex; flex-wrap: wrap; gap: 1rem; align-items: start; margin: 1rem 0 }
main::after { content: ""; flex-grow: 99 }
figure { margin: 0; flex: var(--shape) 1 calc(var(--shape) * 16rem) }
.image figcaption { overflow-wrap: anywhere }
.picture { position: relative; background: #8884 }
.picture img { display: block; width: 100% }
.picture .masks { position: absolute; inset: 0; width: 100%; height: 100%; opacity: 0 }
#masks:checked ~ main .masks, .picture:hover .masks { opacity: 1 }
#masks:checked ~ main .picture:hover .masks { opacity: 0 }
.chart { width: min(16rem, 100%) }
.chart rect { fill: #1e90ff }
.chart line { stroke: currentColor }
.chart text { fill: currentColor; font-size: 11px }
.image details { max-height: 20rem; overflow: auto }
summary { cursor: pointer; margin: 1rem 0 }
.image summary { margin: 0 }
small { opacity: .8 }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .1rem .4rem; text-align: right; font-weight: normal }
th:first-child, td:first-child { text-align: left }
td i { display: inline-block; width: .8em; height: .8em; margin-right: .4em }
.problems { color: #c22 }
"""


def make_page(
    examples: Iterable[Example],
    title: str | None = None,
    statistics: Mapping[str, Any] | None = None,
    problems: Sequence[BadInput] = (),
    long_side: int = 480,
) -> str:
    """Makes an HTML page that needs no other file and no network.

    Args:
      examples: as `sa1b_tfds.examples.read_examples` gives them.
      title: its heading. Defaults to the numbers of images and masks.
      statistics: of the dataset, as `sa1b_tfds.stats.Statistics.as_dict` gives them.
      problems: what could not be read; the first of each kind are listed.
      long_side: of the thumbnails, in pixels.

    Returns:
      The HTML. Over each image lies a PNG of its masks, which one can switch off.

    Raises:
      ValueError: if an example's JPEG does not decode.
    """
    below = links = ""
    if statistics is not None:
        below = f'<section id="statistics">{statistics_as_html(statistics)}</section>'
        links = '<a href="#statistics">statistics</a>'
    examples = list(examples)
    images = [_image(example, long_side) for example in examples]
    if title is None:
        masks = sum(len(example.masks.counts) for example in examples)
        title = f"SA-1B sample: {counted(len(images), 'image')}, {counted(masks, 'mask')}"
    listed = "".join(f"<li>{escape(line)}</li>" for line in summed_up(problems))
    if listed:
        listed = f'<h2 id="left-out">Left out</h2><ul class="problems">{listed}</ul>'
        links += f' <a class="problems" href="#left-out">{len(problems):,} left out</a>'
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{escape(title)}</h1>
<input type="checkbox" id="masks" checked> <label for="masks">masks</label>
<small>(point at an image, or touch it, to switch)</small>
{links}
<main>
{"".join(images)}</main>
{listed}
{below}
</body>
</html>
"""


def _image(example: Example, long_side: int) -> str:
    picture = pictures.picture_of(example, long_side)
    columns = example.annotations
    height, width = example.masks.size
    rows = "".join(
        f'<tr><td><i style="background: #{bytes(colour).hex()}"></i>{mask_id}</td>'
        f"<td>{area:,}</td><td>{iou:.3f}</td><td>{stability:.3f}</td></tr>"
        for colour, mask_id, area, iou, stability in zip(
            overlay.colours(range(len(columns["id"]))),
            columns["id"],
            columns["area"],
            columns["predicted_iou"],
            columns["stability_score"],
            strict=True,
        )
    )
    name = escape(example.file_name)
    layer = pictures.encode_png(overlay.layer(picture.masks))
    return f"""<figure class="image" style="--shape: {width / height:.3f}">
<div class="picture">
<img alt="{name}" src="{_data("jpeg", _jpeg(picture.image))}">
<img class="masks" alt="its masks" src="{_data("png", layer)}">
</div>
<figcaption><b>{name}</b>, {width} x {height}, {counted(len(picture.masks), "mask")}</figcaption>
<details><summary>id {example.image_id}{_means(columns)}</summary>
<table><tr><th>id</th><th>pixels</th><th>predicted IoU</th><th>stability</th></tr>
{rows}</table></details>
</figure>
"""


def _means(columns: dict[str, np.ndarray]) -> str:
    if not len(columns["id"]):
        return ""
    return (
        f"; means: predicted IoU {columns['predicted_iou'].mean():.3f},"
        f" stability {columns['stability_score'].mean():.3f},"
        f" area {number(round(columns['area'].mean()))} pixels"
    )


def _jpeg(pixels: np.ndarray) -> bytes:
    return jpeg.encode(Image.fromarray(pixels), _QUALITY)


def _data(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
