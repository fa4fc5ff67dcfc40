"""The scheduler: admitted images -> batches, formed when the device is free, earliest deadline first.

scheduler.py   from the door to the answer
admission.py   who comes in: by the queue and t(n), will it be in time?
queue.py       places in order of deadline, in two priorities
device.py      one batch: its time is learnt, a hang is noticed
times.py       learned t(n): how long a batch of n takes
isolation.py   a batch that fails is split until only its culprits fail
delivery.py    results to their callers, once the device has other work
load.py        what comes in, in device time: for the autoscaler
policy.py      what may be changed while it runs
alarm.py       one timer, for the next release
observer.py    what happened, for whoever counts it

Pure asyncio: no Ray, no threads, no device. All methods run on one event loop, by its clock.
"""

from serve_app.scheduler.delivery import Scheduled
from serve_app.scheduler.load import Load
from serve_app.scheduler.observer import Observer
from serve_app.scheduler.policy import Policy
from serve_app.scheduler.queue import Place, Priority, Terms
from serve_app.scheduler.scheduler import Scheduler

__all__ = ["Load", "Observer", "Place", "Policy", "Priority", "Scheduled", "Scheduler", "Terms"]
