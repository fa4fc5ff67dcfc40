"""Slot-first batching against plain `@serve.batch`, open loop, in one run: `make bench`.

A stub device of 8 ms + 0.04 ms per image stands for a GPU; everything else is real: HAProxy, HTTP,
decode, Ray Serve's replica and its `@serve.batch`.
"""

import json
from collections.abc import Callable
from io import BytesIO
from typing import Any

import click
import numpy as np
from PIL import Image
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Column, Table

from tests.load import open_loop
from tests.serve.service import REPOSITORY, config, running

MAX_BATCH_SIZE = 64
DEVICE = {"weights": "bundled", "device": "stub", "stub": {"base_ms": 8, "per_image_ms": 0.04}}
# Both sides may queue all they like: the figure of interest is what the queue does.
QUEUE = {"max_ongoing_requests": 8192, "max_queued_requests": 8192}
IMAGE_SIDE = 32  # of the network's own size, so that decode is not what is measured


def image_file() -> bytes:
    """A PNG of random grey pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (IMAGE_SIDE, IMAGE_SIDE), dtype=np.uint8)
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def slot_first() -> dict[str, Any]:
    return config(DEVICE, **QUEUE, user_config={"max_batch_size": MAX_BATCH_SIZE})


def plain(batch_wait_timeout_s: float) -> dict[str, Any]:
    content = config()
    application = content["applications"][0]
    application["import_path"] = "tests.load.plain:build_app"
    application["args"] = {
        "args": DEVICE,
        "max_batch_size": MAX_BATCH_SIZE,
        "batch_wait_timeout_s": batch_wait_timeout_s,
    }
    application["deployments"] = [
        {"name": "Plain", **QUEUE, "graceful_shutdown_timeout_s": 1, "ray_actor_options": {"num_cpus": 1}}
    ]
    return content


CANDIDATES: dict[str, Callable[[], dict[str, Any]]] = {
    "slot-first": slot_first,
    "plain, wait 0": lambda: plain(0),
    "plain, wait 2 ms": lambda: plain(0.002),
}


@click.command()
@click.option("--rate", default=500.0, show_default=True, help="Requests per second, Poisson.")
@click.option("--duration-s", default=10.0, show_default=True)
@click.option("--warm-up-s", default=3.0, show_default=True, help="At a tenth of the rate, not counted.")
@click.option("--seed", default=1, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(rate: float, duration_s: float, warm_up_s: float, seed: int, as_json: bool) -> None:
    """Offer the same arrivals to each kind of batching, one after the other."""
    console = Console(stderr=True)
    rows = {}
    for name, content in CANDIDATES.items():
        with console.status(f"{name}: starting"), running(content(), PYTHONPATH=str(REPOSITORY)) as service:
            url, image = f"{service.url}/v1/classify?top_k=1", image_file()
            open_loop.run(url, image, rate / 10, warm_up_s, seed)
            console.print(f"{name}: {rate:g} requests/s for {duration_s:g} s")
            rows[name] = open_loop.run(url, image, rate, duration_s, seed)
    if as_json:
        print(json.dumps({name: report.as_dict() for name, report in rows.items()}, indent=2))
    else:
        Console().print(_table(rows))


def _table(rows: dict[str, open_loop.Report]) -> Table:
    columns = ("batching", "answered/s", "p50 ms", "p99 ms", "batch", "failed", "lag ms")
    table = Table(*(Column(name, no_wrap=True) for name in columns), box=SIMPLE)
    for name, report in rows.items():
        figures = report.as_dict()
        keys = ("answered_per_s", "p50_ms", "p99_ms", "mean_batch")
        failed = str(sum(report.failures.values()))
        table.add_row(name, *(str(figures[key]) for key in keys), failed, str(figures["generator_lag_p99_ms"]))
    table.caption = (
        "plain: @serve.batch alone; batch: mean images in one;\nlag: how late the generator sent, 99th percentile"
    )
    return table


if __name__ == "__main__":
    main()
