"""The report of an overload test as panels of a figure: see figures.py."""

from typing import Any

from matplotlib.axes import Axes

from serve_app.bench.figures import Panel, Report, plain_numbers


def panels(report: Report) -> list[Panel]:
    return [_requests, _latency, _memory, _climb]


def _seconds(axes: Axes, report: Report, key: str, **style: Any) -> None:
    """One figure of the timeline, by second."""
    values = [float("nan") if second[key] is None else second[key] for second in report["timeline"]]
    axes.plot([second["at_s"] for second in report["timeline"]], values, **style)


def _overload(axes: Axes, report: Report) -> None:
    begin_s = report["quiet_s"]
    axes.axvspan(begin_s, begin_s + report["overload_s"], color="tab:red", alpha=0.08)
    axes.set(xlabel="seconds")


def _requests(axes: Axes, report: Report) -> None:
    _seconds(axes, report, "offered", color="gray", linestyle=":", label="offered")
    _seconds(axes, report, "good", label="within the objective")
    _seconds(axes, report, "refused", color="tab:red", label="refused")
    axes.axhline(report["peak_per_s"], color="black", linestyle="--", linewidth=1, label="peak")
    _overload(axes, report)
    axes.set(ylabel="requests/s", title="Requests", ylim=(0, None))
    axes.legend(fontsize=7)


def _latency(axes: Axes, report: Report) -> None:
    for key in ("p50_ms", "p99_ms"):
        _seconds(axes, report, key, label=key.removesuffix("_ms"))
    axes.axhline(report["objective_ms"], color="black", linestyle="--", linewidth=1, label="objective")
    _overload(axes, report)
    axes.set(ylabel="ms", yscale="log", title="Latency of answers")
    plain_numbers(axes)
    axes.legend(fontsize=7)


def _memory(axes: Axes, report: Report) -> None:
    _seconds(axes, report, "memory_mib")
    _overload(axes, report)
    axes.set(ylabel="MiB", title="Resident memory of the replicas", ylim=(0, None))


def _climb(axes: Axes, report: Report) -> None:
    rows = sorted((row for row in report["phases"] if row["phase"] == "peak"), key=lambda row: row["rate_per_s"])
    axes.plot([row["rate_per_s"] for row in rows], [row["goodput_per_s"] for row in rows], marker="o", markersize=3)
    axes.axhline(report["peak_per_s"], color="black", linestyle="--", linewidth=1, label="peak")
    axes.set(xlabel="offered, requests/s", ylabel="within the objective/s", title="Peak", ylim=(0, None))
    axes.legend(fontsize=7)
