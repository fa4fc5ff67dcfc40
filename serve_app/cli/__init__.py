"""The `serve-app` command.

run        start the service on this machine, until Ctrl-C
check      validate a deploy/*.yaml strictly
settings   what such a file may say
classify   send images to a running service
token      make a token for a caller
bench      measure the device, a service under load, the alternatives
tune       from measurements to a deploy/*.yaml
"""

# Ray reads its environment when it is imported, and importing it takes a second: every command
# imports what it needs in its own body.

import json
import sys
from pathlib import Path
from typing import Any

import click

from serve_app.cli.bench import FILE, POSITIVE, Real, bench, image_options
from serve_app.version import VERSION

CONFIG = click.argument("config", type=click.Path(path_type=Path))


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="serve-app")
def main() -> None:
    """Serve a ResNet on Ray: photos in over HTTP, classes out, batched from live traffic."""


@main.command()
@CONFIG
@click.option("--port", type=click.IntRange(1, 65535), help="Instead of http_options.port.")
@click.option(
    "--grpc-port",
    type=click.IntRange(0, 65535),
    help="Serve gRPC too, on this port; 0: not.  [default: grpc_options of CONFIG, if any]",
)
@click.option(
    "--start-timeout-s",
    type=Real(1),
    default=600,
    show_default=True,
    help="Give up if not ready by then.",
)
def run(config: Path, port: int | None, grpc_port: int | None, start_timeout_s: float) -> None:
    """Check CONFIG and serve it on this machine until Ctrl-C.

    Starts a Ray instance of its own, behind HAProxy where there is one (Linux), and takes it down
    again with every process and port. Instances side by side need a --port (and --grpc-port) each, and
    nothing else. For a cluster use `serve deploy CONFIG`.

    Exit status: 0 stopped by Ctrl-C or SIGTERM, 1 the service did not start, 2 CONFIG is wrong.
    """
    from serve_app.cli.run import run_until_signal

    sys.exit(run_until_signal(config, port, grpc_port, start_timeout_s))


@main.command()
@CONFIG
@click.option("--gpus", type=click.IntRange(0), help="GPUs of the cluster.  [default: this machine's, if any]")
@click.option("--cpus", type=click.IntRange(1), help="CPUs of the cluster.  [default: not checked]")
@click.option("--json", "as_json", is_flag=True, help="Findings as a JSON list.")
def check(config: Path, gpus: int | None, cpus: int | None, as_json: bool) -> None:
    """Validate CONFIG strictly: unknown keys, wrong values, knobs that contradict each other.

    CONFIG may be a KubeRay manifest too: the serveConfigV2 of its RayService is checked, against the
    CPUs and GPUs of its pods unless --cpus and --gpus say otherwise.

    Exit status: 0 nothing wrong (there may be warnings), 1 errors, 2 CONFIG cannot be read.
    """
    from serve_app.cli.check import findings_of, print_findings
    from serve_app.config import ConfigError

    try:
        findings = findings_of(config, gpus, cpus)
    except ConfigError as error:
        click.echo(str(error), err=True)
        sys.exit(2)
    if as_json:
        click.echo(json.dumps([finding.as_dict() for finding in findings], indent=2))
    else:
        print_findings(config, findings)
    sys.exit(any(finding.level == "error" for finding in findings))


@main.command()
@click.option("--json", "as_json", is_flag=True, help="A JSON list.")
def settings(as_json: bool) -> None:
    """List every key of a config that is not Ray Serve's own, with its default."""
    from serve_app.cli.settings import print_settings

    print_settings(as_json)


@main.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--url", default="http://127.0.0.1:8000", show_default=True, help="Where the service is.")
@click.option("--top-k", type=click.IntRange(1), help="Classes per image.  [default: the service's]")
@click.option("--concurrency", type=click.IntRange(1, 1024), default=16, show_default=True, help="Requests in flight.")
@click.option("--timeout-s", type=Real(0.001), default=60, show_default=True, help="For each image.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per image and line.")
def classify(
    paths: tuple[Path, ...], url: str, top_k: int | None, concurrency: int, timeout_s: float, as_json: bool
) -> None:
    """Send images to a running service: files, or folders with everything in them.

    A service that asks for a token gets the one in the environment variable SERVE_APP_TOKEN. By https:
    SSL_CERT_FILE names the file of a CA that is not the system's.

    Exit status: 0 every file was classified, 1 one or more failed, 2 there was nothing to send.
    """
    from serve_app.cli.classify import classify_paths

    sys.exit(classify_paths(paths, url, top_k, concurrency, timeout_s, as_json))


@main.command()
@click.argument("name")
@click.option("--rate", type=POSITIVE, help="Requests/s that each replica takes of it.  [default: no limit]")
@click.option("--file", "path", type=FILE, help="The tokens_file to add its line to; made if it is not there.")
@click.option("--json", "as_json", is_flag=True, help="Token and line as JSON.")
def token(name: str, rate: float | None, path: Path | None, as_json: bool) -> None:
    """Make a bearer token for the caller NAME.

    The token goes to stdout, once: nothing keeps it. What a service is to know of it, a line with its
    hash, is added to --file, a config's `args: tokens_file:`; without --file it goes to stderr. A running
    service sees a changed file within a second. A line taken out is a token withdrawn.

    Exit status: 0 made, 2 NAME or the file will not do.
    """
    from serve_app.cli.token import make

    sys.exit(make(name, rate, path, as_json))


@main.command()
@click.option("--arch", help="torchvision's name.  [default: the checkpoint's, else resnet18]")
@click.option("--weights", "weights_name", default="DEFAULT", show_default=True, help="As args.weights in a config.")
@click.option("--p99-ms", type=POSITIVE, required=True, help="The bound on latency.")
@click.option("--rate", type=POSITIVE, help="Requests/s to hold, with as many replicas as it takes.")
@image_options
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:1.")
@click.option("--threads", type=click.IntRange(1, 1024), help="Of a replica.  [default: every core, 4 at most]")
@click.option("--output", "path", type=FILE, default="tuned.yaml", show_default=True, help="The config to write.")
@click.option("--force", is_flag=True, help="Replace the file if it is there.")
@click.option("--verify", is_flag=True, help="Serve it, and confirm the prediction by a load test.")
@click.option("--duration-s", type=Real(0.1), default=15, show_default=True, help="Of each run of --verify.")
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True, help="Of --verify; the median counts.")
@click.option("--json", "as_json", is_flag=True, help="The whole report as JSON on stdout.")
def tune(**options: Any) -> None:
    """Measure this machine and write the config that holds a p99 latency on it.

    The device is measured alone for each batch size; then the service is started, and its answers tell
    what decode, device and HTTP take beside each other. Arrivals are simulated with these times for each
    max_batch_size, and the config that holds the bound at the highest rate is written, each value with
    the number that it comes from. Two minutes, and two more for --verify. Nothing else should run on the
    machine meanwhile.

    Exit status: 0 written (and the bound held), 1 written, but --verify found that it does not hold or
    could not serve it, 2 nothing holds the bound (the message says what could), or nothing could be measured.
    """
    from serve_app.cli.tune import run as run_tune

    sys.exit(run_tune(**options))


main.add_command(bench)
