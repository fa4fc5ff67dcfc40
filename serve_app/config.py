"""Every setting of the application, validated; an unknown key is an error.

`Args` is the YAML's `args:` (what a replica is: new replicas), `UserConfig` its `user_config:`
(how it batches: live). What Ray Serve itself configures stays in Ray's own keys.
"""

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

MEBIBYTE = 1 << 20
# For how long a busy event loop may keep the GIL from the device's thread. Python's own 5 ms are more
# than half of an 8 ms batch: 500 requests/s took 23.9 ms at the median with them, 21.8 ms with these.
GIL_SWITCH_INTERVAL_S = 0.0005


class ConfigError(ValueError):
    """A setting that cannot work; the message names the key and the fix. Raised at start, never later."""


class Stub(BaseModel):
    """How long the stub device takes for a batch of n, `base_ms + per_image_ms * n`; and what it fails on, to rehearse.

    An image's class is the sum of its pixels, modulo the number of classes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_ms: Annotated[float, Field(ge=0, le=60_000, description="of every batch")] = 8.0
    per_image_ms: Annotated[float, Field(ge=0, le=60_000, description="more for each image in it")] = 0.04
    raise_on_class: Annotated[int | None, Field(ge=0, description="a batch with an image of this class raises")] = None
    hang_on_class: Annotated[int | None, Field(ge=0, description="... never comes back")] = None


class Args(BaseModel):
    """What one replica is. A change restarts the replicas."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    arch: Annotated[
        str | None,
        Field(description="torchvision name of a ResNet, ResNeXt or Wide-ResNet; null: what the checkpoint says"),
    ] = None
    weights: Annotated[
        str,
        Field(min_length=1, description="torchvision enum name, path to .safetensors or .pth, or `bundled`"),
    ] = "DEFAULT"
    weights_sha256: Annotated[
        str | None,
        Field(
            pattern=r"^[0-9a-f]{64}$",
            description="of the weights, which alone are served; null: of the file as it was when it was deployed",
        ),
    ] = None
    fallback_weights: Annotated[
        Literal["bundled"] | None,
        Field(description="what to serve where a torchvision enum is neither cached nor downloadable"),
    ] = None
    model_name: Annotated[
        str | None,
        Field(
            pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
            description="name on the wire; null: the checkpoint's",
        ),
    ] = None
    device: Annotated[
        Literal["auto", "cpu", "cuda", "stub"],
        Field(description="auto: CUDA where the replica sees a GPU, else the CPU; stub: no model, only its times"),
    ] = "auto"
    precision: Annotated[
        Literal["auto", "fp32", "bf16"],
        Field(description="auto: bf16 where it is fast (CUDA, AMX, AMD with avx512_bf16), else fp32"),
    ] = "auto"
    compile: Annotated[
        bool | None,
        Field(description="torch.compile of the network, on CUDA; null: where that works; false: a faster start"),
    ] = None
    decode: Annotated[
        Literal["cpu", "gpu"],
        Field(description="where images are decoded; gpu: baseline JPEGs by nvJPEG, whatever else on the CPU"),
    ] = "cpu"
    decode_in: Annotated[
        Literal["threads", "processes"],
        Field(
            description="processes: what crashes or hangs a decoder ends its image, not the replica; needs decode: cpu"
        ),
    ] = "threads"
    exif_orientation: Annotated[bool, Field(description="turn photos upright, as their EXIF says")] = True
    num_threads: Annotated[
        Annotated[int, Field(ge=1, le=1024)] | Literal["all"] | None,
        Field(description="CPU threads per replica; null: its num_cpus, so that replicas x threads <= cores"),
    ] = None
    max_image_bytes: Annotated[
        int, Field(ge=1, le=1024 * MEBIBYTE, description="of one image as it comes; more is refused while reading")
    ] = 16 * MEBIBYTE
    max_request_bytes: Annotated[
        int, Field(ge=1, le=4096 * MEBIBYTE, description="a whole form or inference request")
    ] = 64 * MEBIBYTE
    max_json_bytes: Annotated[
        int,
        Field(ge=1, le=64 * MEBIBYTE, description="JSON of an inference request, without its binary tensors"),
    ] = 4 * MEBIBYTE
    max_image_pixels: Annotated[
        int, Field(ge=1, le=1_000_000_000, description="width x height; more is refused before it is decoded")
    ] = 50_000_000
    max_images: Annotated[int, Field(ge=1, le=1024, description="in one multipart form or inference request")] = 32
    max_top_k: Annotated[int, Field(ge=1, le=1000, description="largest top_k a request may ask for")] = 100
    tokens_file: Annotated[
        str | None,
        Field(min_length=1, description="who may call: bearer tokens' hashes, by `serve-app token`; null: everybody"),
    ] = None
    stub: Stub = Stub()

    @model_validator(mode="after")
    def _limits_agree(self) -> "Args":
        if self.max_request_bytes < self.max_image_bytes:
            raise ValueError(
                f"max_request_bytes ({self.max_request_bytes}) is below max_image_bytes "
                f"({self.max_image_bytes}): raise max_request_bytes or lower max_image_bytes"
            )
        return self

    @model_validator(mode="after")
    def _decoders_agree(self) -> "Args":
        # A JPEG that the GPU refuses is decoded on the CPU while the batch waits: one that hangs there would be taken
        # for a device that hangs, which ends the replica, long before its process is over its time.
        if self.decode == "gpu" and self.decode_in == "processes":
            raise ValueError(
                "decode_in: processes confines what the CPU decodes, and with decode: gpu it would not: "
                "set decode: cpu, or decode_in: threads"
            )
        return self

    @model_validator(mode="after")
    def _weights_agree(self) -> "Args":
        if self.weights_sha256 and self.fallback_weights:
            raise ValueError("weights_sha256 leaves nothing to fall back to: drop fallback_weights")
        return self


