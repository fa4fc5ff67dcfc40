"""From the `weights` setting to a checkpoint: torchvision enum | file | `bundled` -> spec and state dict.

Files are read without running pickled code. Metadata (a `Card`) comes from the safetensors header
key `serve_app`, or from a JSON file of the same name beside the weights.
"""

import hashlib
import http.client
import json
import logging
import pickle
import socket
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

import torch
import torchvision
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from serve_app import architectures
from serve_app.config import Args, ConfigError, validation_lines
from serve_app.model_spec import Card, Geometry, ModelSpec

logger = logging.getLogger(__name__)

BUNDLED_PATH = Path(__file__).parent / "bundled" / "digits.safetensors"
CARD_KEY = "serve_app"
DEFAULT_ARCH = "resnet18"
FILE_SUFFIXES = (".safetensors", ".pth", ".pt")
# A machine without a network must know within 10 s which weights it serves: name resolution alone
# may block for longer than any socket timeout, so the probe runs in a thread of its own.
PROBE_TIMEOUT_S = 8.0
STALLED_DOWNLOAD_TIMEOUT_S = 30.0

StateDict = dict[str, torch.Tensor]


class WeightsError(ConfigError):
    """The weights cannot be had or do not fit; the message says which and why."""


class WeightsUnreachable(WeightsError):
    """The weights are neither on this machine nor to be had from the network."""


@dataclass(frozen=True)
class Checkpoint:
    """A spec and the tensors it describes (on the CPU)."""

    spec: ModelSpec
    state_dict: StateDict

    def build_model(self) -> torch.nn.Module:
        """The network with these weights, in eval mode, fp32, on the CPU.

        Raises WeightsError, naming the keys that differ, if the checkpoint is of another network.
        """
        model = architectures.build(self.spec.arch, self.spec.num_classes)
        _check_fit(model.state_dict(), self.state_dict, self.spec)
        model.load_state_dict(self.state_dict, strict=False)
        return model.eval()


def load(args: Args) -> Checkpoint:
    """The checkpoint that `args` names; with `fallback_weights`, the bundled one if it is unreachable."""
    try:
        checkpoint = _load(args)
        _verify(checkpoint.spec.sha256, args)
        return _named(checkpoint, args)
    except WeightsUnreachable as error:
        if args.fallback_weights is None:
            raise
        # Every client may read it: why, with paths and hosts, is the log's.
        notice = (
            f"The weights asked for are not here, the log says why. Serving the bundled {BUNDLED_PATH.stem} "
            "checkpoint instead: it reads handwritten digits, nothing else."
        )
        logger.warning("%s (%s)", notice, error)
        checkpoint = _load_bundled()
        return _named(replace(checkpoint, spec=replace(checkpoint.spec, notice=notice)), args)


def check(args: Args) -> str | None:
    """Whether the weights can be served, as far as this machine can tell without a download; their sha256, if they
    are here.

    A file is loaded into its network, unless its whole folder is not here: it may be on a volume that only other
    machines have. Raises WeightsError.
    """
    path = _path(args)
    if args.weights != "bundled" and path is None:
        cached = _cached(_torchvision_weights(args.arch or DEFAULT_ARCH, args.weights))
        return _verify(_published(cached), args) if cached.exists() else args.weights_sha256
    if path is not None and not ((path.is_absolute() and path.parent.is_dir()) or path.is_file()):
        return args.weights_sha256
    checkpoint = _load(args)
    _verify(checkpoint.spec.sha256, args)
    checkpoint.build_model()
    return checkpoint.spec.sha256


def _verify(found: str, args: Args) -> str:
    """The sha256 as it was found. Raises WeightsError for others than those asked for, or that were deployed."""
    if args.weights_sha256 not in (None, found):
        raise WeightsError(
            f"weights: {args.weights} is not what is to be served: its sha256 is {found}, not {args.weights_sha256}; "
            "put that file back, or deploy the new one under another name"
        )
    return found


def _load(args: Args) -> Checkpoint:
    path = _path(args)
    if path is not None:
        return load_file(path, args.arch)
    if args.weights == "bundled":
        return _load_bundled(args.arch)
    return _load_torchvision(args.arch or DEFAULT_ARCH, args.weights)


def _path(args: Args) -> Path | None:
    """None: the weights are in no file of the user's. Raises WeightsError for a file of another kind."""
    if args.weights.endswith(FILE_SUFFIXES):
        return Path(args.weights).expanduser()
    if "/" in args.weights or "." in args.weights:
        raise WeightsError(f"weights: {args.weights!r} is no file we read; it must end in .safetensors or .pth")
    return None


