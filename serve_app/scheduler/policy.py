"""What of the scheduler may be changed while it runs."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Policy:
    """From `user_config`; times in seconds."""

    max_batch_size: int
    batch_wait_timeout_s: float = 0.0
    """For how long a *free* device lets the oldest image wait for company."""
    max_queue_size: int = 1 << 30
    """Images that may be inside and not yet on the device; half of them of the lower priority."""
    latency_slo_s: float | None = None
    """A batch, and another one before it, are to take no longer: the batch size follows from t(n)."""
