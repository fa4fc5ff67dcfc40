"""A new `user_config` on a living service: same replica, no failed request."""

import os
import re
import subprocess
import threading
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from tests.serve.service import BIN, Answer, Service, config, running, statuses


def test_batch_settings_change_live_without_a_restart_or_a_failed_request(
    tmp_path: Path, samples: dict[int, bytes]
) -> None:
    content = config(user_config={"max_batch_size": 2, "top_k": 5})
    with running(content) as service:
        before = service.post(samples[7])[0][1]
        load = _Load(service, samples[7])
        changed = deepcopy(content)
        changed["applications"][0]["deployments"][0]["user_config"] = {"max_batch_size": 20, "top_k": 3}
        _deploy(service, changed, tmp_path)
        load.until(lambda answers: answers[-1][1]["images"][0]["classes"][3:] == [])
        answers = load.stop()

        assert statuses(answers) == {200: len(answers)}
        assert {body["replica"] for _, body in answers} == {before["replica"]}
        _, model = service.get("/v2/models/digits")
        defaults = {"batch_wait_timeout_s": 0.0, "batch_buckets": None}
        assert model["batching"] == {"max_batch_size": 20, "top_k": 3, **defaults}


def test_a_wrong_user_config_is_refused_and_the_service_goes_on(tmp_path: Path, samples: dict[int, bytes]) -> None:
    content = config(user_config={"max_batch_size": 2})
    with running(content) as service:
        before = service.post(samples[7])[0][1]
        changed = deepcopy(content)
        changed["applications"][0]["deployments"][0]["user_config"] = {"max_batch_sise": 4}
        _deploy(service, changed, tmp_path)
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


def _deploy(service: Service, content: dict[str, Any], folder: Path) -> None:
    path = folder / "changed.yaml"
    path.write_text(yaml.safe_dump(content))
    address = re.search(r"serve deploy -a (\S+)", service.output)
    assert address is not None
    subprocess.run(
        [BIN / "serve", "deploy", "-a", address[1], path],
        env={**os.environ, "RAY_AUTH_MODE": "token"},
        check=True,
        capture_output=True,
        timeout=60,
    )
