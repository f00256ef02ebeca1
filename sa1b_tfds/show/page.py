"""One self-contained page of HTML: thumbnails, masks over them, scores, statistics.

Nothing on it is trusted: all text is escaped, pictures are drawn anew and not copied from the
source, and a Content-Security-Policy forbids scripts and anything from outside, so that hovering
and the toggle are CSS.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from PIL import Image

from sa1b_tfds.core.problems import BadInput, summed_up
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
h1 { font-size: 1.3rem; overflow-wrap: anywhere }
main, .charts { display: flex; flex-wrap: wrap; gap: 1rem; align-items: flex-start }
figure { margin: 0 }
.image { width: min(24rem, 100%) }
.image figcaption { overflow-wrap: anywhere }
.picture { position: relative; background: #8884 }
.picture img { display: block; width: 100% }
.picture .masks { position: absolute; inset: 0; height: 100%; opacity: 0 }
.picture:hover .masks, #all:checked ~ main .masks { opacity: .55 }
.chart { width: 16rem }
.chart rect { fill: #1e90ff }
.chart line { stroke: currentColor }
.chart text { fill: currentColor; font-size: 11px }
details { max-height: 20rem; overflow: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .1rem .5rem; text-align: right; font-weight: normal; white-space: nowrap }
th:first-child, td:first-child { text-align: left }
td i { display: inline-block; width: .8em; height: .8em; margin-right: .4em }
.problems { color: #c22 }
"""


def make_page(
    examples: Iterable[Example],
    title: str = "SA-1B",
    statistics: Mapping[str, Any] | None = None,
    problems: Sequence[BadInput] = (),
    long_side: int = 480,
) -> str:
    """Makes a page that needs no other file and no network.

    Args:
      examples: as `sa1b_tfds.examples.parts.read_examples` gives them.
      title: its heading.
      statistics: of the dataset, as `sa1b_tfds.stats.Statistics.as_dict` gives them.
      problems: what could not be read; the first of each kind are listed.
      long_side: of the thumbnails, in pixels.

    Returns:
      The HTML. Each image is followed by a PNG of its masks, opaque, in the masks' colours.

    Raises:
      ValueError: if an example's JPEG does not decode.
    """
    above = "" if statistics is None else statistics_as_html(statistics)
    images = [_image(example, long_side) for example in examples]
    listed = "".join(f"<li>{escape(line)}</li>" for line in summed_up(problems))
    if listed:
        listed = f'<h2>Left out</h2><ul class="problems">{listed}</ul>'
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
{above}{listed}
<h2>{len(images)} images</h2>
<input type="checkbox" id="all"> <label for="all">show all masks</label> (or point at an image)
<main>
{"".join(images)}</main>
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
            overlay.colours(columns["id"]),
            columns["id"],
            columns["area"],
            columns["predicted_iou"],
            columns["stability_score"],
            strict=True,
        )
    )
    name = escape(example.file_name)
    return f"""<figure class="image">
<div class="picture">
<img alt="{name}" src="{_data("jpeg", _jpeg(picture.image))}">
<img class="masks" alt="its masks" src="{_data("png", pictures.encode_png(picture.layer()))}">
</div>
<figcaption><b>{name}</b>, id {example.image_id}, {width} x {height}, {len(picture.masks)} masks
{_means(columns)}</figcaption>
<details><summary>masks</summary>
<table><tr><th>id</th><th>pixels</th><th>predicted IoU</th><th>stability</th></tr>
{rows}</table></details>
</figure>
"""


def _means(columns: dict[str, np.ndarray]) -> str:
    if not len(columns["id"]):
        return ""
    return (
        f"<br>mean predicted IoU {columns['predicted_iou'].mean():.3f},"
        f" stability {columns['stability_score'].mean():.3f},"
        f" area {number(round(columns['area'].mean()))} pixels"
    )


def _jpeg(pixels: np.ndarray) -> bytes:
    return jpeg.encode(Image.fromarray(pixels), _QUALITY)


def _data(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
