"""The resize kernel without a GPU: in Triton's interpreter."""

import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from unittest import mock

import pytest
import torch

from serve_app.model_spec import Geometry

NAME = "serve_app.engine.resize_kernel"
# Tiles are interpreted one after another, each operation of one at once: as large as the crop is the fastest.
TILE = 32


@contextmanager
def resize_kernel(tile: int = TILE) -> Iterator[ModuleType]:
    """What `import serve_app.engine.resize_kernel` gives meanwhile: a second module, with its kernel interpreted.

    `triton.jit` decides at decoration. So it does not matter who imported the module before, or imports it after.
    """
    pytest.importorskip("triton", reason="needs Triton, which PyTorch for CUDA brings")
    spec = importlib.util.find_spec(NAME)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with mock.patch.dict(os.environ, TRITON_INTERPRET="1"), mock.patch.dict(sys.modules, {NAME: module}):
        spec.loader.exec_module(module)
        module.TILE_ROWS = module.TILE_COLUMNS = tile  # type: ignore[attr-defined]
        _skip_where_it_cannot_run(module)
        yield module


def _skip_where_it_cannot_run(module: ModuleType) -> None:
    image = torch.zeros((3, 2, 2), dtype=torch.uint8)
    out = torch.zeros((1, 2, 2, 3), dtype=torch.uint8)
    try:
        module.resize_into([image], [1], [0], out, Geometry(resize_size=2, crop_size=2))
    except Exception as error:
        if "0-dimensional" in str(error):
            pytest.skip("the interpreter of this Triton cannot loop with NumPy 2.4 or later (3.6 cannot, 3.9 can)")
        raise
