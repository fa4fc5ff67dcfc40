import json
from pathlib import Path
from typing import Any

import pytest

from serve_app.bench.autoscale.seen import Seen, seen
from serve_app.bench.serve_api import ServeApi, ServeApiError, users_token
from tests.bench import server
from tests.bench.server import Answer

REPLICAS = [{"replica_id": "kcyz1oua", "state": "RUNNING", "pid": 7}, {"replica_id": "r3tfpe0s", "state": "STARTING"}]
DEPLOYMENT = {"status": "UPSCALING", "message": "", "target_num_replicas": 3, "replicas": REPLICAS}
ANSWER: dict[str, Any] = {
    "applications": {"a": {"status": "RUNNING", "message": "", "deployments": {"Classifier": DEPLOYMENT}}},
    "proxies": {"node": {"status": "HEALTHY"}},
}


def test_state_has_what_ray_says_of_replicas_and_proxies_and_is_asked_for_with_a_token() -> None:
    heads: list[bytes] = []
    with server.running(readiness=Answer(body=json.dumps(ANSWER).encode()), on_head=heads.append) as url:
        state = ServeApi(url, "secret").state()
        ServeApi(url, "").state()
    assert [(each.id, each.pid) for each in state.applications["a"].running] == [("kcyz1oua", 7)]
    assert (state.statuses, state.proxies) == ({"a": "RUNNING"}, {"node": "HEALTHY"})
    assert seen(state, "a") == Seen(3, {"kcyz1oua": "RUNNING", "r3tfpe0s": "STARTING"})
    with pytest.raises(ValueError, match="does not tell of b"):
        seen(state, "b")
    assert heads[0].startswith(b"GET /api/serve/applications/ ")
    tokens = [head.partition(b"Bearer ")[2].partition(b"\r")[0] for head in heads]
    assert tokens == [b"secret", b""]


def test_what_is_no_answer_of_the_api_is_an_error() -> None:
    for body in (b"not JSON", b"[]", b"null", b'{"applications": {}}', b'{"applications": {"a": 1}, "proxies": {}}'):
        with server.running(readiness=Answer(body=body)) as url, pytest.raises(ServeApiError):
            ServeApi(url, "").state()
    with pytest.raises(ServeApiError, match="refused"):
        ServeApi(url, "").state()


def test_the_users_token_is_the_variables_before_the_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "token"
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(path))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    assert users_token() == ""
    path.write_text("from a file\n")
    assert users_token() == "from a file"
    monkeypatch.setenv("RAY_AUTH_TOKEN", "from a variable")
    assert users_token() == "from a variable"
