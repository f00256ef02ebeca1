"""A dataset's statistics as HTML: a table, histograms, duplicates and anomalies."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from sa1b_tfds.show.charts import histogram, number

_TITLES = {
    "masks_per_image": "masks per image",
    "area_fraction": "area, as a share of the image (logarithmic)",
    "predicted_iou": "predicted IoU",
    "stability_score": "stability score",
    "short_side": "short side, in pixels",
    "long_side": "long side, in pixels",
}
_QUANTILES = ("0.05", "0.5", "0.95")


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
    distributions = statistics["distributions"]
    rows = "".join(_row(title, distributions[name]) for name, title in _TITLES.items())
    charts = "".join(
        histogram(title, distributions[name]["counts"], distributions[name]["edges"])
        for name, title in _TITLES.items()
        if distributions[name]["counts"]
    )
    return f"""<h2>All {statistics["images"]:,} images of {statistics["parts"]:,} parts</h2>
<p>{statistics["masks"]:,} masks, {statistics["jpeg_bytes"] / 1e9:.3f} GB of JPEG</p>
<div class="charts">{charts}</div>
<table><tr><th></th><th>min</th><th>5%</th><th>median</th><th>95%</th><th>max</th><th>mean</th></tr>
{rows}</table>
{_wrong(statistics)}"""


def _row(title: str, distribution: Mapping[str, Any]) -> str:
    quantiles = [distribution["quantiles"][name] for name in _QUANTILES]
    values = [distribution["min"], *quantiles, distribution["max"], distribution["mean"]]
    cells = "".join(f"<td>{'-' if v is None else number(v)}</td>" for v in values)
    return f"<tr><td>{escape(title)}</td>{cells}</tr>\n"


def _wrong(statistics: Mapping[str, Any]) -> str:
    """Counts duplicates, anomalies and problems of each kind. `sa1b stats` names the images."""
    found = {f"the {name} was there before": d for name, d in statistics["duplicates"].items()}
    found |= {anomaly["what"]: anomaly for anomaly in statistics["anomalies"].values()}
    found["could not be read"] = statistics["problems"]
    items = "".join(
        f"<li>{f['count']:,}: {escape(what)}</li>" for what, f in found.items() if f["count"]
    )
    if not items:
        return "<p>No duplicates, no anomalies, nothing that could not be read.</p>"
    return f'<ul class="problems">{items}</ul>'
