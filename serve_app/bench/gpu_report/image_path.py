"""From JPEGs to crops, without the network: on the GPU in batches, and on one core."""

from collections.abc import Iterator, Sequence
from statistics import median

import torch

from serve_app import jpeg
from serve_app.bench import isolated
from serve_app.bench.forward import timed_ms
from serve_app.bench.gpu_report.line import Line, of_repeats
from serve_app.bench.gpu_report.scale import Scale
from serve_app.bench.gpu_report.subject import Subject
from serve_app.bench.gpu_report.task import Context, NotMeasured, gathered
from serve_app.bench.images import readable
from serve_app.config import Args
from serve_app.jpeg import Jpeg

SECTION = 5
CPU_IMAGES = 32
ONE_CORE = 0
"""In place of a batch size."""
WARM_UPS = 2


def run(context: Context) -> Iterator[Line]:
    arguments = (context.subject, context.pictures.files, context.scale)
    items, failure = gathered(isolated.stream(_measure, *arguments, limit_s=context.limit_s))
    found: dict[int, list[float]] = {}
    for size, per_s in items:
        found.setdefault(size, []).append(per_s)
    if on_one_core := found.pop(ONE_CORE, None):
        yield _cpu_line(context, on_one_core)
    for size, repeats in found.items():
        context.known.gpu_decode[size] = median(repeats)
        yield of_repeats(Line(SECTION, f"GPU, decode and resize, batch of {size}", unit="images/s"), repeats)
    if failure:
        raise failure
    context.needs_gpu()


def _cpu_line(context: Context, per_s: list[float]) -> Line:
    cores = context.subject.num_cores
    context.known.cpu_decode_per_s = cores * median(per_s)
    note = f"{cores} cores, did none hinder another: {cores * median(per_s):,.0f}/s"
    return of_repeats(Line(SECTION, "CPU, decode and resize, one core", unit="images/s", note=note), per_s)


def for_the_gpu(files: Sequence[bytes]) -> tuple[list[int], list[Jpeg]]:
    """Those of the files that its decoder takes, and which of them these are. Raises NotMeasured if there are none."""
    args = Args()
    parsed = [jpeg.parse(file, args.max_image_pixels, args.exif_orientation) for file in files]
    if not any(parsed):
        raise NotMeasured("none of the images is a JPEG that the GPU decodes")
    return [i for i, one in enumerate(parsed) if one], [one for one in parsed if one]


def _measure(subject: Subject, files: Sequence[bytes], scale: Scale) -> Iterator[tuple[int, float]]:
    """Batch size, or ONE_CORE, and images/s, `repeats` times each."""
    for per_s in _measure_cpu(subject, files, scale):
        yield ONE_CORE, per_s
    if subject.on_gpu:
        yield from _measure_gpu(subject, files, scale)


def _measure_gpu(subject: Subject, files: Sequence[bytes], scale: Scale) -> Iterator[tuple[int, float]]:
    from serve_app.engine.gpu_decode import GpuDecoder  # Triton, which is not everywhere

    torch.cuda.set_device(subject.device)
    geometry, (_, images) = subject.geometry(), for_the_gpu(files)
    decoder = GpuDecoder(geometry, subject.decoder(), torch.device(subject.device))
    decoder.warm_up()  # fails where the batches below would go to the CPU without a word
    crops = torch.empty(
        (max(scale.decode_sizes), geometry.crop_size, geometry.crop_size, 3), dtype=torch.uint8, device=subject.device
    )
    for repeat in range(scale.repeats):
        for size in scale.decode_sizes:
            batch = [images[i % len(images)] for i in range(size)]

            def decode(batch: Sequence[Jpeg] = batch) -> None:
                errors = decoder.decode_into(batch, crops)
                torch.cuda.synchronize()
                if errors:
                    raise NotMeasured(f"{len(errors)} of {len(batch)} were not decoded: {next(iter(errors.values()))}")

            for _ in range(WARM_UPS if repeat == 0 else 0):
                decode()
            yield size, size / timed_ms(decode, scale.measure_s) * 1e3


def _measure_cpu(subject: Subject, files: Sequence[bytes], scale: Scale) -> Iterator[float]:
    decoder = subject.decoder()
    some = readable(files[:CPU_IMAGES], decoder)
    for _ in range(scale.repeats):
        ms = timed_ms(lambda: [decoder(file) for file in some], scale.measure_s)
        yield len(some) / ms * 1e3
