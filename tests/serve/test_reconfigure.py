"""A new `user_config` on a living service: same replica, no failed request."""

import threading
from copy import deepcopy
from typing import Any

from tests.serve.service import Answer, Service, config, running, statuses


def test_batch_settings_change_live_without_a_restart_or_a_failed_request(
    samples: dict[int, bytes],
) -> None:
    content = config(user_config={"max_batch_size": 2, "top_k": 5})
    with running(content) as service:
        before = service.post(samples[7])[0][1]
        pids = service.replica_pids()
        load = _Load(service, samples[7])
        changed = deepcopy(content)
        new = {"max_batch_size": 20, "batch_wait_timeout_s": 0.01, "latency_slo_ms": 20_000.0, "top_k": 3}
        changed["applications"][0]["deployments"][0]["user_config"] = new
        service.deploy(changed)
        load.until(lambda answers: answers[-1][1]["images"][0]["classes"][3:] == [])
        answers = load.stop()

        assert statuses(answers) == {200: len(answers)}
        assert {body["replica"] for _, body in answers} == {before["replica"]}
        assert service.replica_pids() == pids
        assert len(pids) == 1
        _, model = service.get("/v2/models/digits")
        assert model["batching"] == {**new, "max_queue_size": None, "batch_buckets": None}


def test_a_wrong_user_config_is_refused_and_the_service_goes_on(samples: dict[int, bytes]) -> None:
    content = config(user_config={"max_batch_size": 2})
    with running(content) as service:
        before = service.post(samples[7])[0][1]
        changed = deepcopy(content)
        changed["applications"][0]["deployments"][0]["user_config"] = {"max_batch_sise": 4}
        service.deploy(changed)
        load = _Load(service, samples[7])
        load.until(lambda _: service.get("/v2/models/digits")[1]["refused_user_config"] is not None)
        answers = load.stop()

        assert statuses(answers) == {200: len(answers)}
        assert {body["replica"] for _, body in answers} == {before["replica"]}
        _, model = service.get("/v2/models/digits")
        assert "max_batch_sise" in model["refused_user_config"]
        assert model["batching"]["max_batch_size"] == 2


class _Load:
    """One request after the other, from a thread of its own, until stopped."""

    TIMEOUT_S = 60

    def __init__(self, service: Service, image: bytes) -> None:
        self._service, self._image = service, image
        self._answers: list[Answer] = []
        self._news = threading.Condition()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            answers = self._service.post(self._image)
            with self._news:
                self._answers += answers
                self._news.notify_all()

    def until(self, condition: Any) -> None:
        with self._news:
            assert self._news.wait_for(lambda: self._answers and condition(self._answers), self.TIMEOUT_S)

    def stop(self) -> list[Answer]:
        self._stop.set()
        self._thread.join()
        return self._answers
