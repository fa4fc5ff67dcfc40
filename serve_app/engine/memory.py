"""Whether it was for want of memory that a device failed."""

import torch

WORDS = ("can't allocate memory", "out of memory", "ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """torch has a class for CUDA's own; CUDA's libraries and the CPU's allocator say so in words."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(words in str(error) for words in WORDS)
