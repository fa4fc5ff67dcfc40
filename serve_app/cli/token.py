"""`serve-app token`: a new token for its caller, and for the service what it is to know of it."""

import json
import math
import sys
from pathlib import Path

from serve_app.config import ConfigError
from serve_app.tokens import add, create


def make(name: str, rate_per_s: float | None, path: Path | None, as_json: bool) -> int:
    """Print a token and return the exit status."""
    try:
        token, caller = create(name, math.inf if rate_per_s is None else rate_per_s)
        if path is not None:
            add(path, caller)
    except (ConfigError, OSError, UnicodeDecodeError) as error:
        print(f"no token was made: {error}", file=sys.stderr)
        return 2
    if as_json:
        print(json.dumps({"name": name, "token": token, "line": caller.line()}))
        return 0
    print(token)
    if path is None:
        print(caller.line(), file=sys.stderr)
    return 0
