import json
import multiprocessing
import re
import socket
import time
from collections import Counter
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import psutil
import pytest
from starlette.testclient import TestClient

from serve_app.bench import generator as generator_module
from serve_app.bench.arrivals import Step
from serve_app.bench.generator import Generator, GeneratorError, Run
from serve_app.bench.samples import STAGES, Samples, Summary, summarise
from serve_app.bench.sender import NOT_SENT
from serve_app.http import build_app
from tests.bench import server
from tests.bench.server import Answer, Reply
from tests.http.service import FakeService

IMAGES = (b"one", b"two", b"three")
STALL_S = 1.0
TIMEOUT_S = 10.0


@pytest.fixture(scope="module")
def single() -> Iterator[Generator]:
    """A generator of one process."""
    with Generator(IMAGES, 1) as generator:
        yield generator


@pytest.fixture(scope="module")
def double() -> Iterator[Generator]:
    """A generator of two processes."""
    with Generator(IMAGES, 2) as generator:
        yield generator


def figures(generator: Generator, run: Run) -> Summary:
    samples, cores = generator.run(run)
    return summarise(samples, run.duration_s, None, cores)


def schedule(samples: Samples) -> npt.NDArray[np.float64]:
    return np.sort(samples.intended_s)


# --- honesty -------------------------------------------------------------------------------------


def stalls_at(number: int) -> Reply:
    """Answers at once, but for the request of that number, which stalls this and every other one."""
    requests = iter(range(1 << 62))

    async def reply(_: bytes) -> Answer:
        if next(requests) == number:
            time.sleep(STALL_S)
        return Answer()

    return reply


def test_a_stall_shows_in_an_open_loop_and_a_closed_one_hides_it(single: Generator) -> None:
    with server.running(stalls_at(100)) as url:
        open_loop = figures(single, Run(url, duration_s=3, rate_per_s=100))
    with server.running(stalls_at(100)) as url:
        closed_loop = figures(single, Run(url, duration_s=3, concurrency=1))
    for run in (open_loop, closed_loop):
        assert run.errors == {}
        assert run.max_ms is not None
        assert run.max_ms >= 0.9 * STALL_S * 1e3
    assert open_loop.requests == 300
    assert open_loop.p99_ms is not None
    assert open_loop.p99_ms >= 500
    assert closed_loop.p99_ms is not None
    assert closed_loop.p99_ms < 200


# --- what is sent --------------------------------------------------------------------------------


def test_everything_offered_is_sent_once_and_is_an_image(double: Generator) -> None:
    bodies: Counter[bytes] = Counter()

    async def reply(body: bytes) -> Answer:
        bodies[body] += 1
        return Answer()

    with server.running(reply) as url:
        samples, cores = double.run(Run(url, duration_s=0.5, warm_up_s=0.25, rate_per_s=200, seed=3))
    assert len(samples.status) == bodies.total() == 150
    assert bodies.keys() == set(IMAGES)
    assert len(samples.counted().status) == 100
    assert (samples.sent_s >= samples.intended_s).all()
    assert (samples.done_s > samples.sent_s).all()
    assert cores > 0


def test_a_seed_is_a_schedule_however_many_processes_send_it(single: Generator, double: Generator) -> None:
    with server.running() as url:
        run = Run(url, duration_s=0.3, warm_up_s=0.1, rate_per_s=100, seed=5)
        first, second = (schedule(generator.run(run)[0]) for generator in (single, double))
        other = schedule(single.run(Run(url, duration_s=0.3, warm_up_s=0.1, rate_per_s=100, seed=6))[0])
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("concurrency", [1, 5])
def test_a_closed_loop_has_that_many_requests_in_flight_over_all_processes(double: Generator, concurrency: int) -> None:
    with server.running(server.never) as url:
        # Each is given up after the end, so that no other follows it.
        samples, _ = double.run(Run(url, duration_s=0.2, concurrency=concurrency, timeout_s=0.4))
    assert samples.status.tolist() == ["timeout"] * concurrency
    assert np.array_equal(samples.intended_s, samples.sent_s)


