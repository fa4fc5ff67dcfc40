"""`serve-app bench`: what batching buys on this machine, and what a service does under load."""

import sys
from collections.abc import Callable
from math import isfinite
from pathlib import Path
from typing import Any

import click

FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False, exists=True)
Command = Callable[..., Any]


class Real(click.FloatRange):
    """A number in a range, and never inf or nan, which click's own lets pass."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        return number if isfinite(number) else self.fail(f"{value} is no finite number", param, ctx)


POSITIVE = Real(0, min_open=True)


class Numbers(click.ParamType[Any]):
    """Positive numbers, separated by commas."""

    name = "numbers"

    def __init__(self, kind: type[int] | type[float]) -> None:
        self._kind = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            numbers = tuple(self._kind(part) for part in value.split(","))
        except ValueError:
            numbers = ()
        if not numbers or not all(0 < number < float("inf") for number in numbers):
            self.fail(f"{value!r} is no list of positive numbers such as 50 or 50,100,200", param, ctx)
        return numbers


class Names(click.ParamType[Any]):
    """Names, each once."""

    name = "names"

    def __init__(self, separator: str = ",") -> None:
        self._separator = separator

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        names = tuple(dict.fromkeys(part.strip() for part in value.split(self._separator) if part.strip()))
        return names or self.fail("name at least one", param, ctx)


class Size(click.ParamType[Any]):
    """WIDTHxHEIGHT in pixels."""

    name = "WxH"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        parts = value.lower().split("x")
        if len(parts) != 2 or not all(part.isdecimal() and 1 <= int(part) <= 8192 for part in parts):
            self.fail(f"{value!r} is no size in pixels such as 500x375, at most 8192x8192", param, ctx)
        return int(parts[0]), int(parts[1])


def image_options(command: Command) -> Command:
    folder = click.option("--images", type=FOLDER, help="Folder with images.  [default: generated JPEGs]")
    size = click.option("--image-size", type=Size(), default="500x375", show_default=True, help="Of generated JPEGs.")
    return folder(size(command))


def output_options(command: Command) -> Command:
    as_json = click.option("--json", "as_json", is_flag=True, help="The whole report as JSON on stdout.")
    csv = click.option("--csv", "csv_path", type=FILE, help="Write the table's rows to this file, anew.")
    plot = click.option("--plot", type=FILE, help="Draw it, anew: .html, .png, .svg or .pdf. Needs serve-app[bench].")
    return as_json(csv(plot(command)))


@click.group()
def bench() -> None:
    """Measure: the device alone, a service under load, the alternatives."""


@bench.command()
@click.option(
    "--arch",
    "archs",
    type=Names(),
    default="resnet18,resnet34,resnet50",
    show_default=True,
    help="torchvision's names; the first one is measured in every way, the others beside it.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:1.")
@click.option("--max-batch-size", type=click.IntRange(1, 1024), help="[default: 64 on a CPU, 1024 on a GPU]")
@click.option("--count", type=click.IntRange(1, 10_000), default=100, show_default=True, help="Images of the lesson.")
@image_options
@click.option("--threads", type=click.IntRange(1, 1024), help="On the CPU.  [default: every core]")
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True, help="The median of them is shown.")
@output_options
def forward(**options: Any) -> None:
    """What the device does alone, and what makes it faster: batch size, architecture, precision.

    100 images go through the network one by one and in batches; then every batch size up to a limit or
    the end of memory, other architectures, fp32 and bf16 as torchvision gives the network (eager) and as
    the service runs it (engine), on the CPU and on every GPU, and the stages of an image. Weights are
    random: they do not change the time. Nothing else should run on the machine meanwhile.

    Exit status: 0 measured, 2 nothing could be measured.
    """
    from serve_app.cli.bench.forward import run

    sys.exit(run(**options))


@bench.command()
@click.option("--url", default="http://127.0.0.1:8000", show_default=True, help="Where the service is.")
@click.option("--rate", "rates", type=Numbers(float), help="Open loop: requests/s, or several: 50,100,200.")
@click.option("--concurrency", "concurrencies", type=Numbers(int), help="Closed loop: requests in flight.")
@click.option("--sweep", is_flag=True, help="Find the highest rate that holds --p99-ms, from --rate (or 10) up.")
@click.option("--p99-ms", type=POSITIVE, help="The bound; goodput counts what keeps it.")
@click.option("--tolerance", type=Real(0.01, 1), default=0.05, show_default=True, help="Of --sweep.")
@click.option(
    "--deadline-ms",
    "deadlines_ms",
    type=Numbers(float),
    help="With --rate: each request is judged by one of these, in equal shares: 100,2000.",
)
@click.option(
    "--deadlines",
    type=click.Choice(["told", "untold", "both"]),
    default="told",
    show_default=True,
    help="Whether requests say theirs to the service; both: each rate without, then with.",
)
@image_options
@click.option("--duration-s", type=Real(0.1), default=10, show_default=True, help="Of what is counted.")
@click.option("--warm-up-s", type=Real(0), default=2, show_default=True, help="Before it, at that rate.")
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True, help="The median of them is shown.")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Of arrivals and choice of images.")
@click.option("--timeout-s", type=Real(0.001), default=30, show_default=True, help="Of each request.")
@click.option("--processes", type=click.IntRange(1, 64), help="Of the generator.  [default: a quarter of the cores]")
@output_options
def load(**options: Any) -> None:
    """Send images to a running service and say what it does to them.

    Open loop (--rate, --sweep): requests are sent at the times of a Poisson process, however slow the
    answers are, and a latency counts from the time a request should have been sent, so that a stall
    shows. Closed loop (--concurrency): each answer sends the next request; it finds the highest
    throughput, and hides stalls. Failures are rows of their own and never part of the percentiles. A
    bound holds if 99 of 100 requests offered are answered within it.

    With --deadline-ms a second table says for each deadline how many requests missed it: whatever was
    not answered with 200 within it, late, refused (503) or expired (504). Told, it is sent as
    x-request-timeout-seconds; untold, the service knows of none and goes first come, first served.

    Exit status: 0 measured, and --p99-ms held; 1 it did not hold, or nothing was answered; 2 nothing
    could be measured.
    """
    from serve_app.cli.bench.load import run

    sys.exit(run(**options))


@bench.command()
@click.option("--image-size", type=Size(), default="500x375", show_default=True, help="Of generated JPEGs.")
@click.option("--duration-s", type=Real(0.1), default=5, show_default=True)
@click.option("--processes", type=click.IntRange(1, 64), help="Of the generator.  [default: a quarter of the cores]")
@click.option("--json", "as_json", is_flag=True, help="The whole report as JSON on stdout.")
def generator(**options: Any) -> None:
    """How many requests/s the load generator can send from here, against a server that does nothing.

    What `bench load` measures far below this figure is the service; near it, the generator.
    """
    from serve_app.cli.bench.load import run_generator

    sys.exit(run_generator(**options))


@bench.command()
@click.option("--arch", help="torchvision's name.  [default: that of the weights, else resnet18]")
@click.option("--weights", "weights_name", help="As args.weights in a config.  [default: random ones, as fast]")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, or stub: 8 ms + 0.04 ms an image.")
@click.option("--max-batch-size", type=click.IntRange(1, 1024), help="[default: 16 on a CPU, else 64]")
@click.option("--threads", type=click.IntRange(1, 1024), help="CPUs of each replica.  [default: every core; stub: 1]")
@image_options
@click.option(
    "--rate",
    "rates",
    type=Numbers(float),
    help="Open loop: requests/s, or several.  [default: 30, 60 and 90 % of the first closed loop, ours]",
)
@click.option(
    "--concurrency",
    "concurrencies",
    type=Numbers(int),
    help="Of the closed loop, or of several: 16,1 also has a lone client.  [default: two full batches]",
)
@click.option("--duration-s", type=Real(0.1), default=10, show_default=True, help="Of each run.")
@click.option("--warm-up-s", type=Real(0), default=3, show_default=True, help="Before it, at that rate.")
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True, help="The median of them is shown.")
@click.option("--only", type=Names(separator=";"), help='Some of them: "serve-app;tutorial".')
@output_options
def compare(**options: Any) -> None:
    """This service beside the alternatives, on the same images and the same machine, in one run.

    The bare forward loop; this service; plain @serve.batch with waits of 0, 2 and 10 ms, which differs in
    nothing but the batching; and a tutorial's app (Ray's ordinary proxy, PIL in the handler, fp32 eager,
    @serve.batch(32, 10 ms)). Each is started, saturated by a closed loop, put under Poisson arrivals at
    the same rates and stopped. Nothing else should run on the machine meanwhile. Twenty minutes, or with
    --repeats 1 ten.

    The last line of stdout is the report as JSON, with --json the only one.

    Exit status: 0 measured, 1 one of them could not be, 2 nothing could be measured.
    """
    from serve_app.cli.bench.compare import run

    sys.exit(run(**options))


@bench.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@image_options
@click.option("--times", type=Real(1, min_open=True), default=3, show_default=True, help="The peak, in the overload.")
@click.option("--overload-s", type=Real(2), default=60, show_default=True, help="How long it lasts.")
@click.option(
    "--deadline-ms",
    "deadlines_ms",
    type=Numbers(float),
    help="Also 0.95 of the peak with these deadlines, untold and told: 100,2000.",
)
@click.option("--duration-s", type=Real(0.1), default=10, show_default=True, help="Of every other run.")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Of arrivals and choice of images.")
@click.option("--timeout-s", type=Real(0.001), default=30, show_default=True, help="Of each request.")
@click.option("--processes", type=click.IntRange(1, 64), help="Of the generator.  [default: a quarter of the cores]")
@output_options
def overload(**options: Any) -> None:
    """Serve FILE, put it under three times its peak, and say what it held.

    FILE is a deploy/*.yaml whose user_config has a latency_slo_ms, the objective. One service instance is
    measured alone (a closed loop of one); at its peak (Poisson arrivals at rising rates, until the
    answers/s within the objective no longer grow); in quiet, at 0.3 of that; and in one open loop of 15 s
    quiet, the overload, 15 s quiet. The bars: p50 in quiet 1.15 of the lone one's; in the overload 0.90 of
    the peak within the objective, which the p99 of answers keeps too; refusals (503) within 50 ms (p99) and
    with Retry-After, every one; no request lost; memory of the replicas that grows less than 3 % from its
    first half to its second; after it the p50 of a second within 1.25 of the quiet one in 2 s; and with
    --deadline-ms fewer deadlines missed where the service is told them. Four minutes, in which nothing
    else should run on the machine.

    Exit status: 0 every bar holds, 1 one does not, 2 something could not be measured.
    """
    from serve_app.cli.bench.overload import run

    sys.exit(run(**options))


@bench.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--cases", type=click.IntRange(1), default=20_000, show_default=True, help="How many.")
@click.option("--first", type=click.IntRange(0), default=0, show_default=True, help="Number of the first.")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="With its number it makes a case.")
@click.option(
    "--images",
    "folder",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Folder with more files to make hostile ones of: all in it and below, damaged ones too.",
)
@click.option("--concurrency", type=click.IntRange(1, 256), default=4, show_default=True, help="Clients at once.")
@click.option("--limit-s", type=Real(0.1), default=60, show_default=True, help="A case that takes longer has hung.")
@click.option("--json", "as_json", is_flag=True, help="The whole report as JSON on stdout.")
def fuzz(**options: Any) -> None:
    """Serve FILE and ask it hostile things: images that are damaged, HTTP that lies.

    Each case is made by the seed and its number alone: good images of every kind, generated (and every file of
    --images), with bits flipped, parts cut or doubled, files glued together, headers that lie; as bodies, forms and
    tensors; bombs of every format, odd EXIF and colour profiles; and lengths, chunks, headers, lines, tokens,
    pipelines, drips, silence and slow reading as no client would have. Each has to end in 2xx or a documented 4xx
    with its code (plain words for broken HTTP alone); without an answer only where the HTTP is broken, or was not
    said to its end. Two clients more send good images all the time, each of which has to be answered as before, and
    once more at the end. A 503 counts as a failure but for a deadline of the case's own: with few clients there is
    no reason for one. A service that asks for a token gets the one in the environment variable SERVE_APP_TOKEN.

    The bars: no undocumented answer, nothing hung, no good image wrong, no replica ended, and memory that grows by
    1.5 GiB at most (on a CPU it keeps 1 GiB for the next batch), for a moment by 2.5.

    Exit status: 0 all of it was borne, 1 some of it was not, 2 FILE could not be served.
    """
    from serve_app.cli.bench.fuzz import run

    sys.exit(run(**options))


@bench.command("fuzz-decode")
@click.option("--seconds", type=click.IntRange(1), default=300, show_default=True, help="For how long.")
@click.option("--seed", type=click.IntRange(1), default=1, show_default=True, help="Of libFuzzer's mutations.")
@click.option(
    "--output",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    default="fuzz-decode",
    show_default=True,
    help="Folder: corpus/, which another run goes on from, and findings/.",
)
@click.option("--json", "as_json", is_flag=True, help="The whole report as JSON on stdout.")
def fuzz_decode(**options: Any) -> None:
    """Coverage-guided fuzzing of the decoder, by atheris: images mutated towards new paths through Pillow.

    It starts from good images of every kind, of 64 kB at most, and 1 MP. Each has to end in a crop or one of the
    documented errors, within 10 s and 2 GB; ten a second at least, or little was tried. Needs serve-app[torture].
    One core is busy.

    Exit status: 0 nothing was found, 1 something was, into findings/, or little was tried, 2 it did not run.
    """
    from serve_app.cli.bench.fuzz_decode import run

    sys.exit(run(**options))


@bench.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@image_options
@click.option("--minutes", type=click.IntRange(2), default=30, show_default=True, help="How long.")
@click.option("--share", type=Real(0.01, 1.5), default=0.8, show_default=True, help="Of the peak: the rate offered.")
@click.option("--bad", type=Real(0, 0.9), default=0.1, show_default=True, help="Of all requests, the hostile ones.")
@click.option(
    "--cases", type=click.IntRange(1, 100_000), default=2000, show_default=True, help="Hostile ones that differ."
)
@click.option(
    "--concurrency",
    type=click.IntRange(1, 4096),
    help="Of the closed loop that finds the peak.  [default: two full batches for each replica]",
)
@click.option("--duration-s", type=Real(0.1), default=10, show_default=True, help="Of each of its three runs.")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Of arrivals, images and cases.")
@click.option("--timeout-s", type=Real(0.001), default=30, show_default=True, help="Of each good request.")
@click.option("--processes", type=click.IntRange(1, 64), help="Of the generator.  [default: a quarter of the cores]")
@output_options
def soak(**options: Any) -> None:
    """Serve FILE for half an hour at 0.8 of its peak, hostile requests among good ones, and say what it held.

    Each image is asked alone first; the peak is that of a closed loop, the median of three; then Poisson arrivals,
    as many in each minute. Good requests have to be answered, every one (a refusal, 503, is a failure here), with
    the class that their image had, and its score. Hostile ones are those of `bench fuzz`, but for bombs that take a
    tenth of a second: damaged images, HTTP that lies; each has to end in 2xx, a documented 4xx, a refusal, or be
    closed where its HTTP is broken. Every 5 s the memory, open files and
    threads of each process of the service are looked at.

    The bars: no good request failed or answered otherwise; no hostile one answered with a 500, or hung; p99 of the
    last minute 1.2 of the first one's after the warm-up, which is minute 0, and that of the last third 1.2 of
    the first third's (medians); the slope of resident memory, without the first 5 minutes, within its noise (95 %)
    or below 1 % an hour; descriptors and threads 1.1 of the first minute's; no replica ended. Nothing else
    should run on the machine meanwhile.

    Exit status: 0 every bar holds, 1 one does not, 2 something could not be measured.
    """
    from serve_app.cli.bench.soak import run

    sys.exit(run(**options))


@bench.command()
@click.argument(
    "files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path, dir_okay=False, exists=True)
)
@click.option("--shape", "shapes", type=Names(), default="step,ramp,spike", show_default=True, help="Of the traffic.")
@click.option("--rate", type=POSITIVE, help="Low, requests/s.  [default: half of what one replica can do: stubs alone]")
@click.option("--times", type=Real(1, min_open=True), default=5, show_default=True, help="The low rate, at the top.")
@click.option("--high-s", type=Real(10), default=90, show_default=True, help="Of the step; of the ramp, up and down.")
@click.option("--after-s", type=Real(1), default=90, show_default=True, help="At the low rate again.")
@image_options
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Of arrivals and choice of images.")
@click.option("--timeout-s", type=Real(0.001), default=30, show_default=True, help="Of each request.")
@click.option("--processes", type=click.IntRange(1, 64), help="Of the generator.  [default: a quarter of the cores]")
@output_options
def autoscale(**options: Any) -> None:
    """Serve each FILE under traffic that rises and falls, and say how its replicas followed.

    Each FILE is a deploy/*.yaml with an autoscaling_config: two policies, say. Each is served anew for each shape,
    all with the same arrivals: 20 s at the low rate, then a step, a ramp of stairs, or a spike of 10 s, then the
    low rate again. The replicas are watched through Ray's REST API. Of the first new one that answers: when it was
    decided upon, its start-up, and when it was ready, which is its first answer. Back is when 99 of 100 requests
    are within latency_slo_ms again. These count from the rise; replica s is what all replicas cost together.

    The bars: the first new replica of a step ready within 10 s plus its own start-up; at most one reversal of the
    number wanted (a turn round that does not follow the load); no request lost, while replicas are stopped too.
    Requests refused (503) or expired (504) are counted apart. Some four minutes for each FILE and shape, in which
    nothing else should run on the machine.

    Exit status: 0 every bar holds, 1 one does not, 2 something could not be measured.
    """
    from serve_app.cli.bench.autoscale import run

    sys.exit(run(**options))


@bench.command()
@click.option("--only", type=Names(separator=";"), help='Some of them: "kill replica;drain node".')
@click.option("--rate", "rate_per_s", type=POSITIVE, default=70, show_default=True, help="Requests/s.")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Of arrivals.")
@click.option("--timeout-s", type=Real(0.001), default=30, show_default=True, help="Of each request.")
@click.option("--json", "as_json", is_flag=True, help="The whole report as JSON on stdout.")
@click.option("--csv", "csv_path", type=FILE, help="Write the table's rows to this file, anew.")
def faults(**options: Any) -> None:
    """What a cluster loses when it is updated, drained, or something of it fails or is killed, under load.

    Ray nodes are started on this machine, a head without replicas and others with declared GPUs, and replicas of
    a device that only takes its time. An open loop of small images goes through the head's HAProxy; five seconds
    later the event, and then Ray is asked until every replica and proxy is well again. Updates: another weights
    file, another environment (as new code needs), user_config, on a full GPU too; one replica fewer; kill -9 and
    SIGTERM ("end") of a replica, of Serve's controller, of a HAProxy; kill -9 of HAProxy's manager, of the proxy
    that it falls back to, of a node with all its processes; a node that is drained. Faults: an engine that raises,
    hangs or says NaN for ever, or has memory for two images only; the weights file removed or replaced, and then a
    replica killed; no room on the disk of Ray's logs (needs the right to mount); the clock an hour ahead, and
    back again (needs libfaketime as `make torture` installs it). What needs something that is not here is skipped.

    The bars: updates, scaling and draining fail no request, nor do a controller that dies, a full disk, a clock,
    and memory for small batches only; of a kill only what was in flight on the victim fails (strays, which were
    not, are none), save where the only HAProxy dies, or an engine fails; full capacity comes back by itself. No
    event excuses an answer that is not the one its image had in quiet, nor weights that were not asked for. Memory,
    disk and clock must be seen to be as said, or nothing is known.

    \b
    failed   by status; wrong class or score: answered, and otherwise than in quiet; wrong weights: named by the service
    victim   requests on it when it was killed
    strays   failed, though sent after the kill, or answered before it
    least/s  answers in the worst second from the event on, of the mean before it
    up       the fewest replicas that Ray said were serving
    full s   from the event until every replica and proxy was well, and what it took was replaced; where files, disk
             or clock are put right after 20 s, from then on

    Some fifty minutes, two for each event. Nothing else should run on the machine meanwhile.

    Exit status: 0 every bar holds, 1 one does not, 2 something could not be played.
    """
    from serve_app.cli.bench.faults import run

    sys.exit(run(**options))


@bench.command()
@click.option("--url", default="http://127.0.0.1:8000", show_default=True, help="Where the service is.")
@click.option("--count", type=click.IntRange(1, 1024), default=32, show_default=True, help="Images at once.")
@click.option("--rounds", type=click.IntRange(1), default=15, show_default=True, help="The median of them is shown.")
@image_options
@click.option("--timeout-s", type=Real(0.001), default=60, show_default=True, help="Of each request.")
@click.option("--json", "as_json", is_flag=True, help="The whole report as JSON on stdout.")
def infer(**options: Any) -> None:
    """A running service: images as native requests, and through the Open Inference Protocol.

    All at once, in turns: one /v1/classify each, one inference request each, and one inference request with
    all of them (binary tensors). --count is at most the service's max_images. The bar: neither kind of inference
    request is slower than native ones.

    Exit status: 0 the bar holds, 1 it does not, 2 nothing could be measured, or the classes differ.
    """
    from serve_app.cli.bench.infer import run

    sys.exit(run(**options))


@bench.command("gpu-report")
@click.option("--arch", help="torchvision's name.  [default: that of the weights, else resnet50]")
@click.option("--weights", "weights_name", help="As args.weights in a config.  [default: random ones, as fast]")
@click.option("--device", default="auto", show_default=True, help="auto, cuda, cuda:1, cpu, or stub.")
@click.option("--quick", is_flag=True, help="A toy: whether every row works, on any machine.")
@image_options
@click.option(
    "--budget-s", type=POSITIVE, default=520, show_default=True, help="A row that no longer fits is left out."
)
@click.option("--processes", type=click.IntRange(1, 64), help="Of the generator.  [default: a quarter of the cores]")
@click.option("--output", "path", type=FILE, default="gpu-report.md", show_default=True, help="Markdown, anew.")
@click.option(
    "--json",
    "json_path",
    type=FILE,
    is_flag=False,
    flag_value="-",
    help="Also as JSON: to this file, or without one to stdout.",
)
def gpu_report(**options: Any) -> None:
    """Every figure that needs a GPU, each against its bar, in one run of less than nine minutes.

    What the GPU can do; the network alone, compiled, not compiled, and as torch gives it; start-up; padding;
    JPEGs on the GPU, and beside the network; whether the answers are the reference's; the service over HTTP
    with one to six replicas on the GPU, beside the tutorial's app, in a closed and an open loop, and for a lone
    client. The bars are an H200's. The files are written after each figure, so that a run that is killed
    leaves what it had. A row that fails, that no longer fits, or that needs a GPU where there is none, says
    so and stops no other. Nothing else should run on the machine meanwhile.

    Nothing is fetched: images are generated, and weights random unless they are given. On a machine without
    a network copy the repository and a folder with the packages that it lacks (Ray, Starlette, pydantic,
    python-multipart, ...), and there, without installing anything:

    
      cd REPOSITORY
      export PYTHONPATH=$PWD:/PACKAGES RAY_AUTH_MODE=disabled
      python3 -m serve_app bench gpu-report --output gpu-report.md --json gpu-report.json

    Exit status: 0 every bar holds, 1 one does not, 2 none is missed, but something could not be measured.
    """
    from serve_app.cli.bench.gpu_report import run

    sys.exit(run(**options))


@bench.command()
@click.option("--quick", is_flag=True, help="Ten minutes instead of two hours: whether it still bears all of it.")
@click.option("--seed", type=click.IntRange(1), default=1, show_default=True, help="Of cases and arrivals.")
@click.option("--images", type=FOLDER, help="Photos to damage, besides small ones of every kind.")
@click.option("--output", "path", type=FILE, default="torture-report.md", show_default=True, help="Markdown, anew.")
@click.option("--json", "json_path", type=FILE, help="Also as JSON, with every figure.")
def torture(**options: Any) -> None:
    """Hostile input, faults and a soak, one after the other, into one report.

    20,000 hostile cases against a service beside clients with good images (`bench fuzz`); ten minutes of the
    decoder, guided by coverage (`bench fuzz-decode`); every fault (`bench faults`); half an hour at 0.8 of the
    peak with good and bad input (`bench soak`). Each is a command of its own, and the report names it. The
    report is written after each, with the cases that failed and how to ask them again, and the soak's plot beside
    it; a part that fails says so and stops no other. The same seed makes the same cases. Nothing else should run on
    the machine meanwhile.

    Exit status: 0 every bar holds, 1 one does not, 2 none is missed, but something could not be measured.
    """
    from serve_app.cli.bench.torture import run

    sys.exit(run(**options))
