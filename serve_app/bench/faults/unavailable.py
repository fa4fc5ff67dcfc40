"""What this machine cannot do."""


class Unavailable(RuntimeError):
    """An event cannot be played on this machine; the message says what is missing, and where it is to be had."""
