"""Rows of load tests, and contexts, that nothing was measured for."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

import pytest

from serve_app.bench import images
from serve_app.bench.generator import Run
from serve_app.bench.gpu_report.known import Known
from serve_app.bench.gpu_report.scale import QUICK
from serve_app.bench.gpu_report.subject import Subject
from serve_app.bench.gpu_report.task import Context, Serve
from serve_app.bench.load import LoadTest, Row
from serve_app.bench.samples import Summary
from tests.bench.test_load import Scripted
from tests.bench.test_samples import samples, summary

GPU = Subject("resnet50", "random.safetensors", True, "cuda:0", 16)
CPU = Subject("resnet18", "random.safetensors", True, "cpu", 2)
SOME = summary(samples([0.01]))


def row(per_s: float, p99_ms: float | None = 20.0, p50_ms: float | None = 10.0, **run: Any) -> Row:
    """Of a single run."""
    return Row(Run("", 1, **run), (of(per_s, p99_ms, p50_ms),))


def of(per_s: float, p99_ms: float | None = 20.0, p50_ms: float | None = 10.0) -> Summary:
    return replace(SOME, completed_per_s=per_s, p99_ms=p99_ms, p50_ms=p50_ms)


def context(subject: Subject = CPU, serve: Any = None, left_s: Callable[[], float] = lambda: 100.0) -> Context:
    return Context(subject, images.generated(64, 64), QUICK, Known(), cast(Serve, serve or refusing), left_s)


def refusing(*_: object) -> Any:
    pytest.fail("no service is to be started")


class Services:
    """Stands for the services: what was to be started, and answers as a script has it."""

    def __init__(self, latency_s: Callable[[Run], float]) -> None:
        self.generator = Scripted(latency_s)
        self.contents: list[dict[str, Any]] = []
        self.limits_s: list[float] = []
        self.running = 0

    @contextmanager
    def __call__(
        self, content: dict[str, Any], environment: Mapping[str, str], run: Run, start_timeout_s: float
    ) -> Iterator[LoadTest]:
        self.contents.append(content)
        self.limits_s.append(start_timeout_s)
        self.running += 1
        try:
            yield LoadTest(self.generator, run, 1, None)
        finally:
            self.running -= 1
