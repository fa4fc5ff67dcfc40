"""Replicas of the stub device whose engine obeys a file: for as long as it is there, every batch fails as it says.

What is deployed in the place of `serve_app.app`: the product itself knows nothing of it.
"""

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from ray.serve import Application

from serve_app.app import deployable
from serve_app.bench.faults.breakage import MEMORY_FOR, Breakage, breakage_of, mark_of
from serve_app.bench.faults.layout import BREAKAGES
from serve_app.classifier import Classifier
from serve_app.config import Args
from serve_app.engine import Item
from serve_app.engine.base import Execution
from serve_app.engine.network import Top
from serve_app.engine.stub import StubEngine


def build_app(args: Args) -> Application:
    broken = Classifier.options(func_or_class=BreakableClassifier)  # type: ignore[attr-defined] # @serve.deployment adds it
    application: Application = broken.bind(deployable(args))
    return application


class BreakableEngine(StubEngine):
    """`breakage`: as `breakage_of` says."""

    breakage: Path

    def _launch(self, images: Sequence[Item], bucket: int) -> Execution:
        wanted = self._wanted()
        if wanted is Breakage.RAISE:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        if wanted is Breakage.HANG:
            threading.Event().wait()
        if wanted is Breakage.MEMORY and len(images) > MEMORY_FOR:
            mark_of(self.breakage).touch()
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super()._launch(images, bucket)

    def _copy_out(self, top: Top) -> Top:
        if self._wanted() is Breakage.NAN:
            return Top(top.scores * torch.nan, top.class_ids, top.logits * torch.nan)
        return top

    def _wanted(self) -> Breakage | None:
        try:
            return Breakage(self.breakage.read_text())
        except FileNotFoundError:
            return None


class BreakableClassifier(Classifier.func_or_class):  # type: ignore[misc, name-defined] # @serve.deployment adds it
    """The deployment as it is, over a BreakableEngine."""

    async def __init__(self, args: Args) -> None:  # type: ignore[misc] # Ray awaits it, and has it so
        await super().__init__(args)
        engine: Any = self._engine  # a StubEngine, of the same fields
        engine.__class__ = BreakableEngine
        engine.breakage = breakage_of(Path(os.environ[BREAKAGES]), os.getpid())
