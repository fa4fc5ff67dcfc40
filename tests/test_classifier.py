"""What the deployment does between the scheduler and Ray's own batcher, without a cluster."""

import asyncio
import errno
import logging
import os
import sys
from logging.handlers import MemoryHandler
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ray import serve
from ray.serve._private.logging_utils import StreamToLogger

from serve_app.classifier import Classifier, drop_what_cannot_be_logged
from serve_app.config import UserConfig
from serve_app.errors import Overloaded
from serve_app.protocol.statistics import Statistics
from serve_app.scheduler import Terms

DEPLOYMENT: Any = Classifier.func_or_class  # type: ignore[attr-defined]


class HandOver:
    """A replica's part of it, over a device that takes a while."""

    def __init__(self) -> None:
        self._hand_over = asyncio.Lock()
        self._taken: asyncio.Future[None]
        self.batches: list[list[int]] = []

    execute = DEPLOYMENT._execute

    @serve.batch(max_batch_size=16, batch_wait_timeout_s=0, max_concurrent_batches=2)
    async def predict(self, images: list[int]) -> list[int]:
        if not self._taken.done():
            self._taken.set_result(None)
        self.batches.append(images)
        await asyncio.sleep(0.05)
        return [image * 10 for image in images]


def test_batches_that_are_released_together_stay_what_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    context = SimpleNamespace(_deployment_config=SimpleNamespace(max_ongoing_requests=100))
    monkeypatch.setattr(serve, "get_replica_context", lambda: context)

    async def test() -> None:
        replica = HandOver()
        batches = [list(range(start, start + 10)) for start in (0, 100, 200, 300)]
        results = await asyncio.gather(*(replica.execute(batch) for batch in batches))
        assert results == [[image * 10 for image in batch] for batch in batches]
        assert replica.batches == batches

    asyncio.run(test())


def test_a_batcher_that_fails_holds_up_nobody() -> None:
    async def test() -> None:
        async def fails(_: int) -> int:
            raise RuntimeError("the batcher is gone")

        replica = SimpleNamespace(_hand_over=asyncio.Lock(), predict=fails)
        for _ in range(2):
            results = await asyncio.wait_for(DEPLOYMENT._execute(replica, [1, 2]), 5)
            assert [str(result) for result in results] == ["the batcher is gone"] * 2

    asyncio.run(test())


class Door:
    """A replica's part of it: nobody comes in, or what is done with an image fails."""

    check_admission = DEPLOYMENT.check_admission
    classify = DEPLOYMENT.classify

    def __init__(self, error: Exception) -> None:
        self.statistics = Statistics()
        self._scheduler = self
        self._error = error

    def check(self, _: Terms) -> None:
        raise self._error

    def admitted(self, _: Terms) -> None:
        raise self._error


def test_whoever_gets_an_error_is_counted() -> None:
    refused, broken = Door(Overloaded("later")), Door(RuntimeError("a bug"))
    with pytest.raises(Overloaded):
        refused.check_admission(Terms())
    with pytest.raises(RuntimeError):
        asyncio.run(broken.classify(b"", Terms()))
    assert (refused.statistics.fail.count, broken.statistics.fail.count) == (1, 1)


@pytest.mark.parametrize(
    ("error", "ends"),
    [
        (RuntimeError("CUDA error"), [1]),
        (torch.OutOfMemoryError("no memory"), []),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), []),
        (None, []),
    ],
    ids=["broken", "without memory of the GPU", "without memory", "well"],
)
def test_a_device_that_fails_on_a_blank_image_ends_its_process(
    monkeypatch: pytest.MonkeyPatch, error: Exception | None, ends: list[int]
) -> None:
    statuses: list[int] = []
    monkeypatch.setattr(os, "_exit", statuses.append)
    monkeypatch.setattr("serve_app.classifier.BROKEN_END_AFTER_S", 0.0)

    class Replica:
        _examination: Any = None
        _user_config = UserConfig()
        _examine = DEPLOYMENT._examine
        examine_soon = DEPLOYMENT._examine_soon

        async def _warm_up(self, _: int) -> float:
            if error is not None:
                raise error
            return 0.0

    async def test() -> None:
        replica = Replica()
        replica.examine_soon()
        first = replica._examination
        replica.examine_soon()
        assert replica._examination is first  # one at a time
        await first
        await asyncio.sleep(0.01)

    asyncio.run(test())
    assert statuses == ends


def test_a_log_line_that_cannot_be_written_makes_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    class FullDisk(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            tried.append(record.getMessage())
            try:
                raise OSError(errno.ENOSPC, "No space left on device")
            except OSError:
                self.handleError(record)

    log = logging.Logger("as Serve sets a replica's up")
    log.addHandler(MemoryHandler(10, target=FullDisk()))
    monkeypatch.setattr(logging, "raiseExceptions", True)
    monkeypatch.setattr(sys, "stderr", StreamToLogger(log, logging.INFO, sys.stderr))
    drop_what_cannot_be_logged()
    for _ in range(20):
        log.info("a line")
    assert tried == ["a line"] * 20
