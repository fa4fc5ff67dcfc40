"""Who may call: bearer tokens, of which a service knows only hashes.

One caller a line, in a file or an environment variable: a name, the SHA-256 of the token, and if wanted how many
requests a second each replica takes of it:

    birds-app 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 50

`serve-app token NAME` makes both. A plain SHA-256 is enough for 256 random bits: a slow hash protects words that
people choose, and would cost every request.
"""

import fcntl
import hashlib
import hmac
import logging
import math
import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from serve_app.config import ConfigError
from serve_app.errors import RateLimited, Unauthorized

logger = logging.getLogger("ray.serve")

VARIABLE = "SERVE_APP_TOKENS"
"""Of a replica's environment: the lines of a file, or separated by commas."""
CLIENT_VARIABLE = "SERVE_APP_TOKEN"
"""Of the commands that call a service: the token they send."""
PREFIX = "sa_"
"""So that scanners of code and logs know one when they see it."""
TOKEN_BYTES = 32
MAX_CALLERS = 256
"""Each is compared with, at every request: 0.1 us a caller."""
MAX_TOKEN_LENGTH = 512
RELOAD_S = 1.0
"""How often the file is looked at; Kubernetes itself takes a minute to change a mounted secret."""
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
LINE = re.compile(rf"(?P<name>{NAME}) (?P<digest>[0-9a-f]{{64}})(?: (?P<rate>[0-9.]{{1,9}}))?")
HEADER = re.compile(rf"bearer +([A-Za-z0-9._~+/=-]{{1,{MAX_TOKEN_LENGTH}}})", re.IGNORECASE)


@dataclass(frozen=True)
class Caller:
    name: str
    digest: bytes
    """SHA-256 of its token."""
    rate_per_s: float = math.inf
    """Requests that each replica takes of it; a second's worth at once."""

    def line(self) -> str:
        rate = "" if math.isinf(self.rate_per_s) else f" {self.rate_per_s:.3f}".rstrip("0").rstrip(".")
        return f"{self.name} {self.digest.hex()}{rate}"


def create(name: str, rate_per_s: float = math.inf) -> tuple[str, Caller]:
    """A new token, and what a service is to know of it. Raises ConfigError where no line could say it."""
    if not re.fullmatch(NAME, name):
        raise ConfigError("a name has 1 to 64 letters, digits, dots, hyphens and underscores, and begins with no sign")
    if not (math.isinf(rate_per_s) or 0.001 <= rate_per_s <= 100_000):
        raise ConfigError("requests/s: from 0.001 to 100,000")
    token = PREFIX + secrets.token_urlsafe(TOKEN_BYTES)
    return token, Caller(name, _digest(token), rate_per_s)


def parse(text: str) -> tuple[Caller, ...]:
    """The callers of a file or a variable. Raises ConfigError, which never repeats a line: it may be a token."""
    callers = []
    for number, raw in enumerate(re.split(r"[\n,]", text), 1):
        line = " ".join(raw.partition("#")[0].split())
        if line:
            callers.append(_caller(line, number))
    if not callers:
        raise ConfigError("there is no token: nobody could call; make one with `serve-app token NAME`")
    if len(callers) > MAX_CALLERS:
        raise ConfigError(f"there are {len(callers)} tokens; at most {MAX_CALLERS}")
    if len({caller.name for caller in callers}) < len(callers):
        raise ConfigError("a name occurs twice: give each token a name of its own")
    return tuple(callers)


