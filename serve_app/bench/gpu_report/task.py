"""A row of the report: what measures it, how long that takes, and what it may use."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from serve_app.bench.generator import Run
from serve_app.bench.gpu_report.known import Known
from serve_app.bench.gpu_report.line import Bar, Line
from serve_app.bench.gpu_report.scale import Scale
from serve_app.bench.gpu_report.subject import Subject
from serve_app.bench.images import Images
from serve_app.bench.load import LoadTest

T = TypeVar("T")

LIMIT_S = 120.0
"""Of a row that is measured in a process of its own: one that hangs must leave time to the others."""


class NotMeasured(RuntimeError):
    """Why a row has no figure, in a phrase."""


class Serve(Protocol):
    """Starts the service that `content` describes; a test that sends `run` to it, while it runs."""

    def __call__(
        self, content: dict[str, Any], environment: Mapping[str, str], run: Run, start_timeout_s: float
    ) -> AbstractContextManager[LoadTest]: ...


@dataclass(frozen=True)
class Context:
    """What a row may use."""

    subject: Subject
    pictures: Images
    scale: Scale
    known: Known
    serve: Serve
    left_s: Callable[[], float]
    """Of the budget."""

    @property
    def limit_s(self) -> float:
        """What a process that measures may take."""
        return max(1.0, min(LIMIT_S, self.left_s()))

    def needs_gpu(self) -> None:
        """Raises NotMeasured where there is none."""
        if not self.subject.on_gpu:
            raise NotMeasured("needs a GPU")


def gathered(items: Iterable[T]) -> tuple[list[T], Exception | None]:
    """As many as come, and what ended them early: that much is worth a line."""
    found: list[T] = []
    try:
        found.extend(items)
    except Exception as error:
        return found, error
    return found, None


@dataclass(frozen=True)
class Task:
    section: int
    what: str
    expected_s: Callable[[Known], float]
    """What it takes on a GPU."""
    run: Callable[[Context], Iterator[Line]]
    """Its lines, as they come. What it raises is why the rest of them is not there."""
    bar: Bar | None = None
    """Of what would not be there."""
    serves: bool = False
    """Whether it starts services, which show their own progress."""
