"""The certificate of a service: whether it can be served, and what names it has. Ray's `http_options: ssl_*`."""

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from serve_app.config import ConfigError

CERTIFICATE, KEY = "ssl_certfile", "ssl_keyfile"
PASSWORD, CLIENTS_CA = "ssl_keyfile_password", "ssl_ca_certs"
OPTIONS = (CERTIFICATE, KEY, PASSWORD, CLIENTS_CA)
UNTRUSTED = "its certificate cannot be verified; name the file of its CA in SSL_CERT_FILE"
"""For clients. Python's and aiohttp's contexts take OpenSSL's own variable, instead of the system's authorities."""


def is_on(http_options: Mapping[str, Any]) -> bool:
    """As Ray has it."""
    return bool(http_options.get(CERTIFICATE) and http_options.get(KEY))


def without(http_options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in http_options.items() if key not in OPTIONS}


def names(certificate: Path, key: Path, password: str | None = None) -> list[str]:
    """Hosts, some with a `*`, and IP addresses that the certificate speaks for, after both have served a client.

    Raises ConfigError: they cannot be read, do not belong together, are out of date, or speak for nobody.
    """
    try:
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(certificate, key, password=password or "")
        peer = _shaken_hands(server, pinned(certificate))
    except ssl.SSLCertVerificationError as error:
        raise ConfigError(f"{certificate}: {error.verify_message}") from None
    except ssl.SSLError as error:
        raise ConfigError(f"{certificate}, {key}: {error.reason or error}: PEM files that belong together?") from None
    except OSError as error:
        raise ConfigError(f"{certificate}, {key}: {error.strerror}") from None
    found = [value for kind, value in peer.get("subjectAltName", ()) if kind in ("DNS", "IP Address")]
    if not found:
        raise ConfigError(f"{certificate}: it speaks for no host, as it has no subjectAltName, and no client takes it")
    return found


def pinned(certificate: Path) -> ssl.SSLContext:
    """A client's, which takes this certificate alone, under whatever name. Raises OSError, of which SSLError is one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(certificate)
    return context


def _shaken_hands(server: ssl.SSLContext, client: ssl.SSLContext) -> Mapping[str, Any]:
    """The server's certificate, as the client has found it good. In memory."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    unfinished = [server.wrap_bio(to_server, to_client, server_side=True), client.wrap_bio(to_client, to_server)]
    peer = unfinished[1]
    for _ in range(10):  # more often than TLS has turns
        unfinished = [end for end in unfinished if not _is_done(end)]
    found = peer.getpeercert() if not unfinished else None
    if not found:
        raise ssl.SSLError("no handshake")
    return found


def _is_done(end: ssl.SSLObject) -> bool:
    try:
        end.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True