def read(path: Path) -> tuple[Caller, ...]:
    """Raises ConfigError."""
    try:
        return parse(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is no text"
        raise ConfigError(f"tokens_file {path}: {reason}") from None
    except ConfigError as error:
        raise ConfigError(f"tokens_file {path}: {error}") from None


def add(path: Path, caller: Caller) -> None:
    """To a file, which need not be there yet. Raises ConfigError where it has that name, or says nothing sensible."""
    path = path.resolve()  # through a link, which stays
    with _locked(path.parent):
        _add(path, f"{caller.line()}\n")


def _add(path: Path, line: str) -> None:
    before = path.read_text() if path.exists() else ""
    if before and not before.endswith("\n"):
        before += "\n"
    try:
        parse(before + line)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    # In one step: a service that looks meanwhile sees the old file or the new one.
    new = path.with_name(f".{path.name}.new")
    new.touch(mode=0o600)
    new.write_text(before + line)
    if path.exists():
        found = path.stat()
        new.chmod(found.st_mode)
        os.chown(new, found.st_uid, found.st_gid)  # or the service could not read it any more
    new.replace(path)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Two that add a line at once would lose one of them."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def authorization() -> dict[str, str]:
    """The header with the token in this process's environment, if there is one."""
    token = os.environ.get(CLIENT_VARIABLE)
    return {"authorization": f"Bearer {token}"} if token else {}


def check(tokens_file: str | None) -> None:
    """Raises ConfigError for a file that no replica could start with, where its folder is on this machine."""
    if tokens_file is not None and Path(tokens_file).parent.is_dir():
        read(Path(tokens_file))


def _caller(line: str, number: int) -> Caller:
    found = LINE.fullmatch(line)
    if found is None:
        raise ConfigError(f"line {number} is not `NAME SHA256 [REQUESTS/S]`; `serve-app token NAME` writes such a line")
    try:
        rate_per_s = float(found["rate"] or "inf")
    except ValueError:
        rate_per_s = 0.0
    if rate_per_s <= 0:
        raise ConfigError(f"line {number}: requests/s must be a number above 0")
    return Caller(found["name"], bytes.fromhex(found["digest"]), rate_per_s)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


@dataclass
class _Bucket:
    """What a caller may still send: a second's worth at most, refilled all the time."""

    rate_per_s: float
    filled_at: float
    tokens: float = field(init=False)

    def __post_init__(self) -> None:
        self.tokens = self._size

    @property
    def _size(self) -> float:
        return max(1.0, self.rate_per_s)

    def take(self, now: float) -> float:
        """0, or after how many seconds to try again."""
        self.tokens = min(self._size, self.tokens + (now - self.filled_at) * self.rate_per_s)
        self.filled_at = now
        if self.tokens < 1:
            return (1 - self.tokens) / self.rate_per_s
        self.tokens -= 1
        return 0.0


class Keyring:
    """The callers of a service, kept up to date with its file. In one thread only."""

    def __init__(self, path: Path | None, variable: str | None, now: Callable[[], float] = monotonic) -> None:
        """`variable`: the content of VARIABLE. With neither everybody may call. Raises ConfigError: who asked for
        tokens does not get an open service."""
        self._path = path
        self._fixed: Sequence[Caller] = () if variable is None else parse(variable)
        self._now = now
        self._buckets: dict[str, _Bucket] = {}
        self._looked_at = now()
        self._seen = self._stamp()
        self._refusal: str | None = None
        self._callers: Sequence[Caller] = (*self._fixed, *(read(path) if path else ()))
        self._names_differ(self._callers)

    @property
    def is_open(self) -> bool:
        return not self._callers

    def admit(self, authorization: str | None) -> str | None:
        """The name of the caller with this header (RFC 6750), None where everybody may call.

        Raises Unauthorized, or RateLimited.
        """
        self._keep_up()
        if self.is_open:
            return None
        caller = self._find(authorization)
        if not math.isinf(caller.rate_per_s):
            self._charge(caller)
        return caller.name

    def _find(self, authorization: str | None) -> Caller:
        if authorization is None:
            raise Unauthorized("a token is needed: send the header `Authorization: Bearer TOKEN`")
        given = HEADER.fullmatch(authorization)
        digest = _digest(given[1] if given else "")
        # All of them, whichever it is: how long it takes says nothing.
        matches = [caller for caller in self._callers if hmac.compare_digest(caller.digest, digest)]
        if given is None or not matches:
            raise Unauthorized("this token is not known here: it may be another service's, or have been withdrawn")
        return matches[0]

    def _charge(self, caller: Caller) -> None:
        now = self._now()
        bucket = self._buckets.get(caller.name)
        if bucket is None or bucket.rate_per_s != caller.rate_per_s:
            bucket = self._buckets[caller.name] = _Bucket(caller.rate_per_s, now)
        if wait_s := bucket.take(now):
            raise RateLimited(f"more than the {caller.rate_per_s:g} requests/s of this token: try again later", wait_s)

    def _keep_up(self) -> None:
        """A file that cannot be read, or says nothing, changes nothing: a slip does not end the service."""
        now = self._now()
        if self._path is None or now - self._looked_at < RELOAD_S:
            return
        self._looked_at = now
        if (stamp := self._stamp()) == self._seen:
            return
        try:
            callers = (*self._fixed, *read(self._path))
            self._names_differ(callers)
        except ConfigError as error:
            # Not seen: it may have been a moment without descriptors, and a token that is withdrawn has to go.
            if (refusal := str(error)) != self._refusal:
                logger.error("The new tokens are refused, the old ones stay in force: %s", refusal)
            self._refusal = refusal
            return
        self._seen, self._refusal = stamp, None
        self._callers = callers
        self._buckets = {c.name: self._buckets[c.name] for c in callers if c.name in self._buckets}
        logger.info("Tokens of %d callers: %s", len(callers), ", ".join(c.name for c in callers))

    def _stamp(self) -> tuple[int, int, int] | None:
        """What differs when the file does; Kubernetes swaps a link."""
        if self._path is None:
            return None
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    @staticmethod
    def _names_differ(callers: Iterable[Caller]) -> None:
        names = [caller.name for caller in callers]
        if len(set(names)) < len(names):
            raise ConfigError(f"a name occurs in tokens_file and in {VARIABLE}: give each token one of its own")
