"""What is a pair of certificate and key that can be served."""

from collections.abc import Callable
from pathlib import Path

import pytest

from serve_app import tls
from serve_app.config import ConfigError
from tests.certificates import Authority, Pair


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def test_a_certificate_tells_whom_it_speaks_for(authority: Authority) -> None:
    pair = authority.signed("photos", "photos.example", "*.photos.example", "127.0.0.1")
    assert tls.names(pair.certificate, pair.key) == ["photos.example", "*.photos.example", "127.0.0.1"]


def test_a_key_may_have_a_password(authority: Authority) -> None:
    pair = authority.signed("photos", "photos.example", password="sesame")
    assert tls.names(pair.certificate, pair.key, "sesame") == ["photos.example"]
    for wrong in ("other", None):  # never asked for at a terminal
        with pytest.raises(ConfigError):
            tls.names(pair.certificate, pair.key, wrong)


def without_key(pair: Pair, _: Authority) -> Pair:
    return Pair(pair.certificate, pair.key.with_name("none"))


def of_another(pair: Pair, authority: Authority) -> Pair:
    return Pair(pair.certificate, authority.signed("other", "other").key)


def no_pem(pair: Pair, _: Authority) -> Pair:
    pair.certificate.write_text("certificate")
    return pair


def for_nobody(_: Pair, authority: Authority) -> Pair:
    return authority.signed("nobody")


def out_of_date(_: Pair, authority: Authority) -> Pair:
    return authority.signed("old", "photos.example", days=-1)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        (without_key, "No such file or directory"),
        (of_another, "KEY_VALUES_MISMATCH"),
        (no_pem, "belong together"),
        (out_of_date, "certificate has expired"),
        (for_nobody, "speaks for no host"),
    ],
)
def test_what_cannot_be_served_says_why(
    authority: Authority, changed: Callable[[Pair, Authority], Pair], reason: str
) -> None:
    pair = changed(authority.signed("photos", "photos.example"), authority)
    with pytest.raises(ConfigError, match=reason):
        tls.names(pair.certificate, pair.key)


def test_tls_is_on_with_both_files_as_in_ray() -> None:
    assert tls.is_on({"ssl_certfile": "/c", "ssl_keyfile": "/k"})
    assert not tls.is_on({"ssl_certfile": "/c"})
    assert tls.without({"ssl_certfile": "/c", "ssl_ca_certs": "/a", "port": 1}) == {"port": 1}
