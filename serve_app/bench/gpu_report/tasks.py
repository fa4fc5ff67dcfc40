"""The rows, in order of importance: what no longer fits into the budget is at the end.

The first to compile is also the one that fills the cache for all others.
"""

from collections.abc import Callable
from functools import partial

from serve_app.bench.gpu_report import ceilings, fidelity, image_path, network, overlap, service, startup, tutorial
from serve_app.bench.gpu_report.known import Known
from serve_app.bench.gpu_report.scale import Scale
from serve_app.bench.gpu_report.task import Task


def tasks(scale: Scale) -> list[Task]:
    first, *others = scale.replicas
    return [
        Task(1, "ceilings of the GPU", _about(12), ceilings.run),
        Task(2, "the network alone, compiled", _about(75), network.row("compiled"), network.BAR),
        _service(scale, first),
        Task(8, "the tutorial's app", partial(tutorial.expected_s, scale=scale), tutorial.run, serves=True),
        Task(5, "decode and resize on the GPU", _about(12), image_path.run),
        Task(6, "fidelity with decode on the GPU", _about(28), fidelity.run, fidelity.GPU_DECODE_BAR),
        Task(5, "decode on the GPU beside the network", _about(18), overlap.row("gpu")),
        Task(2, "the network alone, torch eager", _about(15), network.row("eager")),
        *[_service(scale, replicas) for replicas in others[:-1]],
        Task(2, "the network alone, not compiled", _about(30), network.row("uncompiled")),
        Task(3, f"start-up, {startup.WARM}", _about(25), startup.run_warm),
        *[_service(scale, replicas) for replicas in others[-1:]],
        Task(5, "decode on the CPU beside the network", _about(15), overlap.row("cpu")),
    ]


def _service(scale: Scale, replicas: int) -> Task:
    what = f"served, {service.many(replicas)}"
    return Task(7, what, partial(service.expected_s, scale=scale), service.row(replicas), serves=True)


def _about(seconds: float) -> Callable[[Known], float]:
    return lambda _: seconds
