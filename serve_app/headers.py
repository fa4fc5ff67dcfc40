"""What a request's headers ask for, or its metadata over gRPC: the same names, the same meaning."""

import re
from collections.abc import Mapping
from uuid import uuid4

from serve_app.errors import BadParameter
from serve_app.scheduler import Priority

REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
TIMEOUT_HEADER = "x-request-timeout-seconds"
"""Ray Serve's own: when it has passed, Ray cancels the request (_private/constants.py)."""
PRIORITY_HEADER = "x-request-priority"
PLAIN_NUMBER = re.compile(r"[0-9]{1,9}(\.[0-9]{0,9})?|\.[0-9]{1,9}")


def wishes(headers: Mapping[str, str]) -> tuple[float | None, Priority | None]:
    """The timeout in seconds and the priority that the headers ask for. Raises BadParameter."""
    timeout = headers.get(TIMEOUT_HEADER)
    if timeout is not None and not (PLAIN_NUMBER.fullmatch(timeout) and float(timeout) > 0):
        raise BadParameter(f"{TIMEOUT_HEADER} must be a number of seconds above 0 and below 1,000,000,000, e.g. 0.25")
    priority = headers.get(PRIORITY_HEADER)
    if priority is not None and priority.upper() not in Priority.__members__:
        raise BadParameter(f"{PRIORITY_HEADER} must be one of {', '.join(Priority.__members__).lower()}")
    return None if timeout is None else float(timeout), None if priority is None else Priority[priority.upper()]


def plain_id(given: str) -> str:
    """The client's id where it is a plain word, else a new one."""
    return given if REQUEST_ID.fullmatch(given) else uuid4().hex
