"""A layout made ready for an event: its nodes up, its replicas running, whatever the event before left."""

import time

from serve_app.bench.faults import weights_file
from serve_app.bench.faults.cluster import Cluster
from serve_app.bench.faults.event import Stage, is_whole
from serve_app.bench.faults.layout import APPLICATION, WITH_GPU, Layout, with_deployment
from serve_app.bench.serve_api import ServeApiError, State

TIMEOUT_S = 300.0
POLL_S = 0.5
FAILED = "DEPLOY_FAILED"


class NotWhole(RuntimeError):
    """The service does not become what it is to be; the message has Ray's reason."""


def set_up(cluster: Cluster, layout: Layout) -> Stage:
    """As many nodes and replicas as the layout says, and all of them well. Raises NotWhole and ClusterError."""
    cluster.replace_lost(WITH_GPU)
    if layout.breakable:
        weights_file.put(cluster.folder)
    deployed = cluster.deployed or layout.content(cluster.http_port, cluster.folder)
    cluster.deploy(with_deployment(deployed, num_replicas=layout.replicas))
    return Stage(cluster, wait_until_whole(cluster, layout.replicas).applications[APPLICATION])


def wait_until_whole(cluster: Cluster, replicas: int) -> State:
    """Ray's state then. Raises NotWhole."""
    deadline, problem = time.monotonic() + TIMEOUT_S, ""
    while time.monotonic() < deadline:
        try:
            state = cluster.serve.state()
        except ServeApiError as error:
            problem = str(error)
        else:
            problem = f"{state.statuses[APPLICATION]}; {state.messages[APPLICATION]}; proxies: {state.proxies}"
            if is_whole(state, replicas):
                return state
            if FAILED in state.statuses.values():
                break
        time.sleep(POLL_S)
    raise NotWhole(f"not {replicas} replicas within {TIMEOUT_S:g} s: {problem}")
