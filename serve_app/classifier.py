"""The deployment: one replica owns HTTP, gRPC, decode, batching and the device.

A hop to a second deployment would cost 0.8 ms of CPU per request, three to five times what HTTP
costs, and was no faster on an H200 (3,810 against 4,380 requests/s).
"""

import asyncio
import logging
import math
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any, TypeVar

import ray
from ray import serve
from ray.serve.context import _get_global_client as get_global_client
from starlette.applications import Starlette

from serve_app import confined, http, tracing
from serve_app.config import (
    GIL_SWITCH_INTERVAL_S,
    Args,
    ConfigError,
    UserConfig,
    max_ongoing_requests,
    max_queued_requests,
    parse_user_config,
    resolve_num_threads,
)
from serve_app.confined import ConfinedDecoder
from serve_app.decode import Pixels
from serve_app.door import Door
from serve_app.engine import Item, Normalised, NotANumber, Outcome, Prediction, load
from serve_app.engine.memory import is_out_of_memory
from serve_app.errors import RequestError
from serve_app.grpc.address import confine
from serve_app.grpc.servicer import InferenceServicer
from serve_app.jpeg import parse
from serve_app.metrics import Metrics
from serve_app.protocol.signature import Signature
from serve_app.protocol.statistics import Statistics
from serve_app.scheduler import Policy, Priority, Scheduler, Terms
from serve_app.service import Classification
from serve_app.tokens import VARIABLE, Keyring

logger = logging.getLogger("ray.serve")
T = TypeVar("T")
DEFAULTS = UserConfig()
STALLED = "The device does not come back from a batch"
BROKEN = "The device fails on every batch, and on a blank image too"
BROKEN_END_AFTER_S = 0.2
"""Shorter than below: until then whatever comes here fails."""
MAX_GPU_PIXELS = 16_000_000
"""Larger images are decoded in threads, before their batch: 64 of 50 MP would keep the device for half a minute."""
END_AFTER_S = 1.0
"""For the answers of those whom a hanging device would have kept waiting to be sent."""


