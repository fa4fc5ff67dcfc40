"""The GPU and its software, for the head of the report."""

import subprocess
from typing import Any

import torch

QUERY = ("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
TIMEOUT_S = 20


def facts(device: str) -> dict[str, Any] | None:
    """Name, memory, driver and CUDA of `cuda:0`, say; None of what is no GPU."""
    if not device.startswith("cuda"):
        return None
    properties = torch.cuda.get_device_properties(device)
    return {
        "name": properties.name,
        "memory_gib": round(properties.total_memory / 2**30, 1),
        "capability": f"{properties.major}.{properties.minor}",
        "driver": _driver(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }


def _driver() -> str | None:
    """None where nobody tells."""
    try:
        told = subprocess.run(QUERY, capture_output=True, text=True, timeout=TIMEOUT_S, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None
    return told.stdout.partition("\n")[0].strip() or None
