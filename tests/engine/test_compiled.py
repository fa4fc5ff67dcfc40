import os
import shutil
from collections.abc import Iterator

import pytest
import torch
from torch._dynamo.utils import counters

from serve_app.decode import Pixels
from serve_app.engine.compiled import Compiled
from serve_app.engine.network import Network
from serve_app.weights import Checkpoint
from tests.engine.answers import NUM_DIGITS

COMPILER = os.environ.get("CXX", "g++")
# Below 16: from there on a CPU has another kernel for convolutions, which torch compiles for anew.
SIZES = (1, 2, 3, 5, 8, 13)

pytestmark = [
    pytest.mark.skipif(shutil.which(COMPILER) is None, reason=f"torch.compile needs a C++ compiler: no {COMPILER}"),
    # Torch's own, of its internals.
    pytest.mark.filterwarnings("ignore"),
]


@pytest.fixture
def _nothing_is_compiled() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


@pytest.mark.usefixtures("_nothing_is_compiled")
@torch.inference_mode()
def test_two_compilations_serve_every_batch_size(checkpoint: Checkpoint, digits: list[Pixels]) -> None:
    network = Network(checkpoint, torch.float32, NUM_DIGITS)
    compiled = Compiled(network)
    for size in SIZES:
        pixels = torch.stack([torch.tensor(digits[i % NUM_DIGITS]) for i in range(size)])
        scores, class_ids, logits = compiled(pixels)
        expected, expected_ids, expected_logits = network(pixels)
        assert class_ids[:, 0].tolist() == expected_ids[:, 0].tolist() == [i % NUM_DIGITS for i in range(size)]
        torch.testing.assert_close(scores, expected, atol=1e-4, rtol=0)
        torch.testing.assert_close(logits, expected_logits, atol=1e-3, rtol=0)
    assert counters["stats"]["unique_graphs"] == 2  # of one image, which torch specialises, and of any other number
