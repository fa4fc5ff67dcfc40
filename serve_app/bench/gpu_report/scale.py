"""How much is measured: the full report, or a toy that shows in a minute that every row works."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    forward_sizes: tuple[int, ...]
    max_batch_size: int
    """Of the service, and of what is warmed for it."""
    decode_sizes: tuple[int, ...]
    replicas: tuple[int, ...]
    """In order of importance."""
    concurrencies: tuple[int, ...]
    """Requests in flight in total, ascending."""
    tutorial_concurrency: int
    repeats: int
    measure_s: float
    """Of each figure that is taken without a service."""
    pipeline_s: float
    run_s: float
    """Of each run over HTTP."""
    warm_up_s: float
    """Before it."""
    open_loop_s: float
    """Of the search for the highest rate."""
    max_images: int
    """Of the comparison of answers."""


FULL = Scale(
    forward_sizes=(1, 8, 32, 64, 128, 256),
    max_batch_size=64,
    decode_sizes=(8, 32, 64, 128),
    # Four is what the prototype was best with.
    replicas=(4, 2, 6, 1),
    concurrencies=(64, 128, 256),
    tutorial_concurrency=64,
    repeats=3,
    measure_s=0.2,
    pipeline_s=2.0,
    run_s=2.0,
    warm_up_s=0.6,
    open_loop_s=25.0,
    max_images=256,
)
QUICK = Scale(
    forward_sizes=(1, 2),
    max_batch_size=2,
    decode_sizes=(2,),
    replicas=(1,),
    concurrencies=(1, 2),
    tutorial_concurrency=2,
    repeats=2,
    measure_s=0.0,
    pipeline_s=0.2,
    run_s=0.5,
    warm_up_s=0.1,
    open_loop_s=1.0,
    max_images=4,
)
