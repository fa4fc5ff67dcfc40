"""What happens in the scheduler, told to whoever counts it; nothing here does anything."""


class Observer:
    """Each method is called once for each event, on the event loop. Times in seconds."""

    def queued(self, seconds: float) -> None:
        """An image went to the device, after it had waited this long for it."""

    def executed(self, bucket: int, predicted_s: float, actual_s: float) -> None:
        """The device ran a batch of this bucket: what was predicted, and what it took."""

    def refused(self, reason: str) -> None:
        """An image was refused at the door; the reason is the code of its error."""

    def expired(self) -> None:
        """An image was dropped before the device, for its deadline could not be met any more."""

    def departed(self) -> None:
        """An image was dropped before the device, for its caller had gone (or failed elsewhere)."""

    def missed(self) -> None:
        """An image was answered after its deadline."""

    def split(self) -> None:
        """A batch failed as a whole and is run again in two parts."""

    def lingered(self) -> None:
        """A batch has been on the device for a good part of the time after which the device counts as hanging."""
