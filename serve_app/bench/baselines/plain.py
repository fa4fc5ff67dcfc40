"""Plain `@serve.batch`, as Ray's documents advise it: decode in threads, the device in a thread, no scheduler.

HTTP, decoder and engine are the service's own: what differs is the batching alone.
"""

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import Any

import ray
from pydantic import BaseModel, ConfigDict
from ray import serve
from ray.serve import Application
from starlette.applications import Starlette

from serve_app import http
from serve_app.config import GIL_SWITCH_INTERVAL_S, Args, UserConfig, resolve_num_threads
from serve_app.decode import Decoder, Pixels
from serve_app.engine import Item, Normalised, Prediction, load
from serve_app.protocol.signature import Signature
from serve_app.protocol.statistics import Statistics
from serve_app.scheduler import Priority, Terms
from serve_app.service import Classification


class PlainArgs(BaseModel):
    model_config = ConfigDict(extra="forbid")

    args: Args
    max_batch_size: int
    batch_wait_timeout_s: float


@serve.deployment
@serve.ingress()
class Plain:
    """Implements `Service`."""

    ready = True
    replica = "plain"
    default_top_k = 5

    def __init__(self, plain: PlainArgs) -> None:
        sys.setswitchinterval(GIL_SWITCH_INTERVAL_S)
        num_cpus = ray.get_runtime_context().get_assigned_resources().get("CPU", 1.0)
        num_threads = resolve_num_threads(plain.args.num_threads, num_cpus, int(num_cpus))
        self._device_thread = ThreadPoolExecutor(1, "device")
        checkpoint, self._engine = self._device_thread.submit(load, plain.args, num_threads).result()
        self.args = plain.args
        self.model_name = checkpoint.spec.name
        self.labels = checkpoint.spec.labels
        self.max_top_k = checkpoint.spec.num_classes
        self.signature = Signature(checkpoint.spec.geometry.crop_size, checkpoint.spec.num_classes)
        self.statistics = Statistics()
        self._spec = checkpoint.spec
        self._user_config = UserConfig(
            max_batch_size=plain.max_batch_size, batch_wait_timeout_s=plain.batch_wait_timeout_s
        )
        self._decode = Decoder(checkpoint.spec.geometry, plain.args.max_image_pixels)
        self._decode_threads = ThreadPoolExecutor(num_threads, "decode")
        for size in self._engine.cold_sizes(self._user_config.buckets()):
            self._device_thread.submit(self._engine.warm_up, size).result()
        self.predict.set_max_batch_size(plain.max_batch_size)  # type: ignore[attr-defined]
        self.predict.set_batch_wait_timeout_s(plain.batch_wait_timeout_s)  # type: ignore[attr-defined]

    def __serve_build_asgi_app__(self) -> Starlette:
        return http.build_app(self)

    def metadata(self) -> dict[str, Any]:
        return {
            **self._spec.metadata(),
            "device": self._engine.device,
            "precision": self._engine.precision,
            "batching": self._user_config.model_dump(),
        }

    def authorize(self, authorization: str | None) -> None:
        return

    def terms(self, timeout_s: float | None, priority: Priority) -> Terms:
        return Terms()

    def check_admission(self, terms: Terms) -> None:
        """Everybody comes in."""

    async def classify(self, image: bytes | Pixels | Normalised, terms: Terms) -> Classification:
        started = perf_counter()
        item: Item = image if not isinstance(image, bytes) else await self._decoded(image)
        decode_ms = (perf_counter() - started) * 1e3
        prediction = await self.predict(item)
        self.statistics.succeeded(decode_ms, 0.0, prediction.device_ms)
        return Classification(prediction, decode_ms, queue_ms=0.0)

    async def _decoded(self, data: bytes) -> Pixels:
        return await asyncio.get_running_loop().run_in_executor(self._decode_threads, self._decode, data)

    @serve.batch
    async def predict(self, images: list[Item]) -> list[Prediction]:
        predictions = await asyncio.get_running_loop().run_in_executor(
            self._device_thread, lambda: self._engine.infer(images)
        )
        self.statistics.executed(len(images), predictions[0].device_ms)
        return predictions


def build_app(args: PlainArgs) -> Application:
    application: Application = Plain.bind(args)  # type: ignore[attr-defined]
    return application
