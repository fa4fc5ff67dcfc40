from dataclasses import replace

import pytest
import torch
from torch import nn

from serve_app.bench.forward import random_checkpoint
from serve_app.config import Args
from serve_app.engine.network import Network, Normalise
from serve_app.weights import Checkpoint, load

TOP_K = 5
BATCH = 4


def unsettled(arch: str) -> Checkpoint:
    """Random weights, and BatchNorm statistics that are far from those of a new network, which do nothing."""
    checkpoint = random_checkpoint(arch)
    generator = torch.Generator().manual_seed(1)
    norms = {name.rpartition(".")[0] for name in checkpoint.state_dict if name.endswith("running_mean")}
    changed = {}
    for norm in sorted(norms):
        shape = checkpoint.state_dict[f"{norm}.weight"].shape
        for name, low, high in (("weight", 0.5, 1.5), ("bias", -1, 1), ("running_mean", -1, 1), ("running_var", 1, 3)):
            changed[f"{norm}.{name}"] = torch.empty(shape).uniform_(low, high, generator=generator)
    return replace(checkpoint, state_dict={**checkpoint.state_dict, **changed})


@pytest.fixture(scope="module", params=["bundled", "resnet18"])
def checkpoint(request: pytest.FixtureRequest) -> Checkpoint:
    return load(Args(weights="bundled")) if request.param == "bundled" else unsettled(request.param)


@pytest.fixture(scope="module")
def pixels(checkpoint: Checkpoint) -> torch.Tensor:
    side = checkpoint.spec.geometry.crop_size
    generator = torch.Generator().manual_seed(2)
    return torch.randint(0, 256, (BATCH, side, side, 3), dtype=torch.uint8, generator=generator)


@torch.inference_mode()
def test_it_is_the_formula_of_the_readme(checkpoint: Checkpoint, pixels: torch.Tensor) -> None:
    geometry = checkpoint.spec.geometry
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (geometry.mean, geometry.std))
    inputs = (pixels.permute(0, 3, 1, 2).contiguous() / 255 - mean) / std
    expected_logits = checkpoint.build_model()(inputs)
    expected, expected_ids = expected_logits.softmax(dim=1).topk(TOP_K)
    scores, class_ids, logits = Network(checkpoint, torch.float32, TOP_K)(pixels)
    assert (scores.dtype, class_ids.dtype, logits.dtype) == (torch.float32, torch.int64, torch.float32)
    torch.testing.assert_close(scores, expected, atol=1e-5, rtol=0)
    assert torch.equal(class_ids, expected_ids)
    torch.testing.assert_close(logits, expected_logits, atol=1e-4 * float(expected_logits.abs().max()), rtol=0)


@torch.inference_mode()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [[], [2], [3, 0], list(range(BATCH))])
def test_some_rows_may_be_normalised_already(
    checkpoint: Checkpoint, pixels: torch.Tensor, dtype: torch.dtype, rows: list[int]
) -> None:
    network = Network(checkpoint, dtype, TOP_K)
    expected = network.normalise(pixels)
    theirs = Normalise(checkpoint.spec.geometry, torch.float32)(pixels)[rows].contiguous()
    ours = pixels.clone()
    ours[rows] = 7
    inputs = network.inputs(ours, rows, theirs)
    assert torch.equal(inputs, expected)
    assert inputs.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(network.top(inputs).logits, network(pixels).logits)


@torch.inference_mode()
def test_bf16_comes_near_it(checkpoint: Checkpoint, pixels: torch.Tensor) -> None:
    network = Network(checkpoint, torch.bfloat16, checkpoint.spec.num_classes)
    assert {type(m): m.weight.dtype for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)} == {
        nn.Conv2d: torch.bfloat16,
        nn.Linear: torch.float32,  # see ExactLinear
    }
    scores, class_ids, logits = network(pixels)
    exact, exact_ids, _ = Network(checkpoint, torch.float32, checkpoint.spec.num_classes)(pixels)
    assert scores.dtype == logits.dtype == torch.float32
    assert not torch.equal(scores, exact)
    rounded, full = (s.gather(1, ids.argsort(dim=1)) for s, ids in ((scores, class_ids), (exact, exact_ids)))
    torch.testing.assert_close(rounded, full, atol=0.05, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_batch_norm_is_left_and_its_weights_are_channels_last(checkpoint: Checkpoint, dtype: torch.dtype) -> None:
    network = Network(checkpoint, dtype, TOP_K)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    weights = [module.weight for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert len(weights) >= 12
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)
    assert not network.training


def test_folding_leaves_the_checkpoint_as_it_is(checkpoint: Checkpoint) -> None:
    before = {name: tensor.clone() for name, tensor in checkpoint.state_dict.items()}
    Network(checkpoint, torch.bfloat16, TOP_K)
    assert all(torch.equal(tensor, before[name]) for name, tensor in checkpoint.state_dict.items())
