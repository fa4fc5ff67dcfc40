"""`serve-app tune`: measure this machine, write the config that holds a bound, and confirm it."""

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import yaml

from serve_app import architectures, weights
from serve_app.bench import compare, deploy_file, forward, machine, plan
from serve_app.bench.compare import Terms
from serve_app.bench.deploy_file import Origin
from serve_app.bench.forward import Precision, Setup, doublings
from serve_app.bench.generator import GeneratorError, Run
from serve_app.bench.images import Images
from serve_app.bench.isolated import Died
from serve_app.bench.load import LoadTest, Row
from serve_app.bench.plan import BoundTooTight, Machine, Plan
from serve_app.bench.samples import summarise
from serve_app.bench.times import Times, times
from serve_app.cli.bench import local_service, output
from serve_app.cli.bench.forward import MAX_BATCH_SIZE_CPU
from serve_app.cli.bench.local_service import StartError, on_device
from serve_app.cli.bench.output import number, progress, read_images, warn_if_busy
from serve_app.cli.bench.rows import HEADER, cells, warn_if_lagged, warn_if_stolen
from serve_app.config import Args, ConfigError

MAX_BATCH_SIZE_CUDA = 256
CURVE_REPEATS = 3
STRETCH_S = 5.0
STRETCH_WARM_UP_S = 1.0
RETRIES = 2
VERIFY_WARM_UP_S = 5.0
PREDICTED = ("p50_ms", "p99_ms", "mean_batch", "mean_ongoing")


def run(
    *,
    arch: str | None,
    weights_name: str,
    p99_ms: float,
    rate: float | None,
    images: Path | None,
    image_size: tuple[int, int],
    device: str,
    threads: int | None,
    path: Path,
    force: bool,
    verify: bool,
    duration_s: float,
    repeats: int,
    as_json: bool,
) -> int:
    """Measure, write, print; the exit status."""
    output.check_writable(path, "--output")
    if path.exists() and not force:
        output.fail(f"{path} is there already: --force replaces it, --output names another", 2)
    pictures = read_images(images, image_size)
    try:
        setup, weights_name = _setup(arch, weights_name, device, threads)
        if verify and setup.weights is None:
            raise ConfigError("--verify serves the model, and its weights are not here: give --weights a file")
        warn_if_busy()
        setup, service_times, peak_bytes = _measured(setup, pictures, p99_ms)
        origin = Origin(setup, weights_name, service_times, pictures.description, machine.facts(), rate)
        chosen = _chosen(origin, peak_bytes, p99_ms)
        if verify and chosen.min_replicas > chosen.slots:
            raise ConfigError(
                f"--verify cannot: {rate:g} requests/s take {chosen.min_replicas} replicas, and this machine holds "
                f"{chosen.slots}; lower --rate, or confirm it on the cluster"
            )
    except (ConfigError, Died, StartError, GeneratorError) as error:
        output.fail(str(error), 2)
    text = deploy_file.render(chosen, origin)
    path.write_text(text, "utf-8")
    try:
        row = _verified(yaml.safe_load(text), setup.device, chosen, pictures, duration_s, repeats) if verify else None
    except (StartError, GeneratorError) as error:
        output.fail(str(error), 1)
    if row:
        path.write_text(deploy_file.verified(row, chosen.p99_bound_ms) + text, "utf-8")
    if as_json:
        output.print_json({**origin.facts, "images": pictures.description, **_as_dict(path, chosen, origin, row)})
    else:
        _print(path, chosen, origin, row)
    return 0 if row is None or row.holds else 1


# --- measuring -----------------------------------------------------------------------------------


