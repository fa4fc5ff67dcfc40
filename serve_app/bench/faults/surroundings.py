"""What is around all processes of a cluster, and changes for a while: the disk under its logs, the clock."""

import time

from serve_app.bench.faults import clock, disk
from serve_app.bench.faults.event import Done, Stage
from serve_app.bench.faults.updates import MODEL

HOUR_S = 3600


def full_disk(stage: Stage) -> Done:
    """Not a byte more can be written to any log, until there is room again."""
    began = time.monotonic()
    folder = stage.cluster.folder
    filling = disk.fill(folder)
    return Done(began, lambda _: True, mend=filling.unlink, was_in_force=lambda: disk.is_full(folder))


def clock_step(stage: Stage) -> Done:
    """An hour forward at once, and later an hour back."""
    began, folder = time.monotonic(), stage.cluster.folder
    clock.put(folder, HOUR_S)
    answers = f"{stage.cluster.url}{MODEL}"  # by a replica; HAProxy gives no time of its own
    return Done(
        began,
        lambda _: True,
        mend=lambda: clock.put(folder, 0),
        was_in_force=lambda: clock.ahead_s(answers) > HOUR_S / 2,
    )
