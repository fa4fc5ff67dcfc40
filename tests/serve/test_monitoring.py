"""deploy/monitoring on a real Ray Serve instance: its queries return data, its alerts fire."""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import suppress

import aiohttp
import grpc
import pytest

from serve_app.config_file import POLICY
from serve_app.grpc import SERVICE
from tests.serve.images import image_of_class
from tests.serve.prometheus import MONITORING, Prometheus, scraping
from tests.serve.service import Sent, Service, config, running

HANG = 4
# There is no GPU: tests/deploy tries these on made-up series.
OF_A_GPU = {"GPU utilisation", "GPU memory"}
PANELS = [panel for panel in json.loads((MONITORING / "dashboard.json").read_text())["panels"] if "targets" in panel]
QUERIES = [
    pytest.param(target["expr"], id=f"{panel['title']} {target['refId']}")
    for panel in PANELS
    for target in panel["targets"]
    if panel["title"] not in OF_A_GPU
]
VARIABLES = {"$__rate_interval": "30s", "$application": ".*", "$deployment": ".*"}
METRICS = sorted(set(re.findall(r"\bray_\w+", (MONITORING / "alerts.yml").read_text())))
OF_A_GPU_TOO = {"ray_node_gram_used", "ray_node_gram_available"}


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    content = config(
        {"device": "stub", "stub": {"base_ms": 50, "per_image_ms": 2, "hang_on_class": HANG}},
        health_check_period_s=1,
        num_replicas="auto",  # never but one, of which an autoscaler is told
        autoscaling_config={"max_replicas": 1, "policy": {"policy_function": POLICY}},
        user_config={"max_batch_size": 8, "latency_slo_ms": 300},
    )
    with running(content, grpc=True) as running_service:
        yield running_service


@pytest.fixture(scope="module")
def prometheus(service: Service) -> Iterator[Prometheus]:
    with scraping(service) as running_prometheus:
        yield running_prometheus


@pytest.fixture(scope="module")
def traffic(service: Service) -> Iterator[None]:
    """More than it can take in time: of each burst some are refused, and some bring time of their own and take it."""
    patient, other = Sent(image_of_class(1), {"X-Request-Timeout-Seconds": "5"}), Sent(image_of_class(1))
    ended = threading.Event()

    def send() -> None:
        with grpc.insecure_channel(service.grpc_address) as channel:
            ready: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/{SERVICE}/ServerReady")
            while not ended.wait(0.3):
                with suppress(aiohttp.ClientError, grpc.RpcError):  # while its only replica is being replaced
                    ready(b"", timeout=5)
                    service.send(*[patient] * 40, *[other] * 60)

    thread = threading.Thread(target=send)
    thread.start()
    yield
    ended.set()
    thread.join()


@pytest.mark.parametrize("expression", QUERIES)
@pytest.mark.usefixtures("traffic")
def test_every_query_of_the_dashboard_returns_data(prometheus: Prometheus, expression: str) -> None:
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    assert "$" not in expression
    prometheus.wait_for(expression)


@pytest.mark.parametrize("alert", ["ServeAppRefusing", "ServeAppP99OverObjective"])
@pytest.mark.usefixtures("traffic")
def test_overload_raises_its_alerts(prometheus: Prometheus, alert: str) -> None:
    prometheus.wait_for(f'ALERTS{{alertname="{alert}", alertstate="firing"}}')


@pytest.fixture(scope="module")
def hung(service: Service) -> None:
    """The device of the only replica has hung."""
    [answer] = service.send(Sent(image_of_class(HANG), {"X-Request-Timeout-Seconds": "25"}))
    assert answer.code == "device_stalled"


@pytest.mark.parametrize(
    "alert", ["ServeAppDeviceStalled", "ServeAppReplicaFailed", "ServeAppNoReplica", "ServeAppReplicasMissing"]
)
@pytest.mark.usefixtures("traffic", "hung")
def test_a_device_that_hangs_raises_its_alerts(prometheus: Prometheus, alert: str) -> None:
    prometheus.wait_for(f'last_over_time(ALERTS{{alertname="{alert}", alertstate="firing"}}[5m])')


@pytest.mark.parametrize("alert", ["ServeAppNoReplica", "ServeAppReplicasMissing"])
@pytest.mark.usefixtures("traffic", "hung")
def test_once_the_replica_is_replaced_they_end(prometheus: Prometheus, alert: str) -> None:
    prometheus.wait_for(f'ALERTS{{alertname="{alert}"}}', present=False)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.usefixtures("traffic", "hung")
def test_every_metric_of_the_alerts_is_there(prometheus: Prometheus, metric: str) -> None:
    if metric in OF_A_GPU_TOO:
        assert not prometheus.query(metric)
    else:
        prometheus.wait_for(f"count(last_over_time({metric}[10m]))")
