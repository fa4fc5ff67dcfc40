"""What is measured: a network on a device, as the service makes it and as a tutorial does."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from serve_app import weights
from serve_app.bench.forward import Setup
from serve_app.config import Args
from serve_app.decode import Decoder, Pixels
from serve_app.engine import Engine, load
from serve_app.model_spec import Geometry

Variant = Literal["default", "compiled", "uncompiled"]
COMPILE: dict[Variant, bool | None] = {"default": None, "compiled": True, "uncompiled": False}


@dataclass(frozen=True)
class Subject:
    arch: str
    weights: str
    """As in `args.weights`."""
    random: bool
    """Whether these weights have learnt nothing."""
    device: str
    """`cuda:0`, `cpu` or `stub`."""
    num_cores: int

    @property
    def on_gpu(self) -> bool:
        return self.device.startswith("cuda")

    def args(self, variant: Variant = "default", **more: Any) -> dict[str, Any]:
        """`args:` of a config."""
        compiled = {} if COMPILE[variant] is None else {"compile": COMPILE[variant]}
        device = self.device.partition(":")[0]
        return {"arch": self.arch, "weights": self.weights, "device": device, **compiled, **more}

    def engine(self, variant: Variant = "default", **more: Any) -> Engine:
        """As a replica makes it, in the thread that is to drive it."""
        if self.on_gpu:
            torch.cuda.set_device(self.device)
        return load(Args.model_validate(self.args(variant, **more)), self.num_cores)[1]

    def eager(self, device: str) -> Engine:
        """As torchvision gives it, in fp32."""
        return Setup(self.arch, device, "fp32", self.num_cores, engine="eager", weights=self.weights).create()

    def geometry(self) -> Geometry:
        return weights.load(Args.model_validate(self.args())).spec.geometry

    def decoder(self) -> Decoder:
        return Decoder(self.geometry(), Args().max_image_pixels)


def noise(geometry: Geometry, count: int) -> list[Pixels]:
    """Random crops, uint8 (crop_size, crop_size, 3), no more than 64 distinct ones."""
    side = geometry.crop_size
    generator = np.random.default_rng(0)
    distinct = [generator.integers(0, 256, (side, side, 3), np.uint8) for _ in range(min(count, 64))]
    return [distinct[i % len(distinct)] for i in range(count)]
