import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing.synchronize import Event

import psutil
import pytest

from serve_app.bench.isolated import Died, TooLong, stream
from serve_app.config import ConfigError

TIMEOUT_S = 30


# --- what the other process does -----------------------------------------------------------------


def add(*numbers: int) -> Iterator[int]:
    yield os.getpid()
    yield sum(numbers)


def wait_between(event: Event) -> Iterator[bool]:
    yield False
    yield event.wait(TIMEOUT_S)


def refuse_after(item: str) -> Iterator[str]:
    yield item
    raise ConfigError(f"no more than {item}")


def send_itself(number: signal.Signals) -> Iterator[int]:
    yield 1
    os.kill(os.getpid(), number)
    signal.pause()


def leave_with(status: int) -> Iterator[int]:
    yield 1
    os._exit(status)


class Unportable(Exception):
    def __init__(self, source: str, line: int) -> None:
        super().__init__(f"{source}, line {line}")


def fail_unportably() -> Iterator[int]:
    yield 1
    raise Unportable("kernel", 7)


def say_nothing() -> Iterator[int]:
    yield os.getpid()
    time.sleep(TIMEOUT_S)


def count_for_ever() -> Iterator[int]:
    yield os.getpid()
    while True:
        yield 0


# -------------------------------------------------------------------------------------------------


def test_the_function_runs_in_another_process() -> None:
    pid, total = stream(add, 1, 2, 3)
    assert total == 6
    assert pid != os.getpid()
    assert not psutil.pid_exists(pid)


def test_values_arrive_while_the_function_still_runs() -> None:
    event = multiprocessing.get_context("spawn").Event()
    values = stream(wait_between, event)
    assert next(values) is False
    event.set()
    assert list(values) == [True]


def test_an_exception_comes_through_with_its_type_its_message_and_where_it_was_raised() -> None:
    values = stream(refuse_after, "one")
    assert next(values) == "one"
    with pytest.raises(ConfigError) as raised:
        next(values)
    assert str(raised.value) == "no more than one"
    assert "in refuse_after" in "".join(raised.value.__notes__)


def test_an_exception_that_cannot_be_sent_comes_as_its_message() -> None:
    values = stream(fail_unportably)
    assert next(values) == 1
    with pytest.raises(RuntimeError, match="Unportable: kernel, line 7") as raised:
        next(values)
    assert "in fail_unportably" in "".join(raised.value.__notes__)


@pytest.mark.parametrize("talking", [say_nothing, count_for_ever])
def test_what_takes_too_long_is_ended(talking: Callable[[], Iterator[int]]) -> None:
    values = stream(talking, limit_s=3)
    pid = next(values)
    with pytest.raises(TooLong, match="not done within 3 s"):
        list(values)
    assert not psutil.pid_exists(pid)


def test_what_is_done_in_time_is_as_without_a_limit() -> None:
    assert list(stream(add, 1, 2, limit_s=TIMEOUT_S))[1:] == [3]


@pytest.mark.parametrize(("number", "killed"), [(signal.SIGKILL, True), (signal.SIGTERM, False)])
def test_a_process_that_is_killed_has_died_after_what_it_had_said(number: signal.Signals, killed: bool) -> None:
    values = stream(send_itself, number)
    assert next(values) == 1
    with pytest.raises(Died) as died:
        next(values)
    assert (died.value.exit_code, died.value.killed) == (-number, killed)


@pytest.mark.parametrize("status", [0, 3])
def test_a_process_that_leaves_early_has_died_but_was_not_killed(status: int) -> None:
    values = stream(leave_with, status)
    assert next(values) == 1
    with pytest.raises(Died, match=f"ended with {status}") as died:
        next(values)
    assert (died.value.exit_code, died.value.killed) == (status, False)


def test_closing_the_iterator_ends_the_process() -> None:
    values = stream(count_for_ever)
    pid = next(values)
    assert psutil.pid_exists(pid)
    values.close()  # type: ignore[attr-defined]  # a generator is what it is
    assert not psutil.pid_exists(pid)
