"""The figures that later rows, and the verdicts, are made of."""

from dataclasses import dataclass, field

from serve_app.bench.load import Row

P99_MS = 100.0
"""What the most requests/s have to keep."""


@dataclass
class Served:
    """What one number of replicas did."""

    closed: list[Row] = field(default_factory=list)
    lone: Row | None = None
    open: Row | None = None

    @property
    def best(self) -> Row | None:
        """The closed loop with the most answers/s, of those that keep P99_MS if any does."""
        answered = [row for row in self.closed if row.median.p99_ms is not None]
        return max(answered, key=lambda row: (keeps(row), row.median.completed_per_s), default=None)


@dataclass
class Known:
    compiles: bool = True
    """Whether the service may compile: False once that was seen to fail, or to take too long."""
    start_s: float | None = None
    """Of the last service that was started."""
    forward: dict[str, dict[int, float]] = field(default_factory=dict)
    """How it is run -> batch size -> images/s of the network alone."""
    bucket_ms: dict[int, float] = field(default_factory=dict)
    """Batch size -> milliseconds of one execution."""
    cpu_decode_per_s: float | None = None
    """Images/s of every core together, as of one alone."""
    gpu_decode: dict[int, float] = field(default_factory=dict)
    """Batch size -> images/s."""
    served: dict[int, Served] = field(default_factory=dict)
    """By the number of replicas."""
    tutorial: Row | None = None

    @property
    def best_replicas(self) -> int | None:
        """The number of replicas with the best closed loop."""
        rows = {replicas: row for replicas, served in self.served.items() if (row := served.best)}
        return max(rows, key=lambda n: (keeps(rows[n]), rows[n].median.completed_per_s), default=None)


def keeps(row: Row) -> bool:
    """Whether its p99 is under P99_MS."""
    p99_ms = row.median.p99_ms
    return p99_ms is not None and p99_ms < P99_MS