class UserConfig(BaseModel):
    """How a replica batches. Changes live, through Ray Serve's `reconfigure`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_batch_size: Annotated[int, Field(ge=1, le=1024, description="images in one execution at most")] = 16
    batch_wait_timeout_s: Annotated[
        float,
        Field(ge=0, le=60, description="how long a free device lets the oldest image wait for company"),
    ] = 0.0
    latency_slo_ms: Annotated[
        float | None,
        Field(gt=0, le=3_600_000, description="time in which a request is to be answered, unless it says; null: none"),
    ] = None
    max_queue_size: Annotated[
        int | None,
        Field(ge=1, le=1 << 20, description="images that may wait in a replica; null: 16 x max_batch_size"),
    ] = None
    top_k: Annotated[int, Field(ge=1, le=1000, description="classes per image unless the request says")] = 5
    batch_buckets: Annotated[
        tuple[Annotated[int, Field(ge=1, le=1024)], ...] | None,
        Field(description="batch sizes that run, others are padded up; null: 1 to 16, then eight per doubling"),
    ] = None

    @model_validator(mode="after")
    def _buckets_agree(self) -> "UserConfig":
        if self.batch_buckets is None:
            return self
        if list(self.batch_buckets) != sorted(set(self.batch_buckets)):
            raise ValueError("batch_buckets must ascend: write each size once, the smallest first")
        if self.batch_buckets[-1:] != (self.max_batch_size,):
            raise ValueError(f"batch_buckets must end in max_batch_size ({self.max_batch_size})")
        return self

    @property
    def queue_size(self) -> int:
        """Images that may wait in a replica for its device."""
        return self.max_queue_size or 16 * self.max_batch_size

    def buckets(self) -> tuple[int, ...]:
        """The batch sizes that are warmed and run."""
        return self.batch_buckets or default_buckets(self.max_batch_size)


class Scaling(BaseModel):
    """`policy_kwargs` of `serve_app.autoscaling:BatchingAware`; times in seconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    target_demand: Annotated[
        float, Field(gt=0, le=1, description="of each device, what traffic is to fill; the rest is for its bursts")
    ] = 0.7
    tolerance: Annotated[
        float, Field(ge=0, lt=1, description="of a replica, how much must be missing for one more to start")
    ] = 0.1
    max_delay: Annotated[
        float, Field(gt=0, le=1, description="share of the tolerable wait that may be used up, for `patience_s`")
    ] = 0.8
    patience_s: Annotated[float, Field(ge=0, le=600, description="for how long before a queue alone adds replicas")] = (
        3.0
    )
    slack: Annotated[
        float, Field(ge=0, lt=1, description="how much emptier than needed devices must be for one to be given up")
    ] = 0.1
    calm_s: Annotated[
        float, Field(ge=0, le=86_400, description="a replica goes when for so long nothing would have needed it")
    ] = 60.0


def default_buckets(max_batch_size: int) -> tuple[int, ...]:
    """1 to 16, then eight steps per doubling, up to the maximum.

    A size in between is padded to the next one, which adds less than an eighth to the batch; to warm
    every size up to 64 would take three times as long.
    """
    sizes = list(range(1, min(16, max_batch_size) + 1))
    step = 2
    while sizes[-1] < max_batch_size:
        sizes.extend(range(sizes[-1] + step, 2 * sizes[-1] + 1, step))
        step *= 2
    return (*(size for size in sizes if size < max_batch_size), max_batch_size)


MAX_BATCH_OVER_TARGET = 8
"""Of `max_batch_size` over the autoscaler's `target_ongoing_requests`: with a lower target replicas are added before
batches form."""


def max_ongoing_requests(max_batch_size: int) -> int:
    """Requests one replica has inside at once: twice its own queue, so that each comes as far as admission.

    What Ray holds back beyond it waits unseen, first come first served, whatever its deadline. Ray's
    default of 5 would cap every batch at 5.
    """
    return 32 * max_batch_size


def max_queued_requests(max_batch_size: int) -> int:
    """Requests beyond those before Ray itself answers 503: the last line. Ray's default is no bound at all."""
    return 16 * max_batch_size


def parse_user_config(raw: dict[str, Any] | None) -> UserConfig:
    """The validated `user_config`. Raises ConfigError with one line per wrong key."""
    try:
        return UserConfig.model_validate(raw or {})
    except ValidationError as error:
        raise ConfigError(f"user_config: {validation_lines(error)}") from None


def validation_lines(error: ValidationError) -> str:
    """Pydantic's findings as `key: what is wrong`, joined by semicolons; no URLs, no class names."""
    return "; ".join(f"{'.'.join(map(str, e['loc'])) or 'settings'}: {e['msg']}" for e in error.errors())


def resolve_num_threads(requested: int | str | None, num_cpus: float, cores: int) -> int:
    """CPU threads of one replica.

    `num_cpus` is what Ray reserved for the replica: Ray places no more replicas on a node than its
    cores hold, so threads = num_cpus keeps replicas x threads <= cores. Two OpenMP threads beside
    another busy process made single forward passes 2-40 times slower.
    """
    if requested == "all":
        return max(1, cores)
    if isinstance(requested, int):
        return requested
    return max(1, min(math.floor(num_cpus), cores))
