"""Open-loop load: Poisson arrivals, latency from the intended send time, failures apart."""

import asyncio
import random
import resource
import time
from collections import Counter
from dataclasses import dataclass, field

import aiohttp
import numpy as np
import uvloop


@dataclass
class Report:
    """What became of the requests of one run. Latencies (seconds) are those of answers with status 200."""

    offered_per_s: float
    wall_s: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    batch_sizes: list[int] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    lags_s: list[float] = field(default_factory=list)
    """How late the generator itself sent: large values mean that it was the limit."""
    generator_cpu_share: float = 0.0

    @property
    def answered_per_s(self) -> float:
        return len(self.latencies_s) / self.wall_s

    @property
    def mean_batch(self) -> float:
        return len(self.batch_sizes) / sum(1 / size for size in self.batch_sizes) if self.batch_sizes else 0.0

    def latency_ms(self, percent: float) -> float:
        return float(np.percentile(self.latencies_s, percent)) * 1e3 if self.latencies_s else float("nan")

    def as_dict(self) -> dict[str, object]:
        return {
            "offered_per_s": round(self.offered_per_s, 1),
            "answered_per_s": round(self.answered_per_s, 1),
            "p50_ms": round(self.latency_ms(50), 1),
            "p99_ms": round(self.latency_ms(99), 1),
            "max_ms": round(self.latency_ms(100), 1),
            "mean_batch": round(self.mean_batch, 1),
            "failures": dict(self.failures),
            "generator_lag_p99_ms": round(float(np.percentile(self.lags_s, 99)) * 1e3, 1),
            "generator_cpu_share": round(self.generator_cpu_share, 2),
        }


def run(url: str, image: bytes, rate_per_s: float, duration_s: float, seed: int, timeout_s: float = 60) -> Report:
    """Send at the seeded Poisson instants, however slow the answers; return when every one is in or timed out."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(url, image, arrivals(rate_per_s, duration_s, seed), rate_per_s, timeout_s))


def arrivals(rate_per_s: float, duration_s: float, seed: int) -> list[float]:
    """Poisson arrival times in seconds from the start."""
    generator = random.Random(seed)
    times, now = [], generator.expovariate(rate_per_s)
    while now < duration_s:
        times.append(now)
        now += generator.expovariate(rate_per_s)
    return times


async def _run(url: str, image: bytes, times: list[float], rate_per_s: float, timeout_s: float) -> Report:
    report = Report(rate_per_s)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=timeout_s)) as session:
        cpu, start = time.process_time(), time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for at in times:
                await asyncio.sleep(max(0.0, start + at - time.perf_counter()))
                group.create_task(_send(session, url, image, start + at, report))
        report.wall_s = time.perf_counter() - start
        report.generator_cpu_share = (time.process_time() - cpu) / report.wall_s
    return report


async def _send(session: aiohttp.ClientSession, url: str, image: bytes, intended: float, report: Report) -> None:
    report.lags_s.append(time.perf_counter() - intended)
    try:
        async with session.post(url, data=image) as response:
            body = await response.json(content_type=None)
            status = response.status
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        report.failures[type(error).__name__] += 1
        return
    if status != 200:
        report.failures[str(status)] += 1
        return
    report.latencies_s.append(time.perf_counter() - intended)
    report.batch_sizes.append(body["images"][0]["batch_size"])
