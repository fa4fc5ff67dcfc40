"""The most memory that a call holds at once, as the kernel counts it.

Not by `ru_maxrss`: a process that was forked has its parent's peak from the start, through exec too.
"""

import re
from collections.abc import Callable
from pathlib import Path


def peak_mib(call: Callable[[], object]) -> float:
    """Beyond what this process holds already."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak is what is held now
    before = _mib("VmRSS")
    call()
    return _mib("VmHWM") - before


def _mib(name: str) -> float:
    [kib] = re.findall(rf"^{name}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(kib) / 1024
