"""A measurement in a process of its own: fresh memory, its own threads, and if it dies, only it dies."""

import multiprocessing
import pickle
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, TypeVar

Item = TypeVar("Item")


class Died(RuntimeError):
    """The process ended without finishing; `exit_code` is minus the signal that ended it, or its status."""

    def __init__(self, exit_code: int | None) -> None:
        super().__init__(f"the measuring process ended with {exit_code}")
        self.exit_code = exit_code

    @property
    def killed(self) -> bool:
        """By SIGKILL: on Linux, with nobody else about, the kernel's way to say that memory has run out."""
        return self.exit_code == -signal.SIGKILL


class TooLong(RuntimeError):
    """The process was not done when its time was over, and was ended."""


def stream(function: Callable[..., Iterator[Item]], *arguments: Any, limit_s: float | None = None) -> Iterator[Item]:
    """What `function(*arguments)` yields in another process, as it comes.

    Function, arguments and items are pickled. Its exception is raised here, with its traceback as a
    note. Raises Died if the process is killed, and TooLong if it is not done within `limit_s` (None: it
    may take as long as it takes). Closing the iterator ends the process.
    """
    deadline = None if limit_s is None else time.monotonic() + limit_s
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(theirs, function, arguments), daemon=True)
    process.start()
    theirs.close()
    try:
        while True:
            if deadline is not None and not _comes_by(deadline, ours):
                raise TooLong(f"not done within {limit_s:.0f} s")
            try:
                kind, value = ours.recv()
            except EOFError:
                process.join()
                raise Died(process.exitcode) from None
            if kind == "item":
                yield value
            elif kind == "error":
                raise value
            else:
                return
    finally:
        ours.close()
        process.terminate()
        process.join()


def _comes_by(deadline: float, pipe: Connection) -> bool:
    left_s = deadline - time.monotonic()
    return left_s > 0 and pipe.poll(left_s)


def _work(pipe: Connection, function: Callable[..., Iterator[Any]], arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends us
    # In a thread, as in a replica: of the main thread's memory glibc gives a batch's back to the kernel
    # after every execution, and getting it again halves the speed (115 against 225 images/s at batch 8).
    thread = threading.Thread(target=_send_items, args=(pipe, function, arguments))
    thread.start()
    thread.join()


def _send_items(pipe: Connection, function: Callable[..., Iterator[Any]], arguments: tuple[Any, ...]) -> None:
    try:
        for item in function(*arguments):
            pipe.send(("item", item))
    except BrokenPipeError:  # nobody listens any more
        return
    except Exception as error:
        portable = _portable(error)
        portable.add_note(traceback.format_exc())
        pipe.send(("error", portable))
    else:
        with suppress(BrokenPipeError):  # who wanted the first item alone has gone
            pipe.send(("done", None))


def _portable(error: Exception) -> Exception:
    """The error itself if it survives the pipe: of Triton's some do not, and would take their message with them."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
