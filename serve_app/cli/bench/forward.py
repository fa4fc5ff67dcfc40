"""`serve-app bench forward`: the levers, measured one by one; tables and files out."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch

from serve_app import architectures
from serve_app.bench import forward, machine
from serve_app.bench.forward import Curve, Setup, doublings
from serve_app.bench.images import Images
from serve_app.bench.isolated import Died
from serve_app.cli.bench import output
from serve_app.cli.bench.output import number, read_images, warn_if_busy
from serve_app.config import ConfigError

MAX_BATCH_SIZE_CPU = 64
MAX_BATCH_SIZE_CUDA = 1024
STAGE_FILES = 64
BAR = 12


def run(
    *,
    archs: tuple[str, ...],
    device: str,
    max_batch_size: int | None,
    count: int,
    images: Path | None,
    image_size: tuple[int, int],
    threads: int | None,
    repeats: int,
    as_json: bool,
    csv_path: Path | None,
    plot: Path | None,
) -> int:
    """Measure and print; the exit status."""
    output.check_figure_path(plot)
    output.check_writable(csv_path, "--csv")
    try:
        for arch in archs:
            architectures.check(arch)
        device = machine.resolved_device(device)
        pictures = read_images(images, image_size)
        setup = Setup(archs[0], device, "auto", threads or machine.num_cores())
        sizes = doublings(max_batch_size or (MAX_BATCH_SIZE_CPU if device == "cpu" else MAX_BATCH_SIZE_CUDA))
        warn_if_busy()
        report = _Measuring(setup, sizes, pictures, count, repeats).report(archs)
    except (ConfigError, Died) as error:
        output.fail(str(error), 2)
    if as_json:
        output.print_json(report)
    else:
        _print(report)
    if csv_path:
        output.write_csv(csv_path, report["batch"]["rows"])
    if plot:
        from serve_app.bench import figures

        figures.save(
            plot, f"{archs[0]} on {device}", report, figures.forward_panels(report), list(_tables(report).values())
        )
    return 0


@dataclass(frozen=True)
class _Measuring:
    setup: Setup
    sizes: Sequence[int]
    pictures: Images
    count: int
    repeats: int

    def report(self, archs: Sequence[str]) -> dict[str, Any]:
        variants = list(_variants(self.setup))
        steps = self.repeats * (len(self.sizes) + 2 * (len(archs) - 1) + 2 * (len(variants) - 1)) + 2
        arch = self.setup.arch
        with output.steps(steps) as show:
            curve = forward.curve(
                self.setup, self.sizes, self.repeats, lambda n: show(f"{self.setup.arch}, batch of {n}")
            )
            if not curve.times_ms:
                raise ConfigError(f"{arch}: not even one image fits into the memory of {self.setup.device}")
            knee = curve.knee
            files = self.pictures.files[:STAGE_FILES]
            lesson = forward.lesson(self.setup, files, self.count, knee, self.repeats)
            show("stages")
            stages = forward.stages(self.setup, files, knee, self.repeats)
            show("architectures")
            by_arch = [
                {"arch": name, **self._pair(replace(self.setup, arch=name), knee, show, name, curve)} for name in archs
            ]
            by_variant = [
                {
                    "device": variant.device,
                    "precision": variant.precision,
                    "how": variant.engine,
                    **self._pair(
                        variant, knee, show, f"{variant.engine} {variant.precision} on {variant.device}", curve
                    ),
                }
                for variant in variants
            ]
        medians = {stage: median(times) for stage, times in stages.items()}
        return {
            **machine.facts(),
            "arch": self.setup.arch,
            "device": self.setup.device,
            "precision": curve.precision,
            "num_threads": self.setup.num_threads,
            "images": self.pictures.description,
            "repeats": self.repeats,
            "lesson": lesson.as_dict(),
            "batch": {"knee": knee, "rows": curve.rows()},
            "archs": by_arch,
            "precisions": by_variant,
            "stages": {
                "batch_size": knee,
                "ms_per_image": {stage: round(ms, 4) for stage, ms in medians.items()},
                "share": {stage: round(ms / sum(medians.values()), 4) for stage, ms in medians.items()},
                "spread_ms": {stage: [round(min(t), 4), round(max(t), 4)] for stage, t in stages.items()},
            },
        }

    def _pair(
        self, setup: Setup, batch_size: int, show: Callable[[str], None], what: str, known: Curve
    ) -> dict[str, Any]:
        """One image at a time and a batch of `batch_size`; `known` is the curve of our own setup."""
        if _same(setup, self.setup, known):
            curve = known
        else:
            curve = forward.curve(setup, sorted({1, batch_size}), self.repeats, lambda _: show(what))
        rows = {row["batch_size"]: row for row in curve.rows()}
        one, many = rows.get(1), rows.get(batch_size)
        fits = one is not None and many is not None and not one["error"] and not many["error"]
        return {
            "batch_size": batch_size,
            "ms_one": one and one["ms_per_batch"],
            "ms_batch": many and many["ms_per_batch"],
            "ms_batch_spread": many and many["ms_per_batch_spread"],
            "images_per_s_one": one and one["images_per_s"],
            "images_per_s": many and many["images_per_s"],
            "speed_up": round(many["images_per_s"] / one["images_per_s"], 3) if fits and one and many else None,
            "peak_memory_mib": many and many["peak_memory_mib"],
            "error": None if fits else "out of memory",
        }


def _variants(setup: Setup) -> Iterator[Setup]:
    for device in ("cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))):
        for how in ("eager", "engine"):
            for precision in ("fp32", "bf16"):
                yield replace(setup, device=device, precision=precision, engine=how)


def _same(setup: Setup, known: Setup, curve: Curve) -> bool:
    return replace(setup, precision="auto") == known and setup.precision in ("auto", curve.precision)


# --- output --------------------------------------------------------------------------------------


def _tables(report: dict[str, Any]) -> dict[str, tuple[Sequence[str], list[list[str]]]]:
    """Title -> header and rows."""
    return {
        "batch size": _batch_table(report["batch"]["rows"]),
        "architecture": (("arch", *_PAIR), [[row["arch"], *_pair_cells(row)] for row in report["archs"]]),
        "precision and device": (
            ("how", *_PAIR),
            [[f"{r['how']} {r['precision']}, {r['device']}", *_pair_cells(r)] for r in report["precisions"]],
        ),
        "stages of an image": _stage_table(report["stages"]),
    }


def _batch_table(rows: list[dict[str, Any]]) -> tuple[Sequence[str], list[list[str]]]:
    header = ("batch", "images/s", "ms/batch", "spread", "ms/image", "MiB", "")
    best = max(row["images_per_s"] or 0 for row in rows)
    cells = []
    for row in rows:
        if row["error"]:
            cells.append([str(row["batch_size"]), row["error"], *[output.NO_FIGURE] * 4, ""])
            continue
        bar = "█" * round(BAR * row["images_per_s"] / best) + _mark(row, rows)
        spread = "-".join(number(ms) for ms in row["ms_per_batch_spread"])
        figures = (number(row["images_per_s"]), number(row["ms_per_batch"], 2), spread, number(row["ms_per_image"], 2))
        cells.append([str(row["batch_size"]), *figures, number(row["peak_memory_mib"], 0), bar])
    return header, cells


def _mark(row: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    if not row["knee"]:
        return ""
    return " knee, or beyond" if row is rows[-1] and len(rows) > 1 else " knee"


_PAIR = ("one by one/s", "batched/s", "spread", "batch", "speed-up", "MiB")


def _pair_cells(row: dict[str, Any]) -> list[str]:
    batched = row["error"] or number(row["images_per_s"])
    speed_up = f"{row['speed_up']:.2f}" if row["speed_up"] else output.NO_FIGURE
    return [
        number(row["images_per_s_one"]),
        batched,
        "-".join(number(row["batch_size"] / ms * 1e3) for ms in reversed(row["ms_batch_spread"] or ()))
        or output.NO_FIGURE,
        str(row["batch_size"]),
        speed_up,
        number(row["peak_memory_mib"], 0),
    ]


def _stage_table(stages: dict[str, Any]) -> tuple[Sequence[str], list[list[str]]]:
    cells = [
        [stage, f"{ms:.3f}", "-".join(f"{t:.3f}" for t in stages["spread_ms"][stage]), f"{stages['share'][stage]:.0%}"]
        for stage, ms in stages["ms_per_image"].items()
    ]
    return ("stage", "ms/image", "spread", "share"), cells


def _print(report: dict[str, Any]) -> None:
    lesson = report["lesson"]
    memory = "resident memory of the process" if report["device"] == "cpu" else "memory allocated on the GPU"
    captions = {
        "batch size": f"{report['arch']} {report['precision']} on {report['device']}, {report['num_threads']} threads; "
        f"knee: smallest within 5 % of the best; MiB: {memory}",
        "stages of an image": "decode and resize in one thread, the rest in batches of "
        f"{report['stages']['batch_size']};\n{report['images']}",
    }
    for title, (header, cells) in _tables(report).items():
        output.print_table(header, cells, title=title, caption=captions.get(title, ""))
    output.print_line(
        f"{lesson['images']} images one by one: {lesson['one_by_one_images_per_s']:,.1f}/s; in batches of "
        f"{lesson['batch_size']}: {lesson['batched_images_per_s']:,.1f}/s; speed-up {lesson['speed_up']:.2f}"
    )
    output.print_line(machine.phrase(report))