def _setup(arch: str | None, name: str, device: str, threads: int | None) -> tuple[Setup, str]:
    """What to measure, and `args.weights`. Weights out of reach are random ones meanwhile: they take the same time."""
    if name.endswith(weights.FILE_SUFFIXES):
        name = str(Path(name).expanduser().resolve())
    if arch is not None:
        architectures.check(arch)
    device = machine.resolved_device(device)
    most = plan.REPLICA_CORES if device == "cpu" else max(1, machine.num_cores() // torch.cuda.device_count())
    setup = Setup(arch or "resnet18", device, "auto", threads or min(machine.num_cores(), most), weights=name)
    try:
        spec = weights.load(Args(arch=arch, weights=name)).spec
    except weights.WeightsUnreachable as error:
        output.stderr.print(
            f"[yellow]note[/] {error}; measuring with random ones, which take the same time", soft_wrap=True
        )
        return replace(setup, weights=None), name
    return replace(setup, arch=spec.arch), name


def _measured(setup: Setup, pictures: Images, p99_ms: float) -> tuple[Setup, Times, int | None]:
    """The setup with its precision resolved, its times in a running service, the memory of the largest batch."""
    alone = forward.curve(setup, [1], 1, lambda _: None)
    if alone.times_ms and alone.ms(1) > p99_ms:
        raise ConfigError(
            f"no rate holds a p99 of {p99_ms:g} ms: an image alone takes {alone.ms(1):.1f} ms on the device, without "
            f"decode, HTTP and others beside it\n{_advice('a bound well above that', setup)}"
        )
    sizes = doublings(MAX_BATCH_SIZE_CPU if setup.device == "cpu" else MAX_BATCH_SIZE_CUDA)
    output.stderr.print("measuring the device alone")
    with output.steps(CURVE_REPEATS * len(sizes)) as show:
        curve = forward.curve(setup, sizes, CURVE_REPEATS, lambda n: show(f"the device alone, batch of {n}"))
    if not curve.times_ms:
        raise ConfigError(f"{setup.arch}: not even one image fits into the memory of {setup.device}")
    resolved = replace(setup, precision=cast(Precision, curve.precision))
    return resolved, _times(setup, curve.knee, pictures), curve.peak_bytes[curve.knee]


def _times(setup: Setup, max_batch_size: int, pictures: Images) -> Times:
    """What answers tell with 1 request in flight, and with enough of them for batches of each size."""
    with ExitStack() as stack:
        path = setup.weights or stack.enter_context(compare.random_weights(setup.arch))
        args = {"arch": setup.arch, "weights": path, "device": setup.device.partition(":")[0]}
        terms = Terms(args, max_batch_size, setup.num_threads, int(setup.device != "cpu"))
        output.stderr.print("starting the service, to time its parts beside each other")
        url, generator = stack.enter_context(
            local_service.under_load(compare.ours(terms).content, pictures, on_device(setup.device))
        )
        in_flight = [1, *(2 * size for size in doublings(max_batch_size))]
        show = stack.enter_context(output.steps(len(in_flight)))
        runs, rates = [], []
        for concurrency in in_flight:
            run = Run(url, STRETCH_S, STRETCH_WARM_UP_S, concurrency=concurrency)
            samples, cores = generator.run(run)
            runs.append(samples)
            rates.append(summarise(samples, run.duration_s, None, cores).completed_per_s)
            show(f"the service, {concurrency} requests in flight")
        try:
            return times(runs[0], runs[1:], max(rates))
        except ValueError as error:
            raise ConfigError(f"the service classified nothing ({error}): see serve-app bench load") from None


def _chosen(origin: Origin, peak_bytes: int | None, p99_ms: float) -> Plan:
    """Raises BoundTooTight."""
    setup = origin.setup
    gpus = torch.cuda.device_count() if setup.device != "cpu" else 0
    memory = torch.cuda.get_device_properties(setup.device).total_memory if gpus else 0
    here = Machine(machine.num_cores(), gpus, memory)
    candidates = plan.candidates(origin.times, here, setup.num_threads, peak_bytes)
    try:
        with output.stderr.status("simulating arrivals"):
            return plan.choose(candidates, p99_ms, here, origin.target_rate_per_s)
    except BoundTooTight as error:
        raise ConfigError(f"{error}\n{_advice(f'--p99-ms {error.smallest_ms:g}', setup)}") from None


def _advice(bound: str, setup: Setup) -> str:
    could = [bound]
    if setup.arch != "resnet18":
        could.append("a smaller network (serve-app bench forward --arch compares them)")
    if setup.device == "cpu":
        could.append("a GPU")
    return f"what could: {', '.join([*could, 'smaller images'])}"


def _verified(
    content: dict[str, Any], device: str, chosen: Plan, pictures: Images, duration_s: float, repeats: int
) -> Row:
    """The written file served here, at what its replicas were predicted to hold together."""
    autoscaling = content["applications"][0]["deployments"][0]["autoscaling_config"]
    autoscaling["max_replicas"] = autoscaling["min_replicas"] = replicas = chosen.verified_replicas
    one_gpu = replicas <= max(1, chosen.replicas_per_gpu)
    output.stderr.print("starting the service, to verify the prediction")
    with (
        local_service.under_load(content, pictures, on_device(device) if one_gpu else {}) as (url, generator),
        progress(VERIFY_WARM_UP_S + duration_s) as show,
    ):
        template = Run(url, duration_s, VERIFY_WARM_UP_S)
        test = LoadTest(generator, template, repeats, chosen.p99_bound_ms, show, retries=RETRIES)
        return test.at_rate(replicas * chosen.outcome.rate_per_s)


# --- output --------------------------------------------------------------------------------------


def _as_dict(path: Path, chosen: Plan, origin: Origin, row: Row | None) -> dict[str, Any]:
    return {
        "path": str(path),
        "arch": origin.setup.arch,
        "device": origin.setup.device,
        "precision": origin.setup.precision,
        "p99_bound_ms": chosen.p99_bound_ms,
        "target_rate_per_s": origin.target_rate_per_s,
        "predicted": {
            "rate_per_s": round(chosen.predicted_rate_per_s, 2),
            "replicas": chosen.min_replicas,
            **{key: round(getattr(chosen.outcome, key), 3) for key in PREDICTED},
            "limited_by": chosen.outcome.limit,
        },
        "settings": {
            "max_batch_size": chosen.max_batch_size,
            "batch_buckets": list(chosen.buckets),
            "num_cpus": chosen.num_threads,
            "num_gpus": chosen.num_gpus,
            "min_replicas": chosen.min_replicas,
            "max_replicas": chosen.max_replicas,
            "max_ongoing_requests": chosen.max_ongoing_requests,
            "max_queued_requests": chosen.max_queued_requests,
            "target_ongoing_requests": chosen.target_ongoing_requests,
        },
        "measured": {
            "decode_ms": round(float(np.median(origin.times.decode_ms)), 3),
            "device_ms": {size: round(float(np.median(ms)), 3) for size, ms in origin.times.device_ms.items()},
            "http_ms": round(origin.times.http_ms, 3),
            "most_per_s": round(origin.times.most_per_s, 2),
        },
        "sizes": [
            {
                "max_batch_size": size,
                "device_ms": round(origin.times.batch_ms(size), 3),
                "held_rate_per_s": outcome and round(outcome.rate_per_s, 2),
                "p99_ms": outcome and round(outcome.p99_ms, 2),
                "limited_by": outcome and outcome.limit,
                "chosen": size == chosen.max_batch_size,
            }
            for size, outcome in chosen.alternatives.items()
        ],
        "verified": row and {**row.as_dict(), "holds": row.holds},
    }


def _replicas(chosen: Plan) -> str:
    return "1 replica" if chosen.verified_replicas == 1 else f"{chosen.verified_replicas} replicas"


def _print(path: Path, chosen: Plan, origin: Origin, row: Row | None) -> None:
    report, setup = _as_dict(path, chosen, origin, row), origin.setup
    rows = [
        [
            str(size["max_batch_size"]),
            number(size["device_ms"]),
            number(1e3 * size["max_batch_size"] / size["device_ms"]),
            number(size["held_rate_per_s"]),
            number(size["p99_ms"], 0),
            size["limited_by"] or output.NO_FIGURE,
            "chosen" if size["chosen"] else "",
        ]
        for size in report["sizes"]
    ]
    output.print_table(
        ("max_batch_size", "ms/batch", "images/s", "held/s", "p99 ms", "limit", ""),
        rows,
        title=f"{setup.arch} {setup.precision} on {setup.device}, p99 within {chosen.p99_bound_ms:g} ms",
        caption="ms/batch: in the service under load; held/s: predicted; limit: what ends it\n"
        f"{origin.images}\n{machine.phrase(origin.facts)}",
    )
    settings = ", ".join(f"{key} {value}" for key, value in report["settings"].items())
    output.print_line(f"wrote {path}: {settings}")
    rate = f"{chosen.predicted_rate_per_s:.3g}"
    output.print_line(f"predicted: {rate} requests/s with a p99 of {chosen.outcome.p99_ms:.0f} ms")
    if row is None:
        output.print_line(f"confirm:   serve-app run {path}")
        output.print_line(f"           serve-app bench load --rate {rate} --p99-ms {chosen.p99_bound_ms:g}")
        return
    output.print_table(
        HEADER,
        [cells(row)],
        title=f"verified with {_replicas(chosen)}, the median of {len(row.summaries)} runs of {row.run.duration_s:g} s",
    )
    warn_if_lagged([row])
    warn_if_stolen([row])
    verdict = "[green]the bound holds[/]" if row.holds else "[red]the bound does not hold[/]"
    failed = ", ".join(f"{count:,} with {status}" for status, count in row.median.errors.items())
    output.stderr.print(
        f"{verdict}: goodput {row.median.goodput_share:.1%} of what was offered{failed and f'; failed: {failed}'}",
        soft_wrap=True,
    )
    if not row.holds:
        output.stderr.print(
            f"what it holds: serve-app run {path}, then serve-app bench load --sweep --rate "
            f"{row.median.completed_per_s / 2:.3g} --p99-ms {chosen.p99_bound_ms:g}",
            soft_wrap=True,
        )
