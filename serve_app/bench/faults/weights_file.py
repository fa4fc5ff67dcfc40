"""The weights file of running replicas: replaced or gone when the next one starts, and later as it was."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from serve_app.bench.faults import kills, updates
from serve_app.bench.faults.event import Done, Stage
from serve_app.bench.faults.layout import WEIGHTS

GARBAGE = b"not weights " * 1000


def put(folder: Path) -> None:
    """The bundled checkpoint, in a file of its own in `folder`; at once, as a file is to be replaced."""
    new = folder / f"{WEIGHTS}.new"
    shutil.copyfile(updates.BUNDLED, new)
    new.replace(folder / WEIGHTS)


def _remove(folder: Path) -> None:
    (folder / WEIGHTS).unlink()


def _replace_by_others(folder: Path) -> None:
    updates.other_weights(folder).replace(folder / WEIGHTS)


def _overwrite(folder: Path) -> None:
    """In place, as no file should be replaced."""
    (folder / WEIGHTS).write_bytes(GARBAGE)


def _changed(change: Callable[[Path], None], stage: Stage) -> Done:
    """And then a replica dies. Who lives goes on with what it has loaded; nobody answers with anything else."""
    folder, before = stage.cluster.folder, _sha256s(stage)
    change(folder)
    return replace(kills.replica(stage), mend=lambda: put(folder), wrong_weights=lambda: _sha256s(stage) - before)


gone = partial(_changed, _remove)
others = partial(_changed, _replace_by_others)
garbage = partial(_changed, _overwrite)


def _sha256s(stage: Stage) -> set[str]:
    """Of the weights that answer. Raises OSError."""
    return {one["weights_sha256"] for one in updates.metadata(stage)}
