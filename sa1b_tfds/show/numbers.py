"""A dataset's statistics as HTML: what is wrong with it, and its distributions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from html import escape
from typing import Any

from sa1b_tfds.core.text import counted, format_bytes
from sa1b_tfds.show.charts import histogram, number


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %" if value >= 0.1 else f"{100 * value:.2g} %"


# name -> (title, how to write a value)
_DISTRIBUTIONS: dict[str, tuple[str, Callable[[float], str]]] = {
    "masks_per_image": ("masks per image", number),
    "area_fraction": ("area of a mask, as a share of its image", _percent),
    "predicted_iou": ("predicted IoU", number),
    "stability_score": ("stability score", number),
    "short_side": ("short side in pixels", number),
    "long_side": ("long side in pixels", number),
}


def statistics_as_html(statistics: Mapping[str, Any]) -> str:
    """Converts statistics, from `Statistics.as_dict` or the JSON of `sa1b stats`, to HTML.

    Raises:
      ValueError: if `statistics` is something else.
    """
    try:
        return _as_html(statistics)
    except (KeyError, TypeError, AttributeError) as e:
        raise ValueError(f"These are not statistics of `sa1b stats --json`: {e!r}.") from e


def _as_html(statistics: Mapping[str, Any]) -> str:
    images, masks = statistics["images"], statistics["masks"]
    parts = counted(statistics["parts"], "part")
    charts = "".join(
        _distribution(title, write, statistics["distributions"][name])
        for name, (title, write) in _DISTRIBUTIONS.items()
    )
    return f"""{_wrong(statistics)}
<details><summary>Statistics of {counted(images, "image")}: {counted(masks, "mask")},
{format_bytes(statistics["jpeg_bytes"])} of JPEG, in {parts}</summary>
<div class="charts">{charts}</div></details>"""


def _distribution(title: str, write: Callable[[float], str], values: Mapping[str, Any]) -> str:
    """A histogram and the numbers that describe it; one number if all values are the same."""
    low, high, quantiles = values["min"], values["max"], values["quantiles"]
    if not values["count"]:
        return ""
    if low == high:
        return f'<p class="chart">{escape(title)}: <b>{write(low)}</b>, all of them</p>'
    median, near, far = (write(quantiles[name]) for name in ("0.5", "0.05", "0.95"))
    caption = (
        f"half are below {median}, nine of ten from {near} to {far};"
        f" all from {write(low)} to {write(high)}"
    )
    return histogram(title, values["counts"], values["edges"], caption, write)


def _wrong(statistics: Mapping[str, Any]) -> str:
    """A sentence for each kind of thing that is wrong, and its first case."""
    images, masks = statistics["images"], statistics["masks"]
    sentences = [
        _sentence(found["count"], images, "image", f"the {name} was there before", "")
        for name, found in statistics["duplicates"].items()
        if found["count"]
    ]
    sentences += [
        _sentence(found["count"], masks, "mask", found["what"], _first_case(found["first"]))
        for found in statistics["anomalies"].values()
        if found["count"]
    ]
    if left_out := statistics["problems"]["count"]:
        sentences.append(f"{left_out:,} could not be read")
    if not sentences:
        return "<p>Nothing is wrong in all that was read: no duplicates, no anomalies.</p>"
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    return f'<h2>What is wrong</h2><ul class="problems">{items}</ul>'


def _sentence(count: int, total: int, name: str, what: str, case: str) -> str:
    share = f" ({_percent(count / total)})" if total else ""
    return f"{count:,} of {counted(total, name)}{share}: {what}{case}"


def _first_case(first: list[Mapping[str, Any]]) -> str:
    """Where the first one is, and how wrong it is."""
    if not first:
        return ""
    case = first[0]
    detail = f", {case['detail']}" if case["detail"] else ""
    return f"; the first is in image {case['image_id']}{detail}"
