"""A thread that watches the replicas of a service while traffic is sent to it."""

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from http.client import HTTPException

from serve_app.bench.autoscale.history import RUNNING, History, Look
from serve_app.bench.autoscale.seen import Seen
from serve_app.bench.serve_api import ServeApiError

PERIOD_S = 0.25
PROBE_TIMEOUT_S = 1.0
JOIN_TIMEOUT_S = 10.0


class Unseen(RuntimeError):
    """Nobody told anything about the replicas; the message says what went wrong instead."""


class Watch:
    """What the replicas are, a few times a second, and when each of them answered first. A context manager.

    A replica that Ray calls RUNNING has no traffic yet: HAProxy is told of it, and finds it healthy, a second
    later (measured: 1.2 s). So while there is one that never answered, requests are sent until it does.
    """

    def __init__(self, look: Callable[[], Seen], answering: Callable[[], str | None]) -> None:
        """`look` may raise ServeApiError and ValueError; `answering` sends a request: who answered, if any?"""
        self._look = look
        self._answering = answering
        self._looks: list[tuple[float, Seen]] = []
        self._answered: dict[str, float] = {}
        self._problem = "there was no time to look"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(JOIN_TIMEOUT_S)

    def history(self, start: float) -> History:
        """Until now, from `start`, which is of `time.monotonic()`. Raises Unseen."""
        if not self._looks:
            raise Unseen(f"nothing was seen of the replicas: {self._problem}")
        looks = [Look(at - start, seen) for at, seen in tuple(self._looks)]
        return History(looks, {replica: at - start for replica, at in dict(self._answered).items()})

    def _watch(self) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                seen = self._look()
            except (ServeApiError, ValueError) as error:  # a controller that is busy: the next look sees more
                self._problem = str(error)
            else:
                self._looks.append((began, seen))
                self._probe(seen.states)
            self._stop.wait(max(0.0, began + PERIOD_S - time.monotonic()))

    def _probe(self, states: Mapping[str, str]) -> None:
        if any(state == RUNNING and replica not in self._answered for replica, state in states.items()):
            replica = self._answering()
            if replica is not None:
                self._answered.setdefault(replica, time.monotonic())


def answering(url: str, image: bytes) -> str | None:
    """Which replica classifies the image that is posted to `url`; None if none does in PROBE_TIMEOUT_S."""
    request = urllib.request.Request(url, data=image, method="POST")  # noqa: S310 - the service started it
    try:
        with urllib.request.urlopen(request, timeout=PROBE_TIMEOUT_S) as response:  # noqa: S310
            return str(json.load(response)["replica"])
    except (OSError, ValueError, HTTPException, LookupError):  # refused, say
        return None
