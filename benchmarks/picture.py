"""Draws a report, which it reads as JSON: ``python -m benchmarks.picture FILE.svg``. Alone, because of matplotlib.

One panel of bars for ``chart``'s column, or one for each column that holds numbers; a bar for each row.
"""

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
from matplotlib import pyplot
from matplotlib.axes import Axes

OURS, OTHERS, TEXT, FAINT = "#0f766e", "#b6c2cf", "#1f2933", "#7b8794"

WIDEST = 3
"""Panels side by side."""

MANY_TIMES = 500
"""Largest value in times of the smallest beyond which bars on a linear scale show nothing of the small ones."""

_NUMBER = re.compile(r"-?[0-9][0-9,]*(?:\.[0-9]+)?")

STYLE = {
    "svg.hashsalt": "parley",  # the same figures give the same file
    "svg.fonttype": "path",
    "font.size": 9.5,
    "text.color": TEXT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.bottom": False,
    "axes.edgecolor": "#cbd2d9",
    "ytick.left": False,
    "ytick.labelcolor": TEXT,
}


@dataclass(frozen=True, slots=True)
class Panel:
    """``said``: the cells as they stand in the table, shown at the bars' ends."""

    title: str
    values: Sequence[float]
    said: Sequence[str]


def number(cell: object) -> float | None:
    found = _NUMBER.match(str(cell).removeprefix("over ").strip())
    return float(found[0].replace(",", "")) if found else None


def panels(columns: Sequence[str], rows: Sequence[Sequence[object]], chart: int | None) -> Sequence[Panel]:
    """Without the labels' column; of cells that are no number, none."""
    shown = []
    for index in [chart] if chart is not None else range(1, len(columns)):
        numbers = [number(row[index]) for row in rows]
        if any(value is not None for value in numbers):
            shown.append(Panel(columns[index], [value or 0.0 for value in numbers], [str(row[index]) for row in rows]))
    return shown


def label(row: Sequence[object], columns: Sequence[str]) -> str:
    name = str(row[0])
    return f"{columns[0]}: {name}" if number(name) is not None else name


def draw_panel(axes: Axes, panel: Panel, labels: Sequence[str]) -> None:
    beside = any("Parley" in name for name in labels)
    colours = [OURS if not beside or "Parley" in name else OTHERS for name in labels]
    bars = axes.barh(range(len(labels)), panel.values, color=colours, height=0.62)
    positive = [value for value in panel.values if value > 0]
    largest = max(positive, default=1.0)
    logarithmic = bool(positive) and largest / min(positive) > MANY_TIMES
    if logarithmic:
        axes.set_xscale("log")
        axes.set_xlim(min(positive) / 3, largest * 6)
    else:
        axes.set_xlim(0, largest * 1.3)
    axes.bar_label(bars, panel.said, padding=4, color=TEXT, fontsize=9)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)  # the first row on top
    axes.set_xticks([])
    axes.minorticks_off()
    axes.set_title(panel.title + (" (logarithmic)" if logarithmic else ""), loc="left", fontsize=10, color=FAINT)


def draw(report: dict[str, object], file: str) -> None:
    columns, rows = report["columns"], report["rows"]
    chart = report["chart"]
    assert isinstance(columns, list)
    assert isinstance(rows, list)
    shown = panels(columns, rows, chart if isinstance(chart, int) else None)
    labels = [label(row, columns) for row in rows]
    across = min(WIDEST, max(1, len(shown)))
    down = -(-len(shown) // across) or 1
    mpl.rcParams.update(STYLE)
    size = (7.6 if across == 1 else 3.6 * across, 0.6 + down * (0.55 + 0.36 * max(1, len(labels))))
    figure, grid = pyplot.subplots(down, across, figsize=size, squeeze=False, sharey=True, layout="constrained")
    figure.suptitle(str(report["title"]), x=0.01, ha="left", fontsize=12, fontweight="bold")
    for place in grid.flat[len(shown) :]:
        place.set_axis_off()
    for axes, panel in zip(grid.flat, shown, strict=False):
        draw_panel(axes, panel, labels)
    figure.savefig(file, metadata={"Date": None}, facecolor="white")


if __name__ == "__main__":
    draw(json.load(sys.stdin), sys.argv[1])
