from collections.abc import Sequence

import pytest

from serve_app.bench.resident import MEBIBYTE, Resident
from serve_app.bench.samples import Samples
from serve_app.bench.timeline import Second, recovery_s, timeline
from tests.bench.test_samples import samples

END_S, DURATION_S = 20.0, 25.0


def windows(*p50_s: float | None) -> Samples:
    """Three requests in each second from END_S on, the middle one as slow as told; None: refused."""
    parts = [samples([99.0], intended_s=END_S - 0.5)]
    for at, latency_s in enumerate(p50_s):
        part = [samples([0.001], intended_s=END_S + at), samples([99.0], intended_s=END_S + at)]
        middle = samples([latency_s or 0.001], "200" if latency_s else "503", intended_s=END_S + at + 0.5)
        parts += [*part, middle]
    return Samples.concatenated(parts)


@pytest.mark.parametrize(
    ("p50_s", "expected"),
    [
        ([0.1, 0.1], 0),
        ([0.101, 0.1], 1),
        ([2.0, 1.0, 0.2, 0.05, 0.2], 3),
        ([None, None, 0.1], 2),
        ([1.0] * 5, None),
        ([1.0] * 5 + [0.1], None),
        ([], None),
    ],
)
def test_recovery_is_the_first_second_whose_p50_is_back(p50_s: Sequence[float | None], expected: float | None) -> None:
    assert recovery_s(windows(*p50_s), END_S, DURATION_S, p50_bound_ms=100 + 1e-6) == expected


def test_of_an_even_number_the_slower_half_decides() -> None:
    requests = Samples.concatenated([samples([0.001], intended_s=END_S), samples([0.001], "503", intended_s=END_S)])
    assert recovery_s(requests, END_S, DURATION_S, 100) is None


def test_each_second_has_what_should_have_been_sent_in_it() -> None:
    memory = Resident(lambda: 7 * MEBIBYTE)
    memory.look(1.5)
    parts = [
        *(samples([0.05, 0.3], intended_s=0.0), samples([0.01] * 3, "503", intended_s=0.9)),
        *(samples([0.01], "504", intended_s=1.0), samples([0.05], intended_s=2.5)),
    ]
    first, second = timeline(Samples.concatenated(parts), 2.7, 100, memory)
    assert (first.at_s, first.offered, first.good, first.refused, first.memory_mib) == (0, 5, 1, 3, None)
    assert first.p50_ms == pytest.approx(175)
    assert second == Second(1, 1, 0, 0, None, None, 7.0)
