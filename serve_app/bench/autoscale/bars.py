"""What autoscaling is to hold, whatever the policy: each figure of a trial against its bar."""

from serve_app.bench import bars
from serve_app.bench.autoscale.trial import Trial
from serve_app.bench.bars import Check

DECISION_S = 10.0
"""From a step in the load, beyond what the new replica takes to start."""
REVERSALS = 1


def checks(trial: Trial) -> list[Check]:
    """Of a step the decision too: a spike may be over before it, and of a ramp the first stairs need nobody."""
    reversals = trial.history.reversals(trial.traffic.fall_s)
    found = [Check("reversals", reversals, "<=", REVERSALS), _lost_check(trial)]
    return [_decision_check(trial), *found] if trial.traffic.name == "step" else found


def _decision_check(trial: Trial) -> Check:
    name = "new replica ready, less start-up"
    rise_s, added = trial.traffic.rise_s, trial.first_added
    if added is None:
        # What was not seen took longer than it was waited for: a bar that is missed, not one unknown.
        waited_s = trial.traffic.duration_s - rise_s
        return Check(name, waited_s, "<=", DECISION_S, "s", f"none in {waited_s:g} s")
    note = f"ready after {added.ready_s - rise_s:.1f} s, start-up {added.start_up_s:.1f} s"
    return Check(name, added.seen_s - rise_s, "<=", DECISION_S, "s", note)


def _lost_check(trial: Trial) -> Check:
    stopped = trial.history.num_stopped()
    return bars.lost_check(trial.whole.median, f"{stopped} {'replica' if stopped == 1 else 'replicas'} stopped")
