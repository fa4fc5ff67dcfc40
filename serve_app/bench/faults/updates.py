"""Changes that somebody deploys on purpose: nobody who sends requests is to notice."""

import json
import time
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from serve_app.bench.faults.event import Done, Recovered, Stage
from serve_app.bench.faults.layout import with_args, with_deployment, with_variable
from serve_app.bench.serve_api import State

BUNDLED = Path(__file__).parents[2] / "bundled" / "digits.safetensors"
MODEL = "/v2/models/digits"
TIMEOUT_S = 10.0
READS = 4
"""Of the model's metadata, from whichever replica answers."""


def weights(stage: Stage) -> Done:
    """Another file: `args` change, every replica is replaced."""
    path = other_weights(stage.cluster.folder)
    return _deployed(stage, with_args(stage.content, weights=str(path)), _replaced(stage))


def code_version(stage: Stage) -> Done:
    """Another environment, as new code needs: every replica is replaced."""
    return _deployed(stage, with_variable(stage.content, "CODE_VERSION", str(time.time())), _replaced(stage))


def user_config(stage: Stage) -> Done:
    """New batch settings: every process stays."""
    new = {"max_batch_size": 12, "top_k": 3}
    pids = {replica.pid for replica in stage.before.running}

    def recovered(state: State) -> bool:
        same = {replica.pid for replica in stage.deployment(state).running} == pids
        return same and all(one["batching"]["max_batch_size"] == new["max_batch_size"] for one in metadata(stage))

    return _deployed(stage, with_deployment(stage.content, user_config=new), recovered)


def scale_down(stage: Stage) -> Done:
    """One replica fewer."""
    fewer = len(stage.before.running) - 1
    changed = with_deployment(stage.content, num_replicas=fewer)
    return _deployed(stage, changed, lambda state: len(stage.deployment(state).running) == fewer)


def metadata(stage: Stage) -> list[dict[str, Any]]:
    """Of the model, as often as READS says. Raises OSError, whatever is wrong with an answer."""
    return [_metadata(stage.cluster.url) for _ in range(READS)]


def other_weights(folder: Path) -> Path:
    """The bundled checkpoint, a little off, in a file of its own in `folder`."""
    path = folder / "other.safetensors"
    with safe_open(BUNDLED, framework="np") as file:
        tensors = {key: np.array(file.get_tensor(key)) for key in file.keys()}  # noqa: SIM118 - not a mapping
        metadata = file.metadata()
    tensors["fc.bias"] += np.float32(0.5)
    save_file(tensors, path, metadata)
    return path


def _deployed(stage: Stage, content: dict[str, Any], recovered: Recovered) -> Done:
    began = time.monotonic()
    stage.cluster.deploy(content)
    return Done(began, recovered)


def _replaced(stage: Stage) -> Recovered:
    old = {replica.id for replica in stage.before.replicas}
    return lambda state: not old & {replica.id for replica in stage.deployment(state).replicas}


def _metadata(url: str) -> dict[str, Any]:
    try:
        with urllib.request.urlopen(f"{url}{MODEL}", timeout=TIMEOUT_S) as response:  # noqa: S310
            found: dict[str, Any] = json.load(response)
    except (ValueError, HTTPException) as error:
        raise OSError(f"{url} answers with no metadata: {error!r}") from None
    return found