def test_more_in_flight_than_there_are_ports_for_are_not_sent(
    single: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generator_module, "MAX_IN_FLIGHT", 4)
    with server.running(server.never) as url:
        run = figures(single, Run(url, duration_s=0.2, rate_per_s=50, timeout_s=0.5))
    assert run.errors == {NOT_SENT: 6, "timeout": 4}
    assert run.requests == 10


def deadlines(samples: Samples) -> list[tuple[float, float]]:
    return sorted(zip(samples.intended_s.tolist(), samples.deadline_ms.tolist(), strict=True))


def test_a_seed_deals_the_same_deadlines_however_many_processes_send_them(single: Generator, double: Generator) -> None:
    with server.running() as url:
        run = Run(url, duration_s=0.3, warm_up_s=0.1, rate_per_s=100, seed=5, deadlines_ms=(100.0, 2000.0))
        first, second = (deadlines(generator.run(run)[0]) for generator in (single, double))
    assert first == second
    assert Counter(deadline for _, deadline in first) == {100.0: 20, 2000.0: 20}


@pytest.mark.parametrize("told", [True, False])
def test_a_deadline_is_told_in_seconds_or_not_at_all(single: Generator, told: bool) -> None:
    found: Counter[bytes | None] = Counter()

    def on_head(head: bytes) -> None:
        header = re.search(rb"^x-request-timeout-seconds: (.*)\r$", head, re.MULTILINE | re.IGNORECASE)
        found[header[1] if header else None] += 1

    with server.running(on_head=on_head) as url:
        run = Run(url, duration_s=0.2, rate_per_s=100, deadlines_ms=(0.5, 2000.0), deadlines_told=told)
        samples, _ = single.run(run)
    assert found == ({b"0.000500": 10, b"2.000000": 10} if told else {None: 20})
    assert set(samples.deadline_ms) == {0.5, 2000.0}


def test_steps_are_sent_one_after_the_other(double: Generator) -> None:
    with server.running() as url:
        steps = (Step(50, 0.2), Step(200, 0.2), Step(50, 0.2))
        samples, _ = double.run(Run(url, duration_s=0.6, steps=steps))
    assert [len(samples.between(begin, begin + 0.2).status) for begin in (0.0, 0.2, 0.4)] == [10, 40, 10]


# --- what comes back -----------------------------------------------------------------------------


async def unavailable(_: bytes) -> Answer:
    return Answer(503, b'{"error": "busy", "code": "not_ready"}')


async def refuse(_: bytes) -> Answer:
    return server.REFUSAL


async def hang_up(_: bytes) -> None:
    return None


@pytest.mark.parametrize(
    ("reply", "status"), [(unavailable, "503"), (server.never, "timeout"), (hang_up, "connection lost")]
)
def test_a_failure_is_a_row_of_its_own_and_no_latency(single: Generator, reply: Reply, status: str) -> None:
    with server.running(reply) as url:
        run = figures(single, Run(url, duration_s=0.2, rate_per_s=100, timeout_s=0.3))
    assert run.errors == {status: 20}
    assert (run.requests, run.completed_per_s, run.p50_ms, run.max_ms) == (20, 0, None, None)


def test_a_refused_connection_is_a_failure(single: Generator) -> None:
    with socket.socket() as bound:  # nobody else gets the port, and nobody listens
        bound.bind(("127.0.0.1", 0))
        run = figures(single, Run(f"http://127.0.0.1:{bound.getsockname()[1]}", duration_s=0.2, rate_per_s=100))
    assert run.errors == {"no connection": 20}


