"""Replicas that come and go with real traffic, by our policy in Ray's controller."""

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest
import yaml

from serve_app.cli import ports
from tests.serve.service import REPOSITORY, Service, post, running

TIMEOUT_S = 180
CLIENTS = 24


def config() -> dict[str, Any]:
    """deploy/autoscale.yaml, on a device that only takes its time, down to no replica at all, and less patient."""
    content: dict[str, Any] = yaml.safe_load((REPOSITORY / "deploy/autoscale.yaml").read_text())
    content |= {"proxy_location": "HeadOnly", "http_options": {"port": ports.free(), "request_timeout_s": TIMEOUT_S}}
    application = content["applications"][0]
    application["args"] = {"weights": "bundled", "device": "stub", "stub": {"base_ms": 100, "per_image_ms": 10}}
    deployment = application["deployments"][0]
    deployment["ray_actor_options"] = {"num_cpus": 0.5}
    deployment["graceful_shutdown_timeout_s"] = TIMEOUT_S
    deployment["user_config"] = {"max_batch_size": 8}
    deployment["autoscaling_config"] |= {"min_replicas": 0, "initial_replicas": 1, "max_replicas": 2}
    deployment["autoscaling_config"]["policy"]["policy_kwargs"]["calm_s"] = 8
    return content


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with running(config(), RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S="5") as service:
        yield service


async def replicas_become(service: Service, count: int) -> None:
    """As many run, and none is still to go."""
    deadline = time.monotonic() + TIMEOUT_S
    while (found := await asyncio.to_thread(service.replica_states)) != ["RUNNING"] * count:
        assert time.monotonic() < deadline, f"{found}, not {count} running"
        await asyncio.sleep(0.5)


async def under_traffic(service: Service, image: bytes, clients: int, replicas: int) -> list[int]:
    """The statuses of all that `clients`, one request each at a time, were told until so many replicas ran."""
    over = asyncio.Event()

    async def client(session: aiohttp.ClientSession) -> list[int]:
        statuses = []
        while not over.is_set():
            statuses.append((await post(session, service.url + "/v1/classify", image))[0])
        return statuses

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        tasks = [asyncio.create_task(client(session)) for _ in range(clients)]
        try:
            await replicas_become(service, replicas)
        finally:
            over.set()
            found = await asyncio.gather(*tasks)
        return [status for statuses in found for status in statuses]


def test_replicas_follow_the_traffic_up_and_down_to_none_and_nothing_fails(
    service: Service, samples: dict[int, bytes]
) -> None:
    """24 clients, one request each at a time, keep one device always full; one client is a third of what one bears."""
    up = asyncio.run(under_traffic(service, samples[7], CLIENTS, replicas=2))
    assert set(up) == {200}
    down = asyncio.run(under_traffic(service, samples[7], 1, replicas=1))
    assert set(down) == {200}
    asyncio.run(replicas_become(service, 0))
    [(status, body)] = service.post(samples[7])  # waits for a replica to start
    assert status == 200
    assert body["images"][0]["classes"][0]["class_id"] is not None
    assert service.replica_states() == ["RUNNING"]
