"""Findings about a config file or a KubeRay manifest, for a person."""

from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.markup import escape

from serve_app import config_file, manifest
from serve_app.config_file import Finding, Resources

COLOURS = {"error": "red", "warning": "yellow"}


def visible_gpus() -> int | None:
    """CUDA devices of this machine; None without any, as the file may be meant for another machine."""
    return torch.cuda.device_count() or None


def findings_of(path: Path, gpus: int | None, cpus: int | None) -> list[Finding]:
    """What is wrong with the file on a cluster of so many; None: as the pods of a manifest, or this machine, have.

    Raises ConfigError if it cannot be read.
    """
    documents = config_file.read_documents(path)
    if manifest.is_manifest(documents):
        return manifest.check(documents, Resources(gpus=gpus, cpus=cpus))
    content = config_file.read(path)
    return config_file.check(content, Resources(gpus=visible_gpus() if gpus is None else gpus, cpus=cpus))


def print_findings(path: Path, findings: Sequence[Finding], console: Console | None = None) -> None:
    console = console or Console()
    for finding in findings:
        level = f"[{COLOURS[finding.level]}]{finding.level}[/]"
        console.print(f"{level} [bold]{escape(finding.key)}[/]: {escape(finding.message)}", soft_wrap=True)
    errors = sum(finding.level == "error" for finding in findings)
    verdict = "[green]valid[/]" if not errors else f"[red]{errors} error{'s' * (errors > 1)}[/]"
    console.print(f"{escape(str(path))}: {verdict}", soft_wrap=True)
