"""The report of a soak as panels of a figure: see figures.py."""

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from serve_app.bench.figures import Panel, Report, plain_numbers
from serve_app.bench.torture.census import REPLICAS


def panels(report: Report) -> list[Panel]:
    return [_latency, _failures, _replicas, _memory, _usage("descriptors"), _usage("threads")]


def _minutes(axes: Axes, report: Report) -> list[int]:
    axes.set(xlabel="minute")
    return [one["minute"] for one in report["minutes"]]


def _warm_up(axes: Axes, minutes: float, label: str) -> None:
    axes.axvspan(-0.5, minutes - 0.5, color="gray", alpha=0.12, label=label)


def _latency(axes: Axes, report: Report) -> None:
    at = _minutes(axes, report)
    for key in ("p50_ms", "p99_ms"):
        values = [float("nan") if one[key] is None else one[key] for one in report["minutes"]]
        axes.plot(at, values, marker="o", markersize=3, label=key.removesuffix("_ms"))
    _warm_up(axes, report["warm_up_minutes"], "warm-up")
    axes.set(ylabel="ms", title="Latency of good requests", ylim=(0, None))
    axes.legend(fontsize=7)


def _failures(axes: Axes, report: Report) -> None:
    at = _minutes(axes, report)
    for key, label, width in (("failed", "good ones, failed", 0.8), ("hostile_failed", "hostile ones, not borne", 0.4)):
        axes.bar(at, [one[key] for one in report["minutes"]], width=width, label=label)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(ylabel="requests", title="Failures")
    axes.set_ylim(0, max(1.0, axes.get_ylim()[1]))
    axes.legend(fontsize=7)


def _replicas(axes: Axes, report: Report) -> None:
    """Every look, and the line through those that count."""
    looks = report["looks"]
    at = [seconds / report["minute_s"] for seconds in looks["seconds"]]
    axes.plot(at, looks.get(REPLICAS, [float("nan")] * len(at)), linewidth=0.8)
    trend = report["trends"].get(REPLICAS)
    if trend:
        begin, end = report["settle_minutes"], len(report["minutes"])
        rise = trend["per_hour"] * (end - begin) * report["minute_s"] / 3600
        label = f"{trend['per_hour']:+.1f} ± {trend['noise_per_hour']:.1f} MiB/h"
        ends = [trend["level"] - rise / 2, trend["level"] + rise / 2]
        axes.plot([begin, end], ends, color="black", linestyle="--", linewidth=1, label=label)
    axes.axvspan(0, report["settle_minutes"], color="gray", alpha=0.12, label="left out")
    axes.set(xlabel="minute", ylabel="MiB", title="Resident memory of the replicas")
    axes.legend(fontsize=7)


def _memory(axes: Axes, report: Report) -> None:
    _kinds(axes, report, "memory_mib")
    axes.set(yscale="log", ylabel="MiB", title="Resident memory of each kind of process")
    plain_numbers(axes)


def _usage(figure: str) -> Panel:
    def panel(axes: Axes, report: Report) -> None:
        _kinds(axes, report, figure)
        axes.set(ylabel=figure, title=figure.capitalize(), ylim=(0, None))

    return panel


def _kinds(axes: Axes, report: Report, figure: str) -> None:
    at = _minutes(axes, report)
    for kind in report["minutes"][0]["usage"]:
        usage = [one["usage"].get(kind) for one in report["minutes"]]
        axes.plot(at, [one[figure] if one else float("nan") for one in usage], label=kind)
    axes.legend(fontsize=7)