def _load_bundled(arch: str | None = None) -> Checkpoint:
    checkpoint = load_file(BUNDLED_PATH, arch)
    return replace(checkpoint, spec=replace(checkpoint.spec, weights="bundled"))


def _named(checkpoint: Checkpoint, args: Args) -> Checkpoint:
    name = args.model_name or checkpoint.spec.name
    return replace(checkpoint, spec=replace(checkpoint.spec, name=name))


# --- torchvision ---------------------------------------------------------------------------------


def _load_torchvision(arch: str, name: str) -> Checkpoint:
    weights = _torchvision_weights(arch, name)
    cached = _cached(weights)
    if not cached.exists():
        _download(weights)
    state_dict = _read_pth(cached)
    sha256 = _published(cached)
    return Checkpoint(
        spec=ModelSpec(
            name=arch,
            arch=arch,
            labels=tuple(weights.value.meta["categories"]),
            geometry=_torchvision_geometry(weights),
            weights=str(weights),
            sha256=sha256,
        ),
        state_dict=state_dict,
    )


def _cached(weights: Any) -> Path:
    """Where torch.hub keeps it."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(urllib.parse.urlparse(weights.value.url).path).name


def _published(cached: Path) -> str:
    """Its sha256, which begins as its name ends: `resnet18-f37072fd.pth`. torch.hub looks only as it downloads.

    Raises WeightsError.
    """
    found = _sha256(cached)
    if not found.startswith(cached.stem.rpartition("-")[2]):
        raise WeightsError(f"weights: {cached} is not what torchvision publishes (sha256 {found}): delete it")
    return found


def _torchvision_weights(arch: str, name: str) -> Enum:
    architectures.check(arch)
    if arch == architectures.NARROW:
        raise WeightsError(f"weights: {arch} has none in torchvision; use `weights: bundled` or a file")
    choices: Any = torchvision.models.get_model_weights(arch)
    if name not in choices.__members__:
        known = ", ".join([*choices.__members__, "bundled", "a path to .safetensors or .pth"])
        raise WeightsError(f"weights: torchvision has no {name!r} for {arch}; there is {known}")
    weights: Enum = choices[name]
    return weights


def _torchvision_geometry(weights: Any) -> Geometry:
    preset = weights.transforms()
    return Geometry(
        resize_size=preset.resize_size[0],
        crop_size=preset.crop_size[0],
        interpolation=preset.interpolation.value,
        mean=tuple(preset.mean),
        std=tuple(preset.std),
    )


def _download(weights: Any) -> None:
    if not _reachable(weights.url):
        host = urllib.parse.urlparse(weights.url).hostname
        raise WeightsUnreachable(f"{weights} is not in {torch.hub.get_dir()}, and {host} does not answer")
    logger.info("Downloading %s", weights)
    try:
        with _socket_timeout(STALLED_DOWNLOAD_TIMEOUT_S):
            weights.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: torch.hub's hash mismatch
        raise WeightsUnreachable(f"the download of {weights} failed: {error}") from error


def _reachable(url: str) -> bool:
    answered = threading.Event()

    def probe() -> None:
        try:
            request = urllib.request.Request(url, method="HEAD")  # noqa: S310 - torchvision's own https URL
            with urllib.request.urlopen(request, timeout=PROBE_TIMEOUT_S):  # noqa: S310
                answered.set()
        except (OSError, http.client.HTTPException) as error:
            logger.info("%s: %s", url, error)

    thread = threading.Thread(target=probe, daemon=True)
    thread.start()
    thread.join(PROBE_TIMEOUT_S)
    return answered.is_set()


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


# --- files ---------------------------------------------------------------------------------------


def load_file(path: Path, arch: str | None = None) -> Checkpoint:
    """A state dict from `.safetensors`, or from `.pth` without running pickled code.

    `arch` is needed only where the file's metadata names none, and must agree where it does.
    """
    if not path.is_file():
        raise WeightsError(f"weights: there is no file {path}")
    state_dict, card = _read_safetensors(path) if path.suffix == ".safetensors" else (_read_pth(path), None)
    card = _read_card_beside(path) or card or Card()
    arch = _agreed_arch(arch, card, path)
    return Checkpoint(
        spec=ModelSpec(
            name=card.name or arch,
            arch=arch,
            labels=_labels(card, state_dict, path),
            geometry=card.geometry or Geometry(),
            weights=path.name,
            sha256=_sha256(path),
            description=card.description,
            accuracy=card.accuracy,
        ),
        state_dict=state_dict,
    )


def _read_safetensors(path: Path) -> tuple[StateDict, Card | None]:
    try:
        with safe_open(path, framework="pt") as file:
            raw = (file.metadata() or {}).get(CARD_KEY)
            # Not an iterator: `keys()` is safe_open's own way to list the tensors.
            state_dict = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise WeightsError(f"weights: {path} is not a safetensors file: {error}") from None
    return state_dict, _parse_card(raw, path) if raw else None


def _read_pth(path: Path) -> StateDict:
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle raises whatever the unpickler trips over
        if isinstance(error, pickle.UnpicklingError) and "global" in str(error).lower():
            raise WeightsError(
                f"weights: {path} holds more than tensors, which could run code when loaded; "
                "save the weights alone: torch.save(model.state_dict(), path)"
            ) from None
        raise WeightsError(f"weights: {path} is damaged, or no file that torch.save wrote") from error
    return _unwrapped(loaded, path)


def _unwrapped(loaded: Any, path: Path) -> StateDict:
    """The state dict inside what training scripts save around it, without DataParallel's `module.`."""
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    if not isinstance(loaded, Mapping) or not all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in loaded.items()
    ):
        raise WeightsError(f"weights: {path} holds no state dict (a mapping of names to tensors)")
    return {key.removeprefix("module."): tensor for key, tensor in loaded.items()}


