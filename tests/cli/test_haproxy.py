"""What `serve-app run` lays out for its HAProxy."""

import json
import stat
import subprocess
from pathlib import Path

from serve_app.cli.haproxy import BINARY, FILES, behind, confined
from tests.certificates import Authority


def test_its_folder_is_nobody_elses_and_goes_with_it() -> None:
    with confined("/bin/echo", {"host": "127.0.0.1", "port": 8000}) as variables:
        assert set(variables) == {BINARY, *FILES}
        folder = Path(variables[BINARY]).parent
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        for variable in FILES:
            assert Path(variables[variable]).is_relative_to(folder)
        # Ray adds a node's id of 56 signs, HAProxy `.PID.tmp` while it starts; a socket's path has 107 at most.
        longest = max((Path(variables[name]) for name in FILES), key=lambda path: len(path.name))
        assert len(f"{longest.parent}/{'0' * 56}/{longest.name}.4194304.tmp") <= 107
    assert not folder.exists()


def test_its_program_is_haproxy_with_the_same_arguments() -> None:
    with confined("/bin/echo", {"host": "127.0.0.1"}) as variables:
        assert subprocess.run([variables[BINARY], "-v", "a b"], capture_output=True, text=True).stdout == "-v a b\n"


def test_certificate_and_key_are_where_haproxy_finds_both_and_are_not_copied(tmp_path: Path) -> None:
    pair = Authority(tmp_path).signed("service", "localhost")
    with confined("/bin/echo", pair.options()) as variables:
        settings = json.loads(Path(variables[BINARY]).with_name("settings.json").read_text())
        assert settings["host"] == "0.0.0.0"  # as where Ray is told none
        assert Path(settings["pem"]).readlink() == pair.certificate
        assert Path(settings["pem"] + ".key").readlink() == pair.key
    assert pair.key.exists()


def test_behind_it_ray_is_on_loopback_in_plain_text() -> None:
    options = {"host": "0.0.0.0", "port": 8443, "ssl_certfile": "/c", "ssl_keyfile": "/k", "request_timeout_s": 30}
    assert behind(options) == {"host": "127.0.0.1", "port": 8443, "request_timeout_s": 30}
