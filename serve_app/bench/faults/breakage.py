"""What an engine may be told to do, by a file of its process."""

from enum import Enum
from pathlib import Path

MEMORY_FOR = 2
"""Images in a batch that the device has memory for, while it says MEMORY."""


class Breakage(Enum):
    RAISE = "raise"
    HANG = "hang"
    NAN = "nan"
    MEMORY = "memory"


def breakage_of(folder: Path, pid: int) -> Path:
    """The file that the engine of this process obeys: one word, the value of a Breakage."""
    return folder / f"breakage-{pid}"


def put(path: Path, breakage: Breakage) -> None:
    """At once: the engine that obeys may be reading it."""
    new = path.with_name(f"{path.name}.new")
    new.write_text(breakage.value)
    new.replace(path)


def mark_of(path: Path) -> Path:
    """What the engine that obeys leaves there when it runs out of memory: nobody else sees that it did."""
    return path.with_name(f"{path.name}-failed")
