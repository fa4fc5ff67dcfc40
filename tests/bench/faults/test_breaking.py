"""An engine that fails as a file says, and is well again when that is gone."""

from pathlib import Path
from threading import Event, Thread

import numpy as np
import pytest
import torch

from serve_app.bench.faults.breakage import MEMORY_FOR, Breakage, breakage_of, mark_of, put
from serve_app.bench.faults.breaking import BreakableEngine
from serve_app.config import Stub
from serve_app.engine.base import Item, NotANumber
from serve_app.model_spec import Geometry

IMAGES: list[Item] = [np.zeros((1, 1, 3), np.uint8)] * (MEMORY_FOR + 1)
NO_TIME = Stub(base_ms=0, per_image_ms=0)


@pytest.fixture
def engine(tmp_path: Path) -> BreakableEngine:
    engine = BreakableEngine(NO_TIME, num_classes=10, top_k=2, geometry=Geometry())
    engine.breakage = breakage_of(tmp_path, 1)
    engine.warm_up(len(IMAGES))
    return engine


@pytest.mark.parametrize(
    ("breakage", "error"),
    [
        (Breakage.RAISE, RuntimeError),
        (Breakage.NAN, NotANumber),
        (Breakage.MEMORY, torch.OutOfMemoryError),
    ],
)
def test_it_fails_for_as_long_as_it_is_told_to(
    engine: BreakableEngine, breakage: Breakage, error: type[Exception]
) -> None:
    put(engine.breakage, breakage)
    with pytest.raises(error):
        engine.infer(IMAGES)
    with pytest.raises(error):
        engine.warm_up(len(IMAGES))
    engine.breakage.unlink()
    assert len(engine.infer(IMAGES)) == len(IMAGES)


def test_it_has_memory_for_small_batches(engine: BreakableEngine) -> None:
    put(engine.breakage, Breakage.MEMORY)
    assert len(engine.infer(IMAGES[:MEMORY_FOR])) == MEMORY_FOR
    assert not mark_of(engine.breakage).exists()


def test_a_batch_that_it_had_no_memory_for_leaves_a_mark(engine: BreakableEngine) -> None:
    put(engine.breakage, Breakage.MEMORY)
    with pytest.raises(torch.OutOfMemoryError):
        engine.infer(IMAGES)
    assert mark_of(engine.breakage).exists()


def test_an_engine_reads_a_whole_word_whenever_it_looks(engine: BreakableEngine) -> None:
    """A file that is written in place is empty for a moment, which is no word."""
    done = Event()

    def keep_putting() -> None:
        while not done.is_set():
            put(engine.breakage, Breakage.MEMORY)

    thread = Thread(target=keep_putting)
    thread.start()
    try:
        found = {engine._wanted() for _ in range(2000)}
    finally:
        done.set()
        thread.join()
    assert found <= {None, Breakage.MEMORY}
