"""The policy on what a live service's replicas reported: five times the load after 20 s, and back after 90 s.

Recorded once a second, with an earlier version of the policy in charge, from deploy/stub-autoscale.yaml's kind of
replicas (100 ms + 10 ms an image, an objective of 800 ms) on two cores: learned times, chance and starts included.
"""

import json
from pathlib import Path
from typing import Any

from serve_app.autoscaling import BatchingAware
from tests.autoscaling.plant import LOOK_BACK_S, Controller, config, turns

STEP_S = 20.0


def means(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Of each replica that runs at the end of these rows, over those in which it has spoken."""
    # The event loop's share was not told then; it was no matter.
    quiet = {"loop": dict.fromkeys(rows[-1]["loads"]["demand"], 0.0)}
    return quiet | {
        name: {
            replica: sum(values) / len(values)
            for replica in latest
            if (values := [row["loads"][name][replica] for row in rows if replica in row["loads"].get(name, {})])
        }
        for name, latest in rows[-1]["loads"].items()
    }


def test_a_recorded_step_is_answered_in_seconds_by_what_it_took_and_undone_once_it_is_over() -> None:
    rows = json.loads(Path(__file__).with_name("recorded_step.json").read_text())
    controller = Controller(BatchingAware(), config(), target=1)
    wanted = [
        controller.decide(row["at_s"], row["running"], means(rows[max(0, i + 1 - LOOK_BACK_S) : i + 1]), 1.0)
        for i, row in enumerate(rows)
    ]
    at = {
        target: next(row["at_s"] for row, one in zip(rows, wanted, strict=True) if one >= target) for target in (2, 4)
    }
    assert STEP_S < at[2] <= STEP_S + 3
    assert at[4] <= STEP_S + 6
    # Three replicas that start on two cores make the one that runs slower: one more than the load alone would need.
    assert max(wanted) <= 5
    assert turns(wanted) == 1
    assert wanted[-1] == 1