@serve.deployment(
    user_config=DEFAULTS.model_dump(),
    max_ongoing_requests=max_ongoing_requests(DEFAULTS.max_batch_size),
    max_queued_requests=max_queued_requests(DEFAULTS.max_batch_size),
)
@serve.ingress()
class Classifier(InferenceServicer):
    """Classifies images. Implements `Service`."""

    def __init__(self, args: Args) -> None:
        confine()  # Ray opens the replica's ports after this
        sys.setswitchinterval(GIL_SWITCH_INTERVAL_S)
        drop_what_cannot_be_logged()
        num_threads = _num_threads(args)
        num_gpus = ray.get_runtime_context().get_assigned_resources().get("GPU", 1.0)
        self._drivers = [ThreadPoolExecutor(1, "device")]
        self._busy_drivers: set[ThreadPoolExecutor] = set()
        checkpoint, self._engine = self._drivers[0].submit(load, args, num_threads, num_gpus).result()
        self._drivers += [ThreadPoolExecutor(1, "device") for _ in range(1, self._engine.num_drivers)]
        self._collecting_thread = ThreadPoolExecutor(1, "collect")  # waits for the device, and does nothing else
        self.args = args
        self.ready = False
        self.replica = serve.get_replica_context().replica_id.unique_id
        self._spec = checkpoint.spec
        self._user_config = DEFAULTS
        self._refused: str | None = None
        tokens_file = Path(args.tokens_file) if args.tokens_file else None
        self._keyring = Keyring(tokens_file, os.environ.get(VARIABLE))
        self._decode = confined.decoder(args, checkpoint.spec.geometry, num_threads)
        self._decode_threads = ThreadPoolExecutor(num_threads, "decode")
        self._num_threads = num_threads
        self._metrics = Metrics()
        self.signature = Signature(checkpoint.spec.geometry.crop_size, checkpoint.spec.num_classes)
        self.statistics = Statistics()
        self._scheduler: Scheduler[Item, Prediction] = Scheduler(
            self._execute,
            _policy(DEFAULTS),
            self._metrics,
            num_threads,
            self._end_soon,
            monotonic,
            self._engine.max_in_flight,
            self._examine_soon,
        )
        self._examination: asyncio.Task[None] | None = None
        self._request_timeout_s = _request_timeout_s()
        self._decode_slots = asyncio.Semaphore(num_threads)
        self._hand_over = asyncio.Lock()
        self._taken: asyncio.Future[None]
        logger.info(
            "Model %s: %s with weights %s (sha256 %s), %s on %s, %d CPU threads",
            *(self.model_name, self._spec.arch, self._spec.weights, self._spec.sha256[:12]),
            *(self._engine.precision, self._engine.device, num_threads),
        )

    def __serve_build_asgi_app__(self) -> Starlette:
        return http.build_app(self)

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Take new batch settings without a restart. Ray calls it before the replica is ready, on
        every change of `user_config`, and again with the same value when a replica's rank changes.

        Raises ConfigError at start. Later a wrong config is refused in the log and the metadata, and
        the old one stays in force: an exception would make Ray replace every replica by one that
        cannot start, and a typo would end the service.
        """
        try:
            config = parse_user_config(user_config)
            _check_fits_ray(config)
        except ConfigError as error:
            if not self.ready:
                raise
            self._refuse(str(error))
            return
        # Warm first, then switch: no request ever rides in a batch of a size that has not run. One
        # size at a time, so that live batches run in between; the largest first, for CUDA graphs share
        # their memory, and a smaller one fits into what a larger one has.
        warm_up_s = {}
        for size in reversed(self._engine.cold_sizes(config.buckets())):
            try:
                warm_up_s[size] = await self._warm_up(size)
            except Exception:
                if not self.ready:
                    raise
                logger.exception("A batch of %d does not run here", size)
                self._refuse(f"a batch of {size} does not run here; the log says why")
                return
        self._refused = None
        self._user_config = config
        self.predict.set_max_batch_size(config.max_batch_size)  # type: ignore[attr-defined] # @serve.batch adds it
        self._engine.use(config.buckets())
        self._scheduler.configure(_policy(config), config.buckets(), warm_up_s)
        self._warn_if_out_of_reach(config)
        Door.judge = http.judge(self)
        self.ready = True

    def _warn_if_out_of_reach(self, config: UserConfig) -> None:
        alone_ms = 1e3 * self._scheduler.times.predict(1, monotonic())
        if config.latency_slo_ms is not None and alone_ms > config.latency_slo_ms:
            logger.warning(
                "latency_slo_ms (%g) is below the %.1f ms that one image takes on this device: all will be refused",
                *(config.latency_slo_ms, alone_ms),
            )

    def _refuse(self, reason: str) -> None:
        self._refused = reason
        logger.error("The new user_config is refused, the old one stays in force: %s", reason)

    async def _warm_up(self, size: int) -> float:
        """Between two live batches. The seconds that a batch of `size` takes."""
        return await self._scheduler.alone(lambda: self._on_device(self._engine.warm_up, size))

    async def check_health(self) -> None:
        """Ray calls it every `health_check_period_s`; what it raises is why Ray replaces the replica."""
        times = self._scheduler.times
        self._metrics.expect(
            {bucket: times.predict(bucket, monotonic()) for bucket in times.buckets}, self._user_config.latency_slo_ms
        )
        if self._scheduler.stalled:
            raise RuntimeError(STALLED)
        if isinstance(self._decode, ConfinedDecoder):
            self._decode.check()
        if self._scheduler.isolation.is_failing:
            # All that has run lately failed: are the images at fault, or the device?
            await self._warm_up(self._user_config.buckets()[0])

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """What `serve_app.autoscaling` decides by: with an autoscaler, Ray asks about once a second."""
        load = self._scheduler.load()
        self._metrics.loaded(load)
        return load.as_dict()

    def _end_soon(self) -> None:
        """A device that hangs ends the process, once its requests are answered.

        Ray would wait for it as for any replica that stops, its GPU share taken for as long; and it looks at
        no replica that is in the middle of a `reconfigure`.
        """
        logger.critical("%s: this replica ends, to be replaced", STALLED)
        asyncio.get_running_loop().call_later(END_AFTER_S, lambda: self._scheduler.stalled and os._exit(1))

    def _examine_soon(self) -> None:
        if self._examination is None or self._examination.done():
            self._examination = asyncio.create_task(self._examine())

    async def _examine(self) -> None:
        """All that has run lately failed: where the device is at fault, and not the images, this process ends.

        Three of Ray's health checks would find that out after half a minute, in which a device that fails at once
        draws requests to it: at 70/s to two replicas, with checks every two seconds, it failed 265 of them, and so 29.
        For want of memory nobody ends here: it may come back, and a new process would have no more of it.
        """
        try:
            await self._warm_up(self._user_config.buckets()[0])
        except Exception as error:
            if is_out_of_memory(error):
                logger.warning("There is no memory for one image", exc_info=True)
                return
            logger.critical("%s: this replica ends, to be replaced", BROKEN, exc_info=True)
            asyncio.get_running_loop().call_later(BROKEN_END_AFTER_S, os._exit, 1)

    @property
    def model_name(self) -> str:
        return self._spec.name

    @property
    def labels(self) -> tuple[str, ...]:
        return self._spec.labels

    @property
    def default_top_k(self) -> int:
        return self._user_config.top_k

    @property
    def max_top_k(self) -> int:
        return min(self.args.max_top_k, self._spec.num_classes)

    def metadata(self) -> dict[str, Any]:
        return {
            **self._spec.metadata(),
            "device": self._engine.device,
            "precision": self._engine.precision,
            "compiled": self._engine.is_compiled,
            "decode": self.args.decode,
            "num_threads": self._num_threads,
            "batching": self._user_config.model_dump(),
            "refused_user_config": self._refused,
        }

    def authorize(self, authorization: str | None) -> None:
        self._keyring.admit(authorization)

    def terms(self, timeout_s: float | None, priority: Priority) -> Terms:
        """The client's deadline, else the objective (which `batch` does not have), else Ray's request timeout."""
        slo_ms = self._user_config.latency_slo_ms
        if timeout_s is None and slo_ms is not None and priority is Priority.INTERACTIVE:
            timeout_s = slo_ms / 1e3
        return Terms(monotonic() + (timeout_s or self._request_timeout_s), priority)

    def check_admission(self, terms: Terms) -> None:
        try:
            self._scheduler.check(terms)
        except RequestError as error:
            self.statistics.failed(0.0)
            tracing.failed(perf_counter(), error)
            raise

    async def classify(self, image: bytes | Pixels | Normalised, terms: Terms) -> Classification:
        """One image -> its prediction; the request path, one stage per line."""
        started = perf_counter()
        try:
            async with self._scheduler.admitted(terms) as place:
                item = await self._item(image, terms.priority)
                decode_ms = (perf_counter() - started) * 1e3
                scheduled = await self._scheduler.execute(place, item)
        except Exception as error:
            self.statistics.failed((perf_counter() - started) * 1e3)
            tracing.failed(started, error)
            raise
        self.statistics.succeeded(decode_ms, scheduled.queue_ms, scheduled.result.device_ms)
        self._metrics.answered((perf_counter() - started) * 1e3, terms.priority)
        classification = Classification(scheduled.result, decode_ms, scheduled.queue_ms)
        tracing.answered(started, classification, self._scheduler.times.bucket)
        return classification

    async def _item(self, image: bytes | Pixels | Normalised, priority: Priority) -> Item:
        """What the device takes: a file is decoded, here or there."""
        if not isinstance(image, bytes):
            return image
        return self._for_the_gpu(image) or await self._decoded(image, priority)

    def _for_the_gpu(self, data: bytes) -> Item | None:
        """The image as it came, if the device is to decode it, and can."""
        if self.args.decode != "gpu":
            return None
        started = perf_counter()
        jpeg = parse(data, min(self.args.max_image_pixels, MAX_GPU_PIXELS), self.args.exif_orientation)
        if jpeg is not None:
            self._scheduler.admission.preparation.observe(perf_counter() - started)
        return jpeg

    async def _decoded(self, data: bytes, priority: Priority) -> Pixels:
        if priority is Priority.INTERACTIVE:
            return await self._decoded_next(data)
        async with self._decode_slots:  # the threads take what comes first: `batch` is not to fill their queue
            return await self._decoded_next(data)

    async def _decoded_next(self, data: bytes) -> Pixels:
        def decode() -> tuple[Pixels, float]:
            started = perf_counter()
            return self._decode(data), perf_counter() - started

        pixels, seconds = await asyncio.get_running_loop().run_in_executor(self._decode_threads, decode)
        self._scheduler.admission.preparation.observe(seconds)
        return pixels

    async def _execute(self, images: list[Item]) -> Sequence[Prediction | BaseException]:
        """Hand the scheduler's batch to `@serve.batch` in one turn of the loop, so that it stays one batch."""
        async with self._hand_over:
            self._taken = asyncio.get_running_loop().create_future()
            results = asyncio.gather(*(self.predict(image) for image in images), return_exceptions=True)
            # Until `@serve.batch` has it: of two batches in its queue it would make others.
            either: set[asyncio.Future[Any]] = {results, self._taken}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        found: Sequence[Prediction | BaseException] = await results
        return found

    @serve.batch(max_batch_size=DEFAULTS.max_batch_size, batch_wait_timeout_s=0, max_concurrent_batches=2)
    async def predict(self, images: list[Item]) -> list[Outcome]:
        """One outcome for each image, in order, from one execution on the device."""
        if not self._taken.done():
            self._taken.set_result(None)
        loop = asyncio.get_running_loop()

        def launch() -> Future[list[Outcome]]:
            # Said by the device's thread, which holds the GIL by then: said by the loop right after
            # the hand-over, answers to the last batch kept it from that thread (2.5 ms against 0.2).
            if self._scheduler.has_results:
                loop.call_soon_threadsafe(self._scheduler.started)
            execution = self._engine.launch(images)
            if self._engine.max_in_flight > self._engine.num_drivers:
                return self._collecting_thread.submit(execution.results)
            done: Future[list[Outcome]] = Future()
            done.set_result(execution.results())
            return done

        # Shielded: results that nobody collects would keep the buffers of their batch.
        outcomes = await asyncio.shield(asyncio.wrap_future(await self._on_device(launch)))
        self._count_execution(outcomes)
        return outcomes

    def _count_execution(self, outcomes: Sequence[Outcome]) -> None:
        ran = next((each for each in outcomes if isinstance(each, Prediction)), None)
        if ran is not None:  # else the device could decode none of them
            self.statistics.executed(ran.batch_size, ran.device_ms)
        self._metrics.not_numbers(sum(isinstance(each, NotANumber) for each in outcomes))

    async def _on_device(self, work: Callable[..., T], *args: Any) -> T:
        driver = next((each for each in self._drivers if each not in self._busy_drivers), self._drivers[0])
        self._busy_drivers.add(driver)
        try:
            return await asyncio.get_running_loop().run_in_executor(driver, work, *args)
        finally:
            self._busy_drivers.discard(driver)


