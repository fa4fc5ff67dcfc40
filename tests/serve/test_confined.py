"""`decode_in: processes` on a real instance: what becomes of a decoder ends one image at most."""

import signal
from collections.abc import Iterator
from contextlib import suppress

import psutil
import pytest

from serve_app import decode_worker
from tests.serve.service import Service, config, running
from tests.waiting import eventually

NUM_WORKERS = 2


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    # Few pixels: a worker may take 10 s, by the pixels of the largest image, before it is taken for hung.
    args = {"decode_in": "processes", "num_threads": NUM_WORKERS, "max_image_pixels": 100_000}
    with running(config(args)) as running_service:
        yield running_service


def workers(service: Service) -> list[psutil.Process]:
    [replica] = service.replica_pids()
    return [
        process
        for process in psutil.Process(replica).children()
        if decode_worker.__name__ in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE
    ]


def is_ready(worker: psutil.Process) -> bool:
    """It has taken its limits, and waits for an image: one that is stopped before never becomes ready."""
    with suppress(psutil.NoSuchProcess):
        is_limited = worker.rlimit(psutil.RLIMIT_NOFILE)[0] == decode_worker.MAX_OPEN_FILES
        return is_limited and worker.status() == psutil.STATUS_SLEEPING
    return False


def classes(service: Service, image: bytes) -> tuple[int, int]:
    [(status, answer)] = service.post(image)
    return status, answer["images"][0]["classes"][0]["class_id"]


def test_it_is_decoded_there_as_in_threads(service: Service, samples: dict[int, bytes]) -> None:
    before = sum(each.cpu_times().user + each.cpu_times().system for each in workers(service))
    answers = service.post(*list(samples.values()) * 20)
    found = [answer["images"][0]["classes"][0]["class_id"] for _, answer in answers]
    assert found == list(samples) * 20
    assert sum(each.cpu_times().user + each.cpu_times().system for each in workers(service)) > before
    [(status, answer)] = service.post(samples[7][:60])
    assert (status, answer["code"]) == (422, "unreadable_image")


def test_decoders_that_are_killed_are_replaced_and_the_replica_goes_on(
    service: Service, samples: dict[int, bytes]
) -> None:
    [replica], old = service.replica_pids(), workers(service)
    assert len(old) == NUM_WORKERS
    for worker in old:
        worker.kill()
    assert classes(service, samples[7]) == (200, 7)
    eventually(lambda: sum(map(is_ready, set(workers(service)) - set(old))) == NUM_WORKERS)
    assert service.replica_pids() == {replica}


def test_a_decoder_that_hangs_ends_its_image_and_no_other(service: Service, samples: dict[int, bytes]) -> None:
    old = workers(service)
    for worker in old:
        worker.send_signal(signal.SIGSTOP)
    answers = service.post(*[samples[7]] * NUM_WORKERS)
    assert [(status, answer["code"]) for status, answer in answers] == [(422, "unreadable_image")] * NUM_WORKERS
    assert classes(service, samples[7]) == (200, 7)
    assert not any(worker.is_running() for worker in old)


def test_they_have_nothing_of_the_replica_and_end_with_it(service: Service) -> None:
    """The last test: the service ends with it."""
    eventually(lambda: sum(map(is_ready, workers(service))) == NUM_WORKERS)
    left = workers(service)
    assert not {name for worker in left for name in worker.environ() if name.startswith(("RAY_", "SERVE_APP_"))}
    assert service.stop() == 0
    eventually(lambda: not any(worker.is_running() for worker in left))
