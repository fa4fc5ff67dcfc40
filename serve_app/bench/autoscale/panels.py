"""The report of an autoscaling test as panels of a figure, services overlaid: see figures.py."""

from collections.abc import Callable, Iterator
from itertools import cycle
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from serve_app.bench.figures import Panel, Report, plain_numbers

COLUMNS = 3
"""Panels of each shape, which make a row."""
COLOURS = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown")
_Trial = dict[str, Any]


def panels(report: Report) -> list[Panel]:
    shapes = dict.fromkeys(trial["shape"] for trial in report["trials"])
    return [_of(shape, draw) for shape in shapes for draw in (_requests, _replicas, _latency)]


def _of(shape: str, draw: Callable[[Axes, list[_Trial]], None]) -> Panel:
    def panel(axes: Axes, report: Report) -> None:
        trials = [trial for trial in report["trials"] if trial["shape"] == shape]
        draw(axes, trials)
        axes.set(title=f"{shape}: {axes.get_title()}", xlabel="seconds")
        axes.axvspan(trials[0]["rise_s"], trials[0]["fall_s"], color="gray", alpha=0.12)
        axes.legend(fontsize=7)

    return panel


def _coloured(trials: list[_Trial]) -> Iterator[tuple[_Trial, str]]:
    return zip(trials, cycle(COLOURS), strict=False)


def _seconds(trial: _Trial, key: str) -> tuple[list[float], list[float]]:
    values = [float("nan") if second[key] is None else second[key] for second in trial["timeline"]]
    return [second["at_s"] for second in trial["timeline"]], values


def _requests(axes: Axes, trials: list[_Trial]) -> None:
    axes.plot(*_seconds(trials[0], "offered"), color="gray", linestyle=":", label="offered")
    for trial, colour in _coloured(trials):
        axes.plot(*_seconds(trial, "good"), color=colour, label=trial["service"])
    what = "answered" if trials[0]["objective_ms"] is None else "answered within the objective"
    axes.set(ylabel="requests/s", title=what, ylim=(0, None))


def _replicas(axes: Axes, trials: list[_Trial]) -> None:
    for trial, colour in _coloured(trials):
        at_s = [look["at_s"] for look in trial["replicas"]]
        for key, style in (("running", "-"), ("wanted", ":")):
            values = [look[key] for look in trial["replicas"]]
            label = f"{trial['service']}, {key}"
            axes.step(at_s, values, where="post", color=colour, linestyle=style, label=label)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(ylabel="replicas", title="replicas", ylim=(0, None), xlim=(0, trials[0]["timeline"][-1]["at_s"]))


def _latency(axes: Axes, trials: list[_Trial]) -> None:
    for trial, colour in _coloured(trials):
        axes.plot(*_seconds(trial, "p99_ms"), color=colour, linewidth=1, label=trial["service"])
    if (objective_ms := trials[0]["objective_ms"]) is not None:
        axes.axhline(objective_ms, color="black", linestyle="--", linewidth=1, label="objective")
    axes.set(ylabel="ms", yscale="log", title="p99 of answers")
    plain_numbers(axes)
