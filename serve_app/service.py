"""What HTTP and gRPC need from a replica. Tests implement it without Ray, the deployment with."""

from dataclasses import dataclass
from typing import Any, Protocol

from serve_app.config import Args
from serve_app.decode import Pixels
from serve_app.engine.base import Normalised, Prediction
from serve_app.protocol.signature import Signature
from serve_app.protocol.statistics import Statistics
from serve_app.scheduler import Priority, Terms


@dataclass(frozen=True)
class Classification:
    """One image's prediction, and where its time went."""

    prediction: Prediction
    decode_ms: float
    """Waiting for a decode thread and decoding."""
    queue_ms: float
    """From decoded to released as part of a batch."""


class Service(Protocol):
    @property
    def args(self) -> Args: ...

    @property
    def ready(self) -> bool:
        """Whether every batch size has been warmed."""
        ...

    @property
    def default_top_k(self) -> int: ...

    @property
    def max_top_k(self) -> int: ...

    @property
    def model_name(self) -> str: ...

    @property
    def labels(self) -> tuple[str, ...]: ...

    @property
    def replica(self) -> str:
        """Which replica answers: its id, without host or path."""
        ...

    @property
    def signature(self) -> Signature:
        """The tensors that the model takes and gives."""
        ...

    @property
    def statistics(self) -> Statistics:
        """What this replica has done since it started."""
        ...

    def metadata(self) -> dict[str, Any]:
        """The model as JSON: the checkpoint's account of itself, and where it runs."""
        ...

    def authorize(self, authorization: str | None) -> None:
        """Raise Unauthorized or RateLimited for a caller with this `Authorization` header, if tokens are asked for."""
        ...

    def terms(self, timeout_s: float | None, priority: Priority) -> Terms:
        """Those of a request that has just come; the deadline is the server's where the client names none."""
        ...

    def check_admission(self, terms: Terms) -> None:
        """Raise RequestError if an image of these terms would be refused now."""
        ...

    async def classify(self, image: bytes | Pixels | Normalised, terms: Terms) -> Classification:
        """Admit, decode what is encoded, batch, infer. Raises RequestError for what the client can mend."""
        ...
