"""Where and with what a figure was taken: a figure without it is worth little."""

import os
import platform
import shlex
import sys
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from serve_app.config import ConfigError

CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")
PACKAGES = ("serve-app", "torch", "torchvision", "ray", "pillow", "aiohttp")


def facts() -> dict[str, Any]:
    """The machine, the versions, the command and the day, for a report."""
    return {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "date": date.today().isoformat(),
        "machine": {
            "cpu": _cpu_model(),
            "cores": num_cores(),
            "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
            "gpus": gpus(),
        },
        "versions": {"python": platform.python_version(), **_versions()},
    }


def num_cores() -> int:
    """The cores that this process may use: by its affinity, and a container's by its quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = CPU_QUOTA.read_text().split()
        return max(1, min(cores, int(quota) // int(period)))
    except (OSError, ValueError):  # no cgroup v2, or "max"
        return cores


def stolen_s() -> float:
    """CPU seconds since the start that the host of this virtual machine gave to others; 0 where nobody tells."""
    return float(getattr(psutil.cpu_times(), "steal", 0.0))


def cores_taken(seconds: float = 0.5) -> float:
    """How many of our cores other programs have taken, looked at for `seconds`, in which we do nothing.

    On a large machine a few busy cores take none: only what is missing from `num_cores()` counts.
    """
    cores = psutil.cpu_count() or 1
    busy = psutil.cpu_percent(interval=seconds) / 100 * cores
    return max(0.0, num_cores() - (cores - busy))


def gpus() -> list[str]:
    """The names of the CUDA devices."""
    import torch

    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]


def resolved_device(name: str) -> str:
    """`cpu` or `cuda:0` for `auto`, `cpu`, `cuda` or `cuda:0`. Raises ConfigError if it is not there."""
    import torch

    available = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if name == "auto":
        return available[1] if len(available) > 1 else "cpu"
    name = "cuda:0" if name == "cuda" else name
    if name not in available:
        raise ConfigError(f"--device {name}: there is none here; there is {', '.join(available)}")
    return name


def phrase(facts: dict[str, Any]) -> str:
    """One line for a table's caption: `2 cores of Intel(R) Xeon(R), torch 2.15.0, ray 2.60.0, 2026-11-21`."""
    machine, versions = facts["machine"], facts["versions"]
    devices = [f"{machine['cores']} cores of {machine['cpu']}", *machine["gpus"]]
    packages = [f"{name} {versions[name].split('+')[0]}" for name in ("torch", "ray") if name in versions]
    return ", ".join([*devices, *packages, facts["date"]])


def _cpu_model() -> str:
    """The processor's name, where the system tells (Linux)."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
