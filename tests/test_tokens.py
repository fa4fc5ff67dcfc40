"""Who may call: what a file says, who is let in, and when it changes."""

import errno
import hashlib
import logging
import os
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.config import ConfigError
from serve_app.errors import RateLimited, Unauthorized
from serve_app.tokens import MAX_CALLERS, RELOAD_S, Caller, Keyring, create, parse, read

DIGEST = hashlib.sha256(b"t").hexdigest()


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tokens"


def written(path: Path, *names: str, rate: float = float("inf")) -> list[str]:
    """The tokens of those callers, with whom `path` is written anew."""
    made = [create(name, rate) for name in names]
    new = path.with_suffix(".new")
    new.write_text("".join(f"{caller.line()}\n" for _, caller in made))
    os.replace(new, path)
    return [token for token, _ in made]


def bearer(token: str) -> str:
    return f"Bearer {token}"


# --- what a file says --------------------------------------------------------------------------------


def test_a_line_is_a_name_a_hash_and_a_rate() -> None:
    text = f"# who may call\n\nbirds {DIGEST}  # the app\nbatch\t{DIGEST}   2.5\n"
    digest = bytes.fromhex(DIGEST)
    assert parse(text) == (Caller("birds", digest), Caller("batch", digest, 2.5))
    assert parse(f"a {DIGEST},b {DIGEST}") == (Caller("a", digest), Caller("b", digest))


@pytest.mark.parametrize(
    "text",
    [
        *("", "# nobody\n", "sa_secret", f"birds {DIGEST[:-1]}", f"birds {DIGEST}0", f"birds {DIGEST} much"),
        *(f"birds {DIGEST} 0", f"birds {DIGEST} 1.2.3", f"birds {DIGEST} -1", f"two words {DIGEST}"),
        *(f"birds {DIGEST}\nbirds {DIGEST}", "\n".join(f"c{i} {DIGEST}" for i in range(MAX_CALLERS + 1))),
        f"birds {DIGEST.upper()}",
    ],
)
def test_anything_else_is_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse(text)
    assert not [word for word in text.split() if len(word) > 8 and word in str(refused.value)]


@given(st.text(max_size=200))
def test_no_text_breaks_it(text: str) -> None:
    with suppress(ConfigError):
        assert parse(text)


def test_a_file_that_is_not_there_or_no_text_is_named(path: Path) -> None:
    with pytest.raises(ConfigError, match=f"{path}: No such file"):
        read(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=f"{path}: is no text"):
        read(path)


def test_a_token_is_new_each_time_and_its_line_does_not_hold_it() -> None:
    tokens = {create("birds")[0] for _ in range(100)}
    assert len(tokens) == 100
    token, caller = create("birds", 5)
    assert token not in caller.line()
    assert parse(caller.line()) == (caller,)
    assert caller.digest == hashlib.sha256(token.encode()).digest()


# --- who is let in -----------------------------------------------------------------------------------


def test_without_tokens_everybody_may_call() -> None:
    keyring = Keyring(None, None)
    assert keyring.is_open
    assert keyring.admit(None) is None
    assert keyring.admit("nonsense") is None


def test_each_token_is_its_callers(path: Path) -> None:
    birds, batch = written(path, "birds", "batch")
    keyring = Keyring(path, None)
    assert [keyring.admit(bearer(token)) for token in (birds, batch)] == ["birds", "batch"]
    assert keyring.admit(f"bEARER   {birds}") == "birds"


def test_a_variable_and_a_file_add_up(path: Path) -> None:
    [birds] = written(path, "birds")
    token, caller = create("batch")
    keyring = Keyring(path, caller.line())
    assert [keyring.admit(bearer(each)) for each in (birds, token)] == ["birds", "batch"]
    with pytest.raises(ConfigError, match="a name occurs in tokens_file and in"):
        Keyring(path, create("birds")[1].line())


@pytest.mark.parametrize(
    "header",
    [
        *(None, "", "Bearer", "Bearer ", "Basic {}", "{}", "Bearer {}x", "Bearer {} {}", "Bearer\t{}", " Bearer {}"),
        *("Bearer {}\n", "Bearer " + "a" * 100_000, "Bearer " + DIGEST, "Bearer \xe9"),
    ],
)
def test_nobody_else_is(path: Path, header: str | None) -> None:
    [token] = written(path, "birds")
    with pytest.raises(Unauthorized) as refused:
        Keyring(path, None).admit(header and header.replace("{}", token))
    assert token not in str(refused.value)


def test_the_token_of_another_service_is_not_known_here(path: Path, tmp_path: Path) -> None:
    written(path, "birds")
    [other] = written(tmp_path / "others", "birds")
    with pytest.raises(Unauthorized):
        Keyring(path, None).admit(bearer(other))


