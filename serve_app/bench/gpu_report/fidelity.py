"""Whether the answers are the reference's: torchvision's network in fp32 on the CPU, on crops decoded by Pillow."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import torch

from serve_app.bench import isolated
from serve_app.bench.gpu_report.image_path import for_the_gpu
from serve_app.bench.gpu_report.line import Bar, Line
from serve_app.bench.gpu_report.scale import Scale
from serve_app.bench.gpu_report.subject import Subject, Variant
from serve_app.bench.gpu_report.task import Context
from serve_app.bench.images import readable
from serve_app.decode import Pixels
from serve_app.engine import Engine, Item, Outcome, Prediction
from serve_app.jpeg import UPRIGHT, Jpeg

SECTION = 6
CPU_DECODE_BAR, GPU_DECODE_BAR = Bar(">=", 99), Bar(">=", 98)
NO_GATE = "random weights, whose classes nearly tie: no gate"
REFERENCE_BATCH = 16


def run(context: Context) -> Iterator[Line]:
    variant: Variant = "default" if context.known.compiles else "uncompiled"
    files = _some_of(context.pictures.files, context.scale.max_images)
    for line in isolated.stream(_measure, context.subject, variant, files, context.scale, limit_s=context.limit_s):
        yield _without_bar(line) if context.subject.random else line
    context.needs_gpu()


def _without_bar(line: Line) -> Line:
    return replace(line, bar=None, note=f"{line.note}; {NO_GATE}") if line.bar else line


def _some_of(files: Sequence[bytes], most: int) -> Sequence[bytes]:
    """From the whole of a folder that may be sorted by kind."""
    return files[:: -(-len(files) // most)]


def _measure(subject: Subject, variant: Variant, files: Sequence[bytes], scale: Scale) -> Iterator[Line]:
    files, crops = _decoded(subject, files)
    expected = _reference(subject, crops)
    engine = subject.engine(variant, precision="bf16", decode="gpu" if subject.on_gpu else "cpu")
    engine.warm_up(scale.max_batch_size)
    yield _agreement("bf16, decode on the CPU", expected, _classes(engine, crops, scale), CPU_DECODE_BAR)
    if not subject.on_gpu:
        return
    kept, images = for_the_gpu(files)
    crops = [crops[i] for i in kept]
    found = _classes(engine, images, scale)
    yield _agreement("bf16, decode on the GPU", [expected[i] for i in kept], found, GPU_DECODE_BAR)
    yield from _differences("GPU decode and resize", crops, _gpu_crops(subject, images, scale))
    yield from _differences("the GPU's resize alone", crops, _resized(subject, images))


def _decoded(subject: Subject, files: Sequence[bytes]) -> tuple[list[bytes], list[Pixels]]:
    """Those that can be read, and their crops."""
    decoder = subject.decoder()
    files = readable(files, decoder)
    with ThreadPoolExecutor(subject.num_cores) as threads:
        return files, list(threads.map(decoder, files))


def _reference(subject: Subject, crops: Sequence[Pixels]) -> list[int]:
    engine = subject.eager("cpu")
    batches = [crops[i : i + REFERENCE_BATCH] for i in range(0, len(crops), REFERENCE_BATCH)]
    for size in {len(batch) for batch in batches}:
        engine.warm_up(size)
    return [_class(outcome) for batch in batches for outcome in engine.infer(batch)]


def _classes(engine: Engine, items: Sequence[Item], scale: Scale) -> list[int]:
    batches = [items[i : i + scale.max_batch_size] for i in range(0, len(items), scale.max_batch_size)]
    return [_class(outcome) for batch in batches for outcome in engine.infer(batch)]


def _class(outcome: Outcome) -> int:
    """The first; -1, which no reference has, of an image that was not decoded."""
    return int(outcome.class_ids[0]) if isinstance(outcome, Prediction) else -1


def _agreement(what: str, expected: Sequence[int], found: Sequence[int], bar: Bar) -> Line:
    same = sum(one == other for one, other in zip(expected, found, strict=True))
    note = f"{same} of {len(expected)} images, against torchvision in fp32 on the CPU"
    return Line(SECTION, f"same first class: {what}", 100 * same / len(expected), "%", bar=bar, note=note)


def _differences(what: str, expected: Sequence[Pixels], found: Sequence[Pixels]) -> Iterator[Line]:
    """In levels of 0 to 255, over all values of all crops."""
    levels = np.abs(np.stack(expected).astype(np.int16) - np.stack(found))
    note = f"{len(expected)} crops, against Pillow"
    yield Line(SECTION, f"largest difference: {what}", float(levels.max()), "levels", note=note)
    yield Line(SECTION, f"mean difference: {what}", float(levels.mean()), "levels", note=note)


def _gpu_crops(subject: Subject, images: Sequence[Jpeg], scale: Scale) -> list[Pixels]:
    from serve_app.engine.gpu_decode import GpuDecoder  # Triton, which is not everywhere

    decoder = GpuDecoder(subject.geometry(), subject.decoder(), torch.device(subject.device))
    decoder.warm_up()  # fails where the batches below would go to the CPU without a word
    out = _empty(subject, scale.max_batch_size)
    crops: list[Pixels] = []
    for i in range(0, len(images), scale.max_batch_size):
        batch = images[i : i + scale.max_batch_size]
        decoder.decode_into(batch, out)
        crops.extend(out[: len(batch)].cpu().numpy().copy())
    return crops


def _resized(subject: Subject, images: Sequence[Jpeg]) -> list[Pixels]:
    """Decoded by Pillow, so that the resize is all that differs."""
    from serve_app.engine.resize_kernel import resize_into

    decoder, geometry = subject.decoder(), subject.geometry()
    out = _empty(subject, 1)
    crops = []
    for image in images:
        photo = torch.from_numpy(np.array(decoder.read(image.data))).permute(2, 0, 1).contiguous()
        resize_into([photo.to(subject.device)], [UPRIGHT], [0], out, geometry)
        crops.append(out[0].cpu().numpy().copy())
    return crops


def _empty(subject: Subject, count: int) -> torch.Tensor:
    """uint8 (count, crop_size, crop_size, 3), on the GPU."""
    side = subject.geometry().crop_size
    return torch.empty((count, side, side, 3), dtype=torch.uint8, device=subject.device)
