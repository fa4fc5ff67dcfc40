"""Coverage-guided fuzzing of the decoder, by atheris, in a process of its own, which libFuzzer ends as it likes."""

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from serve_app.bench.torture.seeds import seeds
from serve_app.decode import Decode, Decoder
from serve_app.errors import TooManyPixels, UnreadableImage, UnsupportedImage
from serve_app.model_spec import Geometry

GEOMETRY = Geometry(resize_size=36, crop_size=32)
MAX_PIXELS = 1_000_000
MAX_BYTES = 1 << 16
INPUT_LIMIT_S = 10
RSS_LIMIT_MB = 2_048
TARGET = "serve_app.bench.torture.decode_target"
STATUS = re.compile(r"#(\d+)\s.*?cov: (\d+) ft: (\d+) corp: (\d+)")
DONE = re.compile(r"Done (\d+) runs")
FOUND = re.compile(r"Test unit written to (.+)")


class WrongCrop(AssertionError):
    """The decoder gave something that is no crop."""


@dataclass(frozen=True)
class Campaign:
    seed: int
    executions: int
    coverage: int
    """Edges of the instrumented Python that were reached."""
    features: int
    corpus: int
    findings: tuple[str, ...]
    """Files, each of which ended the process: an exception, a crash, a hang, too much memory."""
    status: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def decoder() -> Decoder:
    return Decoder(GEOMETRY, MAX_PIXELS)


def check(decode: Decode, data: bytes) -> None:
    """A crop, or one of the documented errors; raises whatever else is raised, and WrongCrop."""
    try:
        crop = decode(data)
    except (TooManyPixels, UnsupportedImage, UnreadableImage):
        return
    side = GEOMETRY.crop_size
    if crop.dtype != np.uint8 or crop.shape != (side, side, 3):
        raise WrongCrop(f"{crop.dtype} {crop.shape}")


def campaign(folder: Path, seconds: int, seed: int, said: Callable[[str], None]) -> Campaign:
    """In another process, into `folder`: corpus/ and findings/. `said` gets each line of libFuzzer's."""
    corpus, findings = folder / "corpus", folder / "findings"
    for each in (corpus, findings):
        each.mkdir(parents=True, exist_ok=True)
    for i, data in enumerate(seeds().values()):
        (corpus / f"seed-{i:02}").write_bytes(data)
    lines = []
    with subprocess.Popen(  # noqa: S603 - ourselves
        [sys.executable, "-m", TARGET, str(corpus), *_options(seconds, seed, findings)],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        errors="replace",
    ) as process:
        try:
            assert process.stderr is not None  # noqa: S101 - a pipe
            for line in process.stderr:
                lines.append(line)
                said(line.rstrip())
        finally:
            process.kill()
    return parsed("".join(lines), seed, process.returncode)


def parsed(text: str, seed: int, status: int) -> Campaign:
    """What libFuzzer said; zeros where it said nothing."""
    states = STATUS.findall(text)
    executions, coverage, features, corpus = map(int, states[-1]) if states else (0, 0, 0, 0)
    if done := DONE.search(text):
        executions = int(done[1])
    return Campaign(seed, executions, coverage, features, corpus, tuple(FOUND.findall(text)), status)


def _options(seconds: int, seed: int, findings: Path) -> list[str]:
    return [
        f"-max_total_time={seconds}",
        f"-seed={seed}",
        f"-max_len={MAX_BYTES}",
        f"-timeout={INPUT_LIMIT_S}",
        f"-rss_limit_mb={RSS_LIMIT_MB}",
        f"-artifact_prefix={findings}/",
        "-print_final_stats=1",
    ]
