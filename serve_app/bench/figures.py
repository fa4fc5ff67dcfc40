"""Reports as figures: PNG, SVG or PDF, or an HTML page with the figure and its numbers in it.

A report is the dictionary that the command's `--json` prints.
"""

import html
from collections.abc import Callable, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, ScalarFormatter

from serve_app.bench import machine

SUFFIXES = (".html", ".png", ".svg", ".pdf")
Report = dict[str, Any]
Panel = Callable[[Axes, Report], None]
Table = tuple[Sequence[str], Sequence[Sequence[str]]]
"""Header and rows, as text."""

PANEL_INCHES = (5.2, 3.6)
STYLE: Any = {
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.size": 9,
    "svg.fonttype": "none",
}
STAGE_COLOURS = {
    "decode": "tab:orange",
    "resize": "tab:olive",
    "queue": "tab:red",
    "device": "tab:blue",
    "copy_in": "tab:cyan",
    "forward": "tab:blue",
    "copy_out": "tab:purple",
    "http": "tab:gray",
}
COMPARED = {"p50_ms": "p50, ms", "p99_ms": "p99, ms", "completed_per_s": "completed/s"}
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>
<style>
body{{font:15px system-ui,sans-serif;margin:2em auto;max-width:1100px;padding:0 1em}}
svg{{width:100%;height:auto}}
table{{border-collapse:collapse;margin:1em 0}}td,th{{padding:.2em .7em;text-align:right;border-bottom:1px solid #ccc}}
td:first-child,th:first-child{{text-align:left}}</style></head>
<body><h1>{title}</h1><p><code>{command}</code><br>{machine}</p>{figure}{tables}</body></html>
"""


def save(
    path: Path, title: str, report: Report, panels: Sequence[Panel], tables: Sequence[Table], columns: int = 2
) -> None:
    """Draw the panels, `columns` a row; into an HTML page with the tables, or as a picture, by the suffix of `path`."""
    with mpl.rc_context(STYLE):
        columns = min(columns, len(panels))
        rows = -(-len(panels) // columns)
        figure = Figure((PANEL_INCHES[0] * columns, PANEL_INCHES[1] * rows), layout="constrained")
        for number, panel in enumerate(panels, start=1):
            panel(figure.add_subplot(rows, columns, number), report)
        if path.suffix == ".html":
            path.write_text(_page(title, report, figure, tables), "utf-8")
        else:
            figure.suptitle(f"{title}\n{machine.phrase(report)}")
            figure.savefig(path, dpi=150)


def _page(title: str, report: Report, figure: Figure, tables: Sequence[Table]) -> str:
    svg = StringIO()
    figure.savefig(svg, format="svg")
    return PAGE.format(
        title=html.escape(title),
        command=html.escape(report["command"]),
        machine=html.escape(machine.phrase(report)),
        figure=svg.getvalue()[svg.getvalue().index("<svg") :],
        tables="".join(_html_table(*table) for table in tables),
    )


def _html_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    return f"<table>{line(header, 'th')}{''.join(line(row, 'td') for row in rows)}</table>"


# --- load ----------------------------------------------------------------------------------------


def load_panels(report: Report) -> list[Panel]:
    return [_latency, _answered, _batch_size, _stages, *([_missed] if report.get("deadlines_ms") else [])]


def _rows(report: Report) -> tuple[str, list[float], list[dict[str, Any]]]:
    """The open loop's rows by rate; where there are none, the closed loop's by concurrency.

    Of rates that were sent with deadlines untold and told, the latter.
    """
    open_loop = [row for row in report["rows"] if row["rate_per_s"] is not None]
    told = [row for row in open_loop if row.get("deadlines_told")]
    open_loop = told or open_loop
    key, label = ("rate_per_s", "offered, requests/s") if open_loop else ("concurrency", "requests in flight")
    rows = sorted(open_loop or report["rows"], key=lambda row: float(row[key]))
    return label, [row[key] for row in rows], rows


def _latency(axes: Axes, report: Report) -> None:
    label, x, rows = _rows(report)
    for name in ("p50_ms", "p90_ms", "p99_ms"):
        axes.plot(x, [row[name] for row in rows], marker="o", markersize=3, label=name.removesuffix("_ms"))
    if report["p99_bound_ms"]:
        axes.axhline(report["p99_bound_ms"], color="black", linestyle="--", linewidth=1, label="bound")
    axes.set(xlabel=label, ylabel="latency, ms", yscale="log", title="Latency")
    plain_numbers(axes)
    axes.legend()


def plain_numbers(axes: Axes) -> None:
    """On a logarithmic axis: 60, not 6 x 10^1."""
    axes.yaxis.set_major_formatter(ScalarFormatter())
    low, high = axes.get_ylim()
    if high > 5 * low:  # else 2 and 5 may be none of it
        axes.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))  # with all nine the labels touch each other
    axes.yaxis.set_minor_formatter(ScalarFormatter())


def _answered(axes: Axes, report: Report) -> None:
    label, x, rows = _rows(report)
    axes.plot(x, [row["offered_per_s"] for row in rows], color="gray", linestyle=":", label="offered")
    axes.plot(x, [row["completed_per_s"] for row in rows], marker="o", markersize=3, label="completed")
    if report["p99_bound_ms"]:
        axes.plot(x, [row["goodput_per_s"] for row in rows], marker="o", markersize=3, label="within the bound")
    axes.set(xlabel=label, ylabel="requests/s", title="Answered")
    axes.legend()


def _batch_size(axes: Axes, report: Report) -> None:
    label, x, rows = _rows(report)
    axes.plot(x, [row["mean_batch"] or float("nan") for row in rows], marker="o", markersize=3)
    axes.set(xlabel=label, ylabel="images per execution", title="Batch size", ylim=(0, None))


def _stages(axes: Axes, report: Report) -> None:
    label, x, rows = _rows(report)
    # One bar a rate: of a sweep's trial and its confirmation the latter.
    told = {f"{value:.4g}": row["stages_ms"] for value, row in zip(x, rows, strict=True) if row["stages_ms"]}
    _stacked(axes, list(told), list(told.values()))
    axes.set(xlabel=label, ylabel="mean ms", title="Time by stage")
    axes.tick_params(axis="x", rotation=45)


def _missed(axes: Axes, report: Report) -> None:
    """Of each deadline, told and untold, the share of the requests that missed it."""
    for told, style in ((False, ":"), (True, "-")):
        rows = sorted((row for row in report["rows"] if row["deadlines_told"] is told), key=lambda r: r["rate_per_s"])
        for deadline in rows[0]["deadlines"] if rows else ():
            missed = [row["deadlines"][deadline]["missed_percent"] for row in rows]
            label = f"{deadline} ms, {'told' if told else 'untold'}"
            axes.plot([row["rate_per_s"] for row in rows], missed, style, marker="o", markersize=3, label=label)
    axes.set(xlabel="offered, requests/s", ylabel="missed, %", title="Deadlines", ylim=(0, None))
    axes.legend()


# --- forward -------------------------------------------------------------------------------------


def forward_panels(report: Report) -> list[Panel]:
    return [_throughput, _architectures, _precisions, _shares]


def _throughput(axes: Axes, report: Report) -> None:
    rows = [row for row in report["batch"]["rows"] if not row["error"]]
    sizes = [row["batch_size"] for row in rows]
    bounds = [[row["batch_size"] / ms * 1e3 for ms in row["ms_per_batch_spread"]] for row in rows]
    axes.fill_between(sizes, [low for _, low in bounds], [high for high, _ in bounds], alpha=0.2)
    axes.plot(sizes, [row["images_per_s"] for row in rows], marker="o", markersize=3)
    knee = report["batch"]["knee"]
    axes.axvline(knee, color="black", linestyle="--", linewidth=1, label=f"knee: {knee}")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    failed = [row["batch_size"] for row in report["batch"]["rows"] if row["error"]]
    if failed:
        axes.axvline(failed[0], color="tab:red", linewidth=1, label=f"out of memory: {failed[0]}")
    axes.set(xlabel="batch size", ylabel="images/s", title="Batch size", ylim=(0, None))
    axes.legend()


def _architectures(axes: Axes, report: Report) -> None:
    _pairs(axes, [row["arch"] for row in report["archs"]], report["archs"])
    axes.set(title="Architecture")


def _precisions(axes: Axes, report: Report) -> None:
    rows = report["precisions"]
    _pairs(axes, [f"{row['how']} {row['precision']}\n{row['device']}" for row in rows], rows)
    axes.set(title="Precision and device")


def _pairs(axes: Axes, names: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    """One by one and batched, side by side."""
    positions = range(len(rows))
    batched = f"batches of {rows[0]['batch_size']}"
    for shift, key, label in ((-0.2, "images_per_s_one", "one by one"), (0.2, "images_per_s", batched)):
        axes.bar([x + shift for x in positions], [row[key] or 0.0 for row in rows], width=0.4, label=label)
    axes.set_xticks(list(positions), names)
    axes.set(ylabel="images/s")
    axes.legend()


def _shares(axes: Axes, report: Report) -> None:
    stages = report["stages"]["ms_per_image"]
    axes.barh(list(stages), list(stages.values()), color=[STAGE_COLOURS[stage] for stage in stages])
    axes.invert_yaxis()
    axes.set(xlabel=f"ms per image, in batches of {report['stages']['batch_size']}", title="Stages of an image")


# --- compare -------------------------------------------------------------------------------------


def compare_panels(report: Report) -> list[Panel]:
    return [_saturation, _compared("p50_ms"), _compared("p99_ms"), _compared("completed_per_s")]


def _saturation(axes: Axes, report: Report) -> None:
    """Of each service with requests always in flight; the bare loops as lines."""
    done = {result["name"]: result["rows"][0]["completed_per_s"] for result in report["results"] if result["rows"]}
    axes.barh(list(done), list(done.values()))
    for loop, style in zip(report["bare"], ("-", "--", ":", "-."), strict=False):
        axes.axvline(loop["images_per_s"], color="black", linestyle=style, linewidth=1, label=loop["name"])
    axes.set(xlabel="images/s", title="Closed loop", ylim=(len(done) - 0.5, -0.5))
    if report["bare"]:
        axes.set_ylim(top=-0.5 - len(done) / 3)  # room for the legend, which would hide the first bar
        axes.legend(fontsize=7)


def _compared(figure: str) -> Panel:
    """One figure of every service against the rate offered."""

    def panel(axes: Axes, report: Report) -> None:
        for result in report["results"]:
            rows = [row for row in result["rows"] if row["rate_per_s"] is not None]
            values = [float("nan") if row[figure] is None else row[figure] for row in rows]
            axes.plot([row["rate_per_s"] for row in rows], values, marker="o", markersize=3, label=result["name"])
        axes.set(xlabel="offered, requests/s", ylabel=COMPARED[figure], title=f"Open loop: {COMPARED[figure]}")
        if figure.endswith("_ms"):
            axes.set(yscale="log")
            plain_numbers(axes)
        axes.legend(fontsize=7)

    return panel


# --- shared --------------------------------------------------------------------------------------


def _stacked(axes: Axes, names: Sequence[str], bars: Sequence[dict[str, float]]) -> None:
    bottom = [0.0] * len(names)
    for stage in bars[0] if bars else ():
        heights = [bar[stage] for bar in bars]
        axes.bar(names, heights, bottom=bottom, label=stage, color=STAGE_COLOURS.get(stage))
        bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
    if bars:
        axes.legend()
