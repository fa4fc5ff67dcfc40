"""The rows of a load test: as cells of a table, and what their figures have in them that is not the service."""

from collections.abc import Sequence

from serve_app.bench import machine
from serve_app.bench.load import MAX_STOLEN, SPREAD, Row
from serve_app.cli.bench import output
from serve_app.cli.bench.output import number

HEADER = ("offered/s", "done/s", "good/s", "p50 ms", "p90", "p99", "p99.9", "max", "batch", "failed")
DEADLINE_HEADER = ("offered/s", "within ms", "sent", "missed %", "refused %", "expired %", "p50 ms", "p99")
REFUSAL_HEADER = ("offered/s", "refused", "p50 ms", "p99", "max", "with Retry-After")


def cells(row: Row) -> list[str]:
    """In the order of HEADER."""
    s = row.median
    offered = number(s.offered_per_s) if row.run.concurrency is None else f"{row.run.concurrency} at once"
    if row.run.deadlines_ms:
        offered += " told" if row.run.deadlines_told else " untold"
    latencies = [number(value) for value in (s.p50_ms, s.p90_ms, s.p99_ms, s.p999_ms, s.max_ms)]
    rates = [offered, number(s.completed_per_s), number(s.goodput_per_s)]
    return [*rates, *latencies, number(s.mean_batch), f"{sum(s.errors.values()):,}"]


def deadline_cells(rows: Sequence[Row]) -> list[list[str]]:
    """In the order of DEADLINE_HEADER: for each row and deadline, what share of its requests missed it."""
    return [
        [
            cells(row)[0],
            f"{one.deadline_ms:g}",
            f"{one.requests:,}",
            *(number(one.percent(count)) for count in (one.missed, one.refused, one.expired)),
            *(number(one.p50_ms), number(one.p99_ms)),
        ]
        for row in rows
        for one in row.median.deadlines.values()
    ]


def print_deadlines(rows: Sequence[Row]) -> None:
    """Where requests had deadlines: how many missed them."""
    if table := deadline_cells(rows):
        output.print_table(DEADLINE_HEADER, table, title="by deadline")


def print_refusals(rows: Sequence[Row]) -> None:
    """Where any were refused: how soon, and whether they were told when to try again."""
    table = [
        [
            *(cells(row)[0], f"{refusals.count:,}"),
            *(number(ms) for ms in (refusals.p50_ms, refusals.p99_ms, refusals.max_ms)),
            f"{refusals.with_retry_after:,}",
        ]
        for row in rows
        if (refusals := row.median.refusals).count
    ]
    if table:
        output.print_table(REFUSAL_HEADER, table, title="refused with 503")


def spread(row: Row) -> list[str]:
    """Least and most over the repeats, of each figure in `load.SPREAD`; empty where there was one run."""
    if len(row.summaries) == 1:
        return [""] * len(SPREAD)
    bounds = row.as_dict()["spread"].values()
    return ["-".join(number(value) for value in bound) if bound else output.NO_FIGURE for bound in bounds]


def print_spread(rows: Sequence[Row]) -> None:
    """Of the repeats, where there were any, least and most."""
    table = [[cells(row)[0], *spread(row)] for row in rows if len(row.summaries) > 1]
    if table:
        output.print_table(("offered/s", "done/s", "p50 ms", "p99 ms"), table, title="least and most of the repeats")


def warn_if_lagged(rows: Sequence[Row]) -> None:
    """Of a generator that had no core for itself, latencies are its own in part."""
    late = [row for row in rows if row.median.lagged]
    if late:
        worst = max(late, key=lambda row: row.median.lag_p99_ms)
        output.stderr.print(
            f"[yellow]warning[/] in {len(late)} of these runs the generator sent late (at {cells(worst)[0]} by "
            f"{worst.median.lag_p99_ms:.1f} ms, p99), and the latencies have that in them: give it cores of its own, "
            "another machine, or more --processes",
            soft_wrap=True,
        )


def warn_if_stolen(rows: Sequence[Row]) -> None:
    """Of a virtual machine whose host was busy with others, the figures are not its own."""
    stolen = max((summary.stolen_cores for row in rows for summary in row.summaries), default=0.0)
    if stolen > MAX_STOLEN * machine.num_cores():
        output.stderr.print(
            f"[yellow]warning[/] this machine's host took up to {stolen:.2f} of its {machine.num_cores()} cores "
            "for others (steal): what was measured meanwhile may be twice too slow",
            soft_wrap=True,
        )


def print_generator(row: Row, processes: int) -> None:
    s = row.median
    many = "es" if processes > 1 else ""
    output.stderr.print(
        f"generator: {processes} process{many}, {s.generator_cores:.2f} cores, "
        f"sent late by {s.lag_p50_ms:.1f} ms (p50), {s.lag_p99_ms:.1f} ms (p99)",
        soft_wrap=True,
    )
