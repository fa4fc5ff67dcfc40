"""`serve-app bench fuzz-decode`: the decoder, fuzzed by its coverage."""

from importlib.util import find_spec
from pathlib import Path

import click

from serve_app.bench import bars, machine
from serve_app.bench.bars import Check
from serve_app.bench.torture.decode_fuzz import Campaign, campaign
from serve_app.cli.bench import output
from serve_app.cli.bench.checks import CHECK_HEADER, check_cells

LAST_LINES = 20
EXECUTIONS_PER_S = 10
"""At least; some hundred are usual. What stands still finds nothing either."""


def run(*, seconds: int, seed: int, folder: Path, as_json: bool) -> int:
    """Fuzz and print; the exit status."""
    if find_spec("atheris") is None:
        raise click.UsageError("it needs atheris: pip install 'serve-app[torture]'")
    last: list[str] = []

    def said(line: str) -> None:
        last.append(line)
        del last[:-LAST_LINES]
        if line.startswith("#"):
            output.stderr.print(line, markup=False, soft_wrap=True)

    found = campaign(folder, seconds, seed, said)
    if not found.executions:
        output.fail("\n".join(["atheris did not run:", *last]), 2)
    checks = _checks(found, seconds)
    if as_json:
        report = {**machine.facts(), "seconds": seconds, **found.as_dict(), "checks": [c.as_dict() for c in checks]}
        output.print_json(report)
    else:
        _print(found, checks, seconds)
    return bars.exit_status(checks)


def _checks(found: Campaign, seconds: int) -> list[Check]:
    ended = 0 if found.status == 0 else 1
    return [
        Check("inputs that ended it", max(ended, len(found.findings)), "<=", 0, note=", ".join(found.findings)),
        Check("executions", found.executions, ">=", EXECUTIONS_PER_S * seconds),
    ]


def _print(found: Campaign, checks: list[Check], seconds: int) -> None:
    figures = (("executions", found.executions), ("edges", found.coverage), ("features", found.features))
    rows = [[name, f"{number:,}"] for name, number in (*figures, ("corpus", found.corpus))]
    caption = f"{seconds} s, seed {found.seed}\n{machine.phrase(machine.facts())}"
    output.print_table(("decoder", ""), rows, caption=caption)
    output.print_table(CHECK_HEADER, check_cells(checks))
