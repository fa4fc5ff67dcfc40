"""Findings about a config file, for a person."""

from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.markup import escape

from serve_app.config_file import Finding

COLOURS = {"error": "red", "warning": "yellow"}


def visible_gpus() -> int | None:
    """CUDA devices of this machine; None without any, as the file may be meant for another machine."""
    return torch.cuda.device_count() or None


def print_findings(path: Path, findings: Sequence[Finding], console: Console | None = None) -> None:
    console = console or Console()
    for finding in findings:
        level = f"[{COLOURS[finding.level]}]{finding.level}[/]"
        console.print(f"{level} [bold]{escape(finding.key)}[/]: {escape(finding.message)}", soft_wrap=True)
    errors = sum(finding.level == "error" for finding in findings)
    verdict = "[green]valid[/]" if not errors else f"[red]{errors} error{'s' * (errors > 1)}[/]"
    console.print(f"{escape(str(path))}: {verdict}", soft_wrap=True)
