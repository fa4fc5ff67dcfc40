"""What a checkpoint says of itself: architecture, labels, geometry, normalisation. No torch here."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Channel = Annotated[float, Field(ge=0, le=1)]
PositiveChannel = Annotated[float, Field(gt=0, le=1)]
Side = Annotated[int, Field(ge=1, le=4096)]


class Geometry(BaseModel):
    """From a decoded image to the network's input.

    The shorter side becomes `resize_size` pixels, the centre `crop_size` x `crop_size` is cut out,
    and each channel c becomes (value / 255 - mean[c]) / std[c]. RGB order.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    resize_size: Side = 256
    crop_size: Side = 224
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    mean: tuple[Channel, Channel, Channel] = IMAGENET_MEAN
    std: tuple[PositiveChannel, PositiveChannel, PositiveChannel] = IMAGENET_STD

    @model_validator(mode="after")
    def _crop_fits(self) -> "Geometry":
        if self.crop_size > self.resize_size:
            raise ValueError(f"crop_size ({self.crop_size}) is above resize_size ({self.resize_size})")
        return self


class Card(BaseModel):
    """What may stand in a checkpoint's metadata (safetensors key `serve_app`) or in `<file>.json` beside it.

    Everything may be left out; what a training script knows belongs here, not into the deployment.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")] | None = None
    arch: str | None = None
    labels: tuple[str, ...] | None = None
    geometry: Geometry | None = None
    accuracy: Annotated[float, Field(ge=0, le=1)] | None = None
    description: str | None = None


@dataclass(frozen=True)
class ModelSpec:
    """The model that is served, as far as it does not depend on the device."""

    name: str
    arch: str
    labels: tuple[str, ...]
    geometry: Geometry
    weights: str
    """The torchvision enum, the file's name or `bundled`; never a path."""
    sha256: str
    description: str | None = None
    accuracy: float | None = None
    notice: str | None = None
    """What an operator should know, e.g. that these are fallback weights; None if all is as asked."""

    @property
    def num_classes(self) -> int:
        return len(self.labels)

    def metadata(self) -> dict[str, Any]:
        """As JSON for `GET /v2/models/{name}`."""
        return {
            "name": self.name,
            "arch": self.arch,
            "num_classes": self.num_classes,
            "labels": list(self.labels),
            "geometry": self.geometry.model_dump(),
            "weights": self.weights,
            "weights_sha256": self.sha256,
            "description": self.description,
            "accuracy": self.accuracy,
            "notice": self.notice,
        }
