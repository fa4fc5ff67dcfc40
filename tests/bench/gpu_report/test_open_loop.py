from serve_app.bench.gpu_report import open_loop
from serve_app.bench.load import LoadTest
from tests.bench.test_load import BOUND_MS, TEMPLATE, holding


class Clock:
    def __init__(self, step_s: float) -> None:
        self.now, self._step_s = 0.0, step_s

    def __call__(self) -> float:
        self.now += self._step_s
        return self.now


def test_the_rate_found_holds_and_little_above_it_does_not() -> None:
    generator = holding(lambda _: 130.0)
    row, tried = open_loop.highest(LoadTest(generator, TEMPLATE, 1, BOUND_MS), 60.0, 1000, Clock(0))
    assert row is not None
    rate = row.run.rate_per_s or 0.0
    assert 130 / (1 + open_loop.TOLERANCE) < rate <= 130
    assert len(row.summaries) == 1 + open_loop.CONFIRMING_RUNS
    assert tried[0] == 60
    assert len({run.seed for run in generator.runs[-2:]}) == 2


def test_when_its_time_is_over_it_confirms_what_it_has() -> None:
    generator = holding(lambda _: 1e6)
    row, tried = open_loop.highest(LoadTest(generator, TEMPLATE, 1, BOUND_MS), 60.0, 1.5, Clock(1.0))
    assert tried == [60]
    assert row is not None
    assert row.run.rate_per_s == 60


def test_where_no_rate_holds_there_is_none_and_what_was_tried_is_told() -> None:
    generator = holding(lambda _: 0.0)
    row, tried = open_loop.highest(LoadTest(generator, TEMPLATE, 1, BOUND_MS), 60.0, 2.5, Clock(1.0))
    assert (row, tried) == (None, [60, 30])


def test_a_rate_that_held_once_by_luck_is_lowered_until_it_holds() -> None:
    first = TEMPLATE.seed
    generator = holding(lambda run: 130.0 if run.seed == first else 120.0)
    row, _ = open_loop.highest(LoadTest(generator, TEMPLATE, 1, BOUND_MS), 60.0, 1000, Clock(0))
    assert row is not None
    assert (row.run.rate_per_s or 0.0) <= 120
    assert row.holds
