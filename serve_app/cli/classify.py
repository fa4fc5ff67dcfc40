"""Send image files to a running service and show what it says."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from serve_app import tls
from serve_app.tokens import authorization


@dataclass(frozen=True)
class Outcome:
    path: Path
    classes: list[dict[str, Any]]
    error: str | None

    def as_json(self) -> str:
        answer = {"error": self.error} if self.error else {"classes": self.classes}
        return json.dumps({"path": str(self.path), **answer})


def classify_paths(
    paths: Iterable[Path], url: str, top_k: int | None, concurrency: int, timeout_s: float, as_json: bool
) -> int:
    """Classify every file, print the results, return the exit status."""
    files = list(_files(paths))
    if not files:
        print("there is no file to send", file=sys.stderr)
        return 2
    outcomes = asyncio.run(_classify_all(files, url, top_k, concurrency, timeout_s, as_json))
    if not as_json:
        _print_table(outcomes)
    return int(any(outcome.error for outcome in outcomes))


def _files(paths: Iterable[Path]) -> Iterable[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith("."))
        else:
            yield path


async def _classify_all(
    files: list[Path], url: str, top_k: int | None, concurrency: int, timeout_s: float, as_json: bool
) -> list[Outcome]:
    """In the order of `files`. As JSON each outcome is printed as soon as it is known, in that order too."""
    outcomes = []
    # On stderr, and only where a person looks: a redirected stdout stays clean.
    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        bar = progress.add_task("classifying", total=len(files))
        async for outcome in _stream(files, url, top_k, concurrency, timeout_s):
            progress.advance(bar)
            outcomes.append(outcome)
            if as_json:
                print(outcome.as_json(), flush=True)
    return outcomes


async def _stream(
    files: list[Path], url: str, top_k: int | None, concurrency: int, timeout_s: float
) -> AsyncIterator[Outcome]:
    endpoint = f"{url.rstrip('/')}/v1/classify" + (f"?top_k={top_k}" if top_k else "")
    slots = asyncio.Semaphore(concurrency)
    timeout = aiohttp.ClientTimeout(total=timeout_s)
    async with aiohttp.ClientSession(timeout=timeout, headers=authorization()) as session:

        async def bounded(path: Path) -> Outcome:
            async with slots:
                return await _classify_one(session, endpoint, path)

        tasks = [asyncio.create_task(bounded(path)) for path in files]
        for task in tasks:
            yield await task


async def _classify_one(session: aiohttp.ClientSession, endpoint: str, path: Path) -> Outcome:
    try:
        data = await asyncio.to_thread(path.read_bytes)
        async with session.post(endpoint, data=data) as response:
            text = await response.text(errors="replace")
            status = response.status
    except TimeoutError:  # an OSError too, but one without words
        return Outcome(path, [], "no answer in time")
    except aiohttp.ClientConnectorCertificateError:  # an OSError too
        return Outcome(path, [], tls.UNTRUSTED)
    except OSError as error:  # a file that cannot be read, a service that cannot be reached
        return Outcome(path, [], error.strerror or str(error))
    except aiohttp.ClientError as error:
        return Outcome(path, [], str(error) or type(error).__name__)
    try:
        answer = json.loads(text)
        if status == 200:
            return Outcome(path, answer["images"][0]["classes"], None)
        return Outcome(path, [], f"{status}: {answer['error']}")
    except (ValueError, TypeError, LookupError):  # not our service, or a proxy in front of it
        return Outcome(path, [], f"{status}: {text[:200].strip() or 'no answer'}")


def _print_table(outcomes: list[Outcome]) -> None:
    table = Table("file", "class", "score", "then")
    for outcome in outcomes:
        if outcome.error:
            table.add_row(Text(str(outcome.path)), Text(outcome.error, "red"), "", "")
        else:
            best, *others = outcome.classes
            then = ", ".join(f"{c['label']} {c['score']:.2f}" for c in others)
            table.add_row(Text(str(outcome.path)), Text(best["label"]), f"{best['score']:.3f}", Text(then))
    failed = sum(outcome.error is not None for outcome in outcomes)
    table.caption = f"{len(outcomes) - failed} classified, {failed} failed"
    Console().print(table)