def drop_what_cannot_be_logged() -> None:
    """A full disk costs log lines, and nothing else.

    Python tells of a line that cannot be written on stderr, and Serve makes log lines of that, which cannot be written
    either: the event loop came to nothing else, and nobody was answered until there was room again.
    """
    logging.raiseExceptions = False


def _policy(config: UserConfig) -> Policy:
    return Policy(
        max_batch_size=config.max_batch_size,
        batch_wait_timeout_s=config.batch_wait_timeout_s,
        max_queue_size=config.queue_size,
        latency_slo_s=None if config.latency_slo_ms is None else config.latency_slo_ms / 1e3,
    )


def _request_timeout_s() -> float:
    """`http_options.request_timeout_s`, after which Ray cancels a request; infinite where there is none."""
    client = get_global_client()
    assert client is not None  # noqa: S101 - a replica has one
    return float(client.http_config.request_timeout_s or math.inf)


def _num_threads(args: Args) -> int:
    context = ray.get_runtime_context()
    num_cpus = context.get_assigned_resources().get("CPU", 0.0)
    node = next(n for n in ray.nodes() if n["NodeID"] == context.get_node_id())
    return resolve_num_threads(args.num_threads, num_cpus, int(node["Resources"].get("CPU", 1)))


def _check_fits_ray(config: UserConfig) -> None:
    """Raise ConfigError where Ray would hold back the requests that a full batch needs.

    Ray itself only logs a warning, and every batch stays small for ever.
    """
    limit = serve.get_replica_context()._deployment_config.max_ongoing_requests
    if config.max_batch_size > limit:
        raise ConfigError(
            f"max_batch_size ({config.max_batch_size}) is above max_ongoing_requests ({limit}): "
            f"set max_ongoing_requests to {max_ongoing_requests(config.max_batch_size)}"
        )