def test_who_asked_for_tokens_gets_no_open_service(path: Path) -> None:
    with pytest.raises(ConfigError):
        Keyring(path, None)
    path.write_text("# nobody\n")
    with pytest.raises(ConfigError):
        Keyring(path, None)
    with pytest.raises(ConfigError):  # as of a secret that has no such key
        Keyring(None, "")


# --- how many requests -------------------------------------------------------------------------------


def test_a_seconds_worth_at_once_and_then_its_rate(path: Path, clock: Clock) -> None:
    [token] = written(path, "birds", rate=4)
    keyring = Keyring(path, None, clock)
    for _ in range(4):
        keyring.admit(bearer(token))
    with pytest.raises(RateLimited) as refused:
        keyring.admit(bearer(token))
    assert refused.value.retry_after_s == pytest.approx(0.25)
    clock.now += 0.25
    keyring.admit(bearer(token))
    with pytest.raises(RateLimited):
        keyring.admit(bearer(token))
    clock.now += 3600  # no more than a second's worth is saved up
    for _ in range(4):
        keyring.admit(bearer(token))
    with pytest.raises(RateLimited):
        keyring.admit(bearer(token))


def test_less_than_one_a_second_is_one_now_and_then(path: Path, clock: Clock) -> None:
    [token] = written(path, "birds", rate=0.1)
    keyring = Keyring(path, None, clock)
    keyring.admit(bearer(token))
    with pytest.raises(RateLimited) as refused:
        keyring.admit(bearer(token))
    assert refused.value.retry_after_s == pytest.approx(10.0)


def test_one_callers_haste_is_not_anothers(path: Path, clock: Clock) -> None:
    birds, batch = written(path, "birds", "batch", rate=1)
    keyring = Keyring(path, None, clock)
    keyring.admit(bearer(birds))
    with pytest.raises(RateLimited):
        keyring.admit(bearer(birds))
    keyring.admit(bearer(batch))


def test_a_wrong_token_costs_nobody_anything(path: Path, clock: Clock) -> None:
    [token] = written(path, "birds", rate=1)
    keyring = Keyring(path, None, clock)
    for _ in range(9):
        with pytest.raises(Unauthorized):
            keyring.admit(bearer("sa_guess"))
    keyring.admit(bearer(token))


# --- when the file changes ---------------------------------------------------------------------------


def test_a_new_file_counts_within_a_second(path: Path, clock: Clock) -> None:
    [old] = written(path, "birds")
    keyring = Keyring(path, None, clock)
    [new] = written(path, "birds")
    clock.now += RELOAD_S
    assert keyring.admit(bearer(new)) == "birds"
    with pytest.raises(Unauthorized):
        keyring.admit(bearer(old))


@pytest.mark.parametrize("slip", ["", "sa_a-token-instead-of-its-hash", None], ids=["empty", "wrong", "gone"])
def test_a_slip_changes_nothing_and_is_logged_without_what_it_says(
    path: Path, clock: Clock, slip: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    [token] = written(path, "birds")
    keyring = Keyring(path, None, clock)
    if slip is None:
        path.unlink()
    else:
        path.write_text(slip)
    clock.now += RELOAD_S
    with caplog.at_level(logging.ERROR, "ray.serve"):
        assert keyring.admit(bearer(token)) == "birds"
        clock.now += RELOAD_S
        assert keyring.admit(bearer(token)) == "birds"
        clock.now += RELOAD_S
        assert keyring.admit(bearer(token)) == "birds"
    assert [record.levelname for record in caplog.records] == ["ERROR"]  # once, not every second
    assert not slip or slip not in caplog.text
    [new] = written(path, "birds")
    clock.now += RELOAD_S
    assert keyring.admit(bearer(new)) == "birds"


def test_a_token_that_is_withdrawn_while_the_file_cannot_be_read_goes_once_it_can(
    path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    [token] = written(path, "birds")
    keyring = Keyring(path, None, clock)
    written(path, "batch")

    def without_descriptors(*_: object) -> str:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", without_descriptors)
        clock.now += RELOAD_S
        assert keyring.admit(bearer(token)) == "birds"
    clock.now += RELOAD_S
    with pytest.raises(Unauthorized):
        keyring.admit(bearer(token))


def test_a_new_file_does_not_refill_what_was_used_up(path: Path, clock: Clock) -> None:
    token, caller = create("birds", 1)
    path.write_text(caller.line())
    keyring = Keyring(path, None, clock)
    keyring.admit(bearer(token))
    path.write_text(f"{caller.line()}\n{create('batch')[1].line()}\n")
    clock.now += RELOAD_S / 2
    with pytest.raises(RateLimited):
        keyring.admit(bearer(token))
