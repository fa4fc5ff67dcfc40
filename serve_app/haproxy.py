"""HAProxy, started as Ray starts it, with a configuration that opens to others what the service wants open.

Ray 2.60's own (ray/serve/_private/haproxy_templates.py) has statistics and metrics on every interface, an admin socket
for everybody on the machine, and no TLS; there is no setting for any of it. There is one for the program that Ray runs
as HAProxy: a script of `serve-app run` (cli/haproxy.py) which runs this file, and that corrects the configuration Ray
has just written and becomes HAProxy. Where Ray's words are not those known here, nothing starts.

Runs on its own, at every reload: nothing but the standard library is imported.
"""

import json
import os
import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

LOOPBACK = "127.0.0.1"
"""What Ray is told as `http_options.host` (cli/haproxy.py): replicas and its own proxy listen there."""
EVERY_INTERFACE = ("0.0.0.0", "::", "")  # noqa: S104 - as a config has it
BIND = re.compile(r"^(?P<indent> *)bind (?P<host>\S*?)(?P<port>:\d+)?(?P<rest>| .*)$", re.MULTILINE)
SOCKET = re.compile(r"^(?P<before> *stats socket \S+ mode )666 ", re.MULTILINE)
HTTP, GRPC, METRICS, STATISTICS = (LOOPBACK, ""), (LOOPBACK, " proto h2"), ("", ""), ("*", "")
"""Host and rest of each address, as Ray writes it."""
TLS = " ssl crt {pem} ssl-min-ver TLSv1.2 alpn {alpn}"


class UnknownConfigurationError(Exception):
    """Ray writes another one than it did."""


@dataclass(frozen=True)
class Settings:
    """What `serve-app run` wants of HAProxy."""

    binary: str
    """HAProxy itself."""
    host: str
    """Where clients may call: `http_options.host`."""
    pem: str | None = None
    """The certificate, and those that lead to its CA; the key is in a file of this name and `.key`. None: no TLS."""


def main(arguments: Sequence[str]) -> None:
    """SETTINGS.json, and what Ray would tell HAProxy. Does not return where it starts."""
    settings_path, *told = arguments
    settings = Settings(**json.loads(Path(settings_path).read_text()))
    if "-f" in told:
        path = Path(told[told.index("-f") + 1])
        path.write_text(corrected(path.read_text(), settings))
    os.execv(settings.binary, [settings.binary, *told])  # noqa: S606 - in its place: Ray knows HAProxy by its pid


def corrected(configuration: str, settings: Settings) -> str:
    """Ray's configuration, with requests taken at the host that is wanted, by TLS or not, and the rest closed.

    Raises UnknownConfigurationError.
    """
    public = "*" if settings.host in ("0.0.0.0", "") else settings.host  # noqa: S104 - as a config has it
    http, grpc = (TLS.format(pem=settings.pem, alpn=alpn) if settings.pem else "" for alpn in ("http/1.1", "h2"))
    addresses = {
        HTTP: (public, http),
        GRPC: (public, f" proto h2{grpc}"),
        METRICS: (LOOPBACK, ""),
        STATISTICS: (LOOPBACK, ""),
    }
    found = Counter((each["host"], each["rest"]) for each in BIND.finditer(configuration))
    if found not in (Counter((HTTP, METRICS, STATISTICS)), Counter(addresses.keys())):
        raise UnknownConfigurationError(f"it listens at {[each[0].strip() for each in BIND.finditer(configuration)]}")

    def address(each: re.Match[str]) -> str:
        at, rest = addresses[each["host"], each["rest"]]
        return f"{each['indent']}bind {at}{each['port']}{rest}"

    text, sockets = SOCKET.subn(r"\g<before>600 ", BIND.sub(address, configuration))
    if sockets != 1:
        raise UnknownConfigurationError(f"it has {sockets} admin sockets of mode 666")
    return text


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (UnknownConfigurationError, OSError) as error:
        # Ray shows it: "HAProxy crashed during startup: ...".
        sys.exit(
            f"HAProxy's configuration cannot be made safe: {error}. Use a Ray this was made for, or Ray's ordinary "
            "proxy: RAY_SERVE_ENABLE_HA_PROXY=0"
        )
