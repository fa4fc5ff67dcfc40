import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from serve_app.bench.resident import MEBIBYTE, Growth, Resident, forget_peaks, peak_bytes, replicas_bytes

SLEEPER = "print(flush=True); input()"


@contextmanager
def process(name: str, script: str = SLEEPER) -> Iterator[None]:
    """One of that name, ready."""
    with subprocess.Popen(
        [name, "-c", script], executable=sys.executable, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        try:
            yield
        finally:
            child.communicate("\n")


def within(name: str, script: str = SLEEPER) -> str:
    """The script of one that starts one of that name."""
    return f"import subprocess; subprocess.run([{name!r}, '-c', {script!r}], executable={sys.executable!r})"


def test_replicas_are_found_below_this_process_by_their_name() -> None:
    before = replicas_bytes()
    nested = within("ray::ServeReplica:app:Two")
    with process("ray::ServeProxy"):
        assert replicas_bytes() == before
        with process("ray::ServeReplica:app:One"):
            one = replicas_bytes() - before
            with process("raylet", nested):
                both = replicas_bytes() - before
    assert 0 < one < both


def test_what_a_replica_has_started_is_counted_with_it() -> None:
    before = replicas_bytes()
    with process("ray::ServeReplica:app:One"):
        alone = replicas_bytes() - before
    nested = within("python decode_worker.py")
    with process("ray::ServeReplica:app:One", nested):
        assert replicas_bytes() - before > 1.5 * alone


def test_a_peak_that_is_over_is_seen_of_replicas_and_what_they_started_and_can_be_forgotten() -> None:
    spike = f"spike = bytearray(b'x') * (200 << 20); del spike; {SLEEPER}"
    with process("ray::ServeReplica:app:One", within("python decode_worker.py", spike)):
        now, most = replicas_bytes(), peak_bytes(os.getpid())
        assert most > now + 150 * MEBIBYTE
        forget_peaks(os.getpid())
        assert peak_bytes(os.getpid()) < most - 150 * MEBIBYTE
    with process("raylet", spike):
        assert peak_bytes(os.getpid()) == 0


def watched(mib: dict[float, float]) -> Resident:
    """A service that had these by second."""
    now = 0.0
    memory = Resident(lambda: round(mib[now] * MEBIBYTE))
    for now in mib:
        memory.look(now)
    return memory


def test_it_is_looked_at_once_a_second() -> None:
    memory = watched({-0.2: 1, -0.1: 2, 0.1: 3, 0.9: 4, 1.05: 5, 1.95: 6, 2.0: 7})
    assert (memory.seconds, memory.mib) == ([-0.2, 0.1, 1.05, 2.0], [1, 3, 5, 7])


def test_growth_is_that_of_the_mean_from_the_first_half_to_the_second() -> None:
    memory = watched({0: 50, 1: 100, 2: 100, 3: 102, 4: 104, 5: 200})
    growth = memory.growth(1, 5)
    assert growth == Growth(100, 103)
    assert growth.mib == 3
    assert growth.share == pytest.approx(0.03)


@pytest.mark.parametrize("mib", [{}, {1: 100}, {3: 100}, {0: 100, 5: 100}, {1: 0, 3: 100}])
def test_a_half_in_which_nothing_was_seen_has_no_growth(mib: dict[float, float]) -> None:
    assert watched(mib).growth(1, 5) is None