def test_failures_among_answers_leave_the_answers_their_latencies(single: Generator) -> None:
    async def reply(body: bytes) -> Answer:
        return await (unavailable if body == IMAGES[0] else server.at_once)(body)

    with server.running(reply) as url:
        samples, _ = single.run(Run(url, duration_s=0.3, rate_per_s=200))
    run = summarise(samples, 0.3, None, 0)
    assert set(run.errors) == {"503"}
    answered = samples.status == "200"
    assert 0 < answered.sum() == 60 - run.errors["503"]
    assert run.max_ms == pytest.approx(1e3 * (samples.done_s - samples.intended_s)[answered].max())


def test_what_the_service_says_of_batch_and_stages_is_understood(single: Generator) -> None:
    body = TestClient(build_app(FakeService())).post("/v1/classify", content=b"7").content

    async def reply(_: bytes) -> Answer:
        return Answer(body=body)

    with server.running(reply) as url:
        samples, _ = single.run(Run(url, duration_s=0.1, rate_per_s=50))
    told = json.loads(body)
    assert set(samples.batch_size) == {told["images"][0]["batch_size"]}
    assert samples.stages_ms.tolist() == [[told["timings_ms"][stage] for stage in STAGES]] * 5


@pytest.mark.parametrize(("reply", "retry_after"), [(refuse, 20), (unavailable, 0)])
def test_a_refusal_has_a_latency_and_may_say_when_to_try_again(
    single: Generator, reply: Reply, retry_after: int
) -> None:
    with server.running(reply) as url:
        refusals = figures(single, Run(url, duration_s=0.2, rate_per_s=100)).refusals
    assert (refusals.count, refusals.with_retry_after) == (20, retry_after)
    assert refusals.p50_ms is not None
    assert refusals.p99_ms is not None
    assert 0 < refusals.p50_ms <= refusals.p99_ms


@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff", b"[]", b"7", b'{"images": []}', b'{"timings_ms": 1}'])
def test_an_answer_in_another_format_counts_and_tells_nothing(single: Generator, body: bytes) -> None:
    async def reply(_: bytes) -> Answer:
        return Answer(body=body)

    with server.running(reply) as url:
        samples, _ = single.run(Run(url, duration_s=0.1, rate_per_s=50))
    assert samples.status.tolist() == ["200"] * 5
    assert np.isnan(samples.batch_size).all()
    assert np.isnan(samples.stages_ms).all()


# --- the processes -------------------------------------------------------------------------------


def processes_since(before: set[int | None]) -> list[psutil.Process]:
    """Those that this process has started since."""
    return [psutil.Process(child.pid) for child in multiprocessing.active_children() if child.pid not in before]


def pids() -> set[int | None]:
    return {child.pid for child in multiprocessing.active_children()}


def test_processes_end_with_the_generator() -> None:
    before = pids()
    with Generator(IMAGES, 2):
        processes = processes_since(before)
        assert len(processes) == 2
    assert pids() == before
    assert not any(process.is_running() for process in processes)


def test_a_process_that_dies_during_a_run_ends_the_run() -> None:
    before = pids()
    with server.running(server.never) as url, Generator(IMAGES, 2) as generator:
        victim = processes_since(before)[1]
        with pytest.raises(GeneratorError, match="ended"):
            generator.run(Run(url, duration_s=0.5, rate_per_s=10, timeout_s=1), lambda _: victim.kill())


def test_a_process_that_died_between_runs_is_told_too() -> None:
    before = pids()
    with server.running() as url, Generator(IMAGES, 1) as generator:
        generator.run(Run(url, duration_s=0.1, rate_per_s=50))
        (victim,) = processes_since(before)
        victim.kill()
        victim.wait(TIMEOUT_S)
        with pytest.raises(GeneratorError):
            generator.run(Run(url, duration_s=0.1, rate_per_s=50))


def test_progress_is_told_in_seconds_from_the_start_of_what_counts(single: Generator) -> None:
    told: list[float] = []
    with server.running() as url:
        single.run(Run(url, duration_s=0.5, warm_up_s=0.5, rate_per_s=50), told.append)
    assert told == sorted(told)
    assert told[0] < 0 < told[-1]