def _read_card_beside(path: Path) -> Card | None:
    beside = path.with_suffix(".json")
    return _parse_card(beside.read_bytes(), beside) if beside.is_file() else None


def _parse_card(raw: str | bytes, path: Path) -> Card:
    try:
        return Card.model_validate(json.loads(raw))
    except ValidationError as error:
        raise WeightsError(f"{path}: {validation_lines(error)}") from None
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: not JSON: {error}") from None


def _agreed_arch(arch: str | None, card: Card, path: Path) -> str:
    if arch and card.arch and arch != card.arch:
        raise WeightsError(f"arch: {path.name} says of itself that it is a {card.arch}, not a {arch}; drop `arch`")
    agreed = arch or card.arch
    if not agreed:
        raise WeightsError(f"arch: {path.name} does not say which network it is; set `arch`")
    return architectures.check(agreed)


def _labels(card: Card, state_dict: StateDict, path: Path) -> tuple[str, ...]:
    """One label per class: the card's, ImageNet's for 1000 classes, else the class numbers."""
    if "fc.weight" not in state_dict or state_dict["fc.weight"].dim() != 2:
        raise WeightsError(f"weights: {path.name} has no `fc.weight` matrix, so it is no torchvision ResNet")
    num_classes = state_dict["fc.weight"].shape[0]
    if card.labels is not None:
        if len(card.labels) != num_classes:
            raise WeightsError(f"labels: {path.name} has {num_classes} classes but {len(card.labels)} labels")
        return card.labels
    imagenet = tuple(torchvision.models.ResNet18_Weights.DEFAULT.meta["categories"])
    if num_classes == len(imagenet):
        return imagenet
    logger.warning("%s names none of its %d classes; labels are their numbers", path.name, num_classes)
    return tuple(map(str, range(num_classes)))


def _check_fit(expected: Mapping[str, torch.Tensor], actual: StateDict, spec: ModelSpec) -> None:
    # Checkpoints from before torch 0.4.1 have no num_batches_tracked; inference does not use it.
    missing = sorted(k for k in expected.keys() - actual.keys() if not k.endswith("num_batches_tracked"))
    unexpected = sorted(actual.keys() - expected.keys())
    differing = sorted(
        f"{k} {tuple(actual[k].shape)} instead of {tuple(expected[k].shape)}"
        for k in expected.keys() & actual.keys()
        if expected[k].shape != actual[k].shape
    )
    found = {"missing": missing, "unexpected": unexpected, "of another shape": differing}
    if any(found.values()):
        parts = "; ".join(f"{len(keys)} {what}: {_shortened(keys)}" for what, keys in found.items() if keys)
        raise WeightsError(f"weights: {spec.weights} does not fit {spec.arch}: {parts}")


def _shortened(keys: list[str], most: int = 5) -> str:
    return ", ".join(keys[:most]) + (f" and {len(keys) - most} more" if len(keys) > most else "")


def _sha256(path: Path) -> str:
    """To be taken after the tensors were: a file that is replaced meanwhile is then found out."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
