"""Real photos and real ImageNet weights over HTTP; skipped where ../shared/data is absent."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
import torchvision
from PIL import Image, ImageOps
from torchvision.transforms import functional

from serve_app.bundled import train
from serve_app.model_spec import IMAGENET_MEAN, IMAGENET_STD
from serve_app.reader import SIGNATURES
from tests.serve.service import Service, config, mean_batch, running, statuses

MAX_BATCH_SIZE = 16
# Without a wait the first photos leave while the others arrive: how full their batches are, the machine decides.
BATCH_WAIT_S = 0.2
MEMORY_GROWTH_BYTES = 1 << 30
# Whole, but of the coding for which libtiff prints a line per damaged row.
FAX_CODED = {"formats/sharp_G31D_MULTI.TIF"}


@pytest.fixture(scope="module")
def imagenet(shared_data: Path) -> Iterator[Service]:
    weights = shared_data / "weights" / "resnet18.pth"
    args = {"arch": "resnet18", "weights": str(weights), "precision": "fp32", "num_threads": "all"}
    user_config = {"max_batch_size": MAX_BATCH_SIZE, "batch_wait_timeout_s": BATCH_WAIT_S}
    with running(config(args, max_ongoing_requests=128, user_config=user_config)) as service:
        yield service


def test_the_first_class_of_every_labelled_photo_is_the_references(imagenet: Service, shared_data: Path) -> None:
    labelled = json.loads((shared_data / "images/labels.json").read_text())
    paths = [shared_data / "images" / entry["file"] for entry in labelled]

    answers = imagenet.post(*(path.read_bytes() for path in paths))

    first = [body["images"][0]["classes"][0]["class_id"] for _, body in answers]
    assert first == [_reference(path, shared_data) for path in paths]
    accepted = sum(class_id in entry["accepted_index"] for class_id, entry in zip(first, labelled, strict=True))
    print(f"{accepted} of {len(labelled)} first classes accepted")
    assert accepted >= 39


def test_64_concurrent_photos_ride_in_full_batches(imagenet: Service, shared_data: Path) -> None:
    photos = [path.read_bytes() for path in sorted((shared_data / "images/labelled").glob("*"))]
    photos = (photos + photos)[:64]
    images = imagenet.metric("serve_actual_batch_size_sum")
    batches = imagenet.metric("serve_actual_batch_size_count")

    answers = imagenet.post(*photos)

    assert statuses(answers) == {200: 64}
    ridden = imagenet.settled_metric("serve_actual_batch_size_sum", images + 64) - images
    measured = ridden / (imagenet.metric("serve_actual_batch_size_count") - batches)
    print(f"mean batch {measured:.1f} by Ray, {mean_batch(answers):.1f} by the answers")
    assert measured >= 12


def test_every_file_gets_the_right_status_in_bounded_memory(imagenet: Service, shared_data: Path) -> None:
    manifest = json.loads((shared_data / "images/manifest.json").read_text())
    files = [(shared_data / "images" / entry["file"]).read_bytes() for entry in manifest]
    replica = next(p for p in imagenet.leftover_processes() if "ServeReplica" in " ".join(p.cmdline()))
    before = replica.memory_info().rss

    answers = [imagenet.post(file)[0] for file in files]

    wrong = [
        (entry["file"], status, body)
        for entry, file, (status, body) in zip(manifest, files, answers, strict=True)
        if status not in _right_statuses(entry, file)
    ]
    assert wrong == []
    growth = replica.memory_info().rss - before
    print(f"{statuses(answers)}; the replica grew by {growth / 2**20:.0f} MiB to {replica.memory_info().rss >> 20} MiB")
    assert growth < MEMORY_GROWTH_BYTES
    assert psutil.pid_exists(replica.pid)


def test_the_bundled_checkpoint_reads_its_held_out_digits_over_http() -> None:
    _, held_out = train.split()
    # All of them come at once: of its own, a queue holds 16 batches, and would refuse the rest.
    user_config = {"max_batch_size": MAX_BATCH_SIZE, "max_queue_size": 512}
    content = config(max_ongoing_requests=512, max_queued_requests=512, user_config=user_config)
    with running(content) as service:
        answers = service.post(*held_out.files, query="?top_k=1")
    assert statuses(answers) == {200: len(held_out.files)}
    first = [body["images"][0]["classes"][0]["class_id"] for _, body in answers]
    accuracy = float(np.mean(np.equal(first, held_out.labels)))
    print(f"{accuracy:.4f} of {len(first)} held-out digits")
    assert accuracy >= 0.98


def _reference(path: Path, shared_data: Path) -> int:
    """torchvision's pipeline: PIL, upright, Resize, CenterCrop, Normalize, fp32."""
    image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    # torchvision's annotations know only tensors.
    crop: Any = functional.center_crop(functional.resize(image, [256]), [224])  # type: ignore[arg-type]
    inputs = functional.normalize(functional.to_tensor(crop), list(IMAGENET_MEAN), list(IMAGENET_STD))
    with torch.inference_mode():
        return int(_reference_model(shared_data)(inputs[None]).argmax())


def _reference_model(shared_data: Path, cache: dict[Path, Any] = {}) -> Any:  # noqa: B006 - loaded once
    if shared_data not in cache:
        model = torchvision.models.resnet18()
        state_dict = torch.load(shared_data / "weights/resnet18.pth", weights_only=True)
        model.load_state_dict(state_dict)
        cache[shared_data] = model.eval()
    return cache[shared_data]


def _right_statuses(entry: dict[str, Any], file: bytes) -> set[int]:
    """From the manifest, which was made with Pillow alone: what it reads is 200, what it refuses is 4xx."""
    readable_kind = any(file.startswith(signature) for signature, _ in SIGNATURES) or file[8:12] == b"WEBP"
    if not file:
        return {400}
    if not readable_kind or entry["file"] in FAX_CODED:
        return {415}
    if "Bomb" in entry["pillow"]["decode"]:
        return {413}
    if entry["pillow"]["decode"] != "ok":
        return {413, 415, 422}
    # Pillow gave a picture; we refuse those cut short and the TIFF codings that flood the log.
    return {200, 415, 422} if "/corrupt" in f"/{entry['file']}" else {200}
