"""Engines: a batch of images -> top-k and logits, on one device.

base.py   what every engine offers, and the batch sizes it runs
cpu.py    torch on the CPU
cuda.py   torch on a CUDA device
stub.py   no model: a device that only takes its time

network.py        normalise, net, softmax, top-k: one module for every device
compiled.py       the same through torch.compile
gpu_decode.py     JPEGs -> crops on a CUDA device; resize_kernel.py
"""

import torch

from serve_app import weights
from serve_app.config import Args, ConfigError
from serve_app.decode import Decoder
from serve_app.engine.base import Engine, Execution, Item, Normalised, NotANumber, Outcome, Prediction
from serve_app.engine.cpu import CpuEngine
from serve_app.engine.cuda import CudaEngine
from serve_app.engine.stub import StubEngine
from serve_app.weights import Checkpoint

__all__ = ["Engine", "Execution", "Item", "Normalised", "NotANumber", "Outcome", "Prediction", "create", "load"]


def load(args: Args, num_threads: int, num_gpus: float = 1.0) -> tuple[Checkpoint, Engine]:
    """The checkpoint, and an engine with it, ready for the calling thread, which is to be the one that drives it.

    `num_gpus` below 1 is the share of the GPU's memory that the process may allocate.

    Torch is to work in no other: OpenMP keeps a team of threads for each thread that it has worked for,
    and where all teams together are more than the cores, workers sleep between layers instead of waiting
    for the next one. With the checkpoint loaded in another thread an image took 56 ms on two cores, at 10
    requests/s, and so 43.
    """
    checkpoint = weights.load(args)
    engine = create(args, checkpoint, num_threads, num_gpus)
    engine.start()
    return checkpoint, engine


def create(args: Args, checkpoint: Checkpoint, num_threads: int, num_gpus: float = 1.0) -> Engine:
    """The engine for `args.device` and `args.precision`.

    Raises ConfigError if the device is not there.
    """
    top_k = min(args.max_top_k, checkpoint.spec.num_classes)
    device = args.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if args.decode == "gpu" and device != "cuda":
        raise ConfigError(f"decode: gpu needs device: cuda, and this replica has {device}; set decode: cpu")
    if device == "stub":
        return StubEngine(args.stub, checkpoint.spec.num_classes, top_k, checkpoint.spec.geometry)
    if device == "cpu":
        return CpuEngine(checkpoint, args.precision, top_k, num_threads)
    if not torch.cuda.is_available():
        raise ConfigError(
            "device: cuda is asked for but the replica sees no GPU; "
            "set ray_actor_options.num_gpus above 0, or device: auto"
        )
    decoder = None
    if args.decode == "gpu":
        decoder = Decoder(checkpoint.spec.geometry, args.max_image_pixels, args.exif_orientation)
    return CudaEngine(checkpoint, args.precision, top_k, args.compile, decoder, min(1.0, num_gpus))
