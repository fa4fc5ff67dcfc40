"""A device that fails from one moment on, for ever: that of one replica, until another takes its place."""

import time
from functools import partial

from serve_app.bench.faults.breakage import Breakage, breakage_of, mark_of, put
from serve_app.bench.faults.event import Done, Stage
from serve_app.bench.faults.victims import a_replica, ids, on_replicas


def _broken(breakage: Breakage, stage: Stage) -> Done:
    """The replica goes, and what comes in its place is well."""
    victim, pid = a_replica(stage)
    began, in_flight = time.monotonic(), on_replicas(stage, [victim])
    put(breakage_of(stage.cluster.folder, pid), breakage)
    return Done(began, lambda state: victim.id not in ids(stage, state), in_flight)


raises = partial(_broken, Breakage.RAISE)
hangs = partial(_broken, Breakage.HANG)
says_nan = partial(_broken, Breakage.NAN)


def out_of_memory(stage: Stage) -> Done:
    """For large batches only: smaller ones do, and nobody has to go."""
    victim, pid = a_replica(stage)
    breakage = breakage_of(stage.cluster.folder, pid)
    failed = mark_of(breakage)
    began = time.monotonic()
    put(breakage, Breakage.MEMORY)
    return Done(began, lambda state: victim.id in ids(stage, state), mend=breakage.unlink, was_in_force=failed.exists)
