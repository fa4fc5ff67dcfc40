"""`serve-app token`: the token once, its hash for the service."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from serve_app.cli import main
from serve_app.config import ConfigError
from serve_app.tokens import Caller, Keyring, add, authorization, check, create, parse, read


def token(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["token", *map(str, arguments)])


def test_the_token_is_on_stdout_and_its_line_on_stderr() -> None:
    made = token("birds", "--rate", "2.5")
    (caller,) = parse(made.stderr)
    assert caller == Caller("birds", caller.digest, 2.5)
    assert Keyring(None, made.stderr).admit(f"Bearer {made.stdout.strip()}") == "birds"


def test_json_has_both() -> None:
    made = json.loads(token("birds", "--json").stdout)
    assert made["name"] == "birds"
    assert Keyring(None, made["line"]).admit(f"Bearer {made['token']}") == "birds"


def test_a_file_is_made_for_its_owner_alone_and_grows(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    tokens = [token(name, "--file", path).stdout.strip() for name in ("birds", "batch")]
    assert path.stat().st_mode & 0o777 == 0o600
    assert [caller.name for caller in read(path)] == ["birds", "batch"]
    keyring = Keyring(path, None)
    assert [keyring.admit(f"Bearer {each}") for each in tokens] == ["birds", "batch"]
    assert not [each for each in tokens if each in path.read_text()]
    assert [entry.name for entry in tmp_path.iterdir()] == ["tokens"]


def test_what_the_file_says_and_who_may_read_it_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text(f"# ours\n{token('birds').stderr.strip()}")
    path.chmod(0o640)
    token("batch", "--file", path)
    assert path.read_text().startswith("# ours\nbirds ")
    assert path.stat().st_mode & 0o777 == 0o640
    assert len(read(path)) == 2


def test_a_link_stays_one_and_the_file_its_owners(tmp_path: Path) -> None:
    path, link = tmp_path / "tokens", tmp_path / "link"
    link.symlink_to(path.name)
    token("birds", "--file", path)
    if os.geteuid() == 0:
        os.chown(path, 1234, 1234)
    before = path.stat()
    token("batch", "--file", link)
    assert link.is_symlink()
    assert len(read(path)) == 2
    assert (path.stat().st_uid, path.stat().st_gid) == (before.st_uid, before.st_gid)


def test_of_two_that_add_at_once_none_is_lost(tmp_path: Path) -> None:
    path, names = tmp_path / "tokens", [f"app{i}" for i in range(20)]
    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(lambda name: add(path, create(name)[1]), names))
    assert sorted(caller.name for caller in read(path)) == sorted(names)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["two words"], "a name has"),
        (["-"], "a name has"),
        (["n" * 65], "a name has"),
        (["birds", "--rate", "1e9"], "requests/s"),
        (["birds", "--file", "nowhere/tokens"], "No such file"),
        (["birds", "--file", "tokens"], "a name occurs twice"),
    ],
)
def test_what_will_not_do_is_said_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    token("birds", "--file", "tokens")
    before = Path("tokens").read_text()
    refused = token(*arguments)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert says in refused.stderr
    assert Path("tokens").read_text() == before


def test_a_command_sends_the_token_of_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SERVE_APP_TOKEN", raising=False)
    assert authorization() == {}
    monkeypatch.setenv("SERVE_APP_TOKEN", "sa_mine")
    assert authorization() == {"authorization": "Bearer sa_mine"}


def test_a_file_is_checked_where_its_folder_is(tmp_path: Path) -> None:
    check(None)
    check("/no/such/folder/tokens")  # of another machine: its replicas will say
    with pytest.raises(ConfigError):
        check(str(tmp_path / "tokens"))
    token("birds", "--file", tmp_path / "tokens")
    check(str(tmp_path / "tokens"))
