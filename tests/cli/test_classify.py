import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from serve_app import cli

Answer = tuple[int, str | bytes]
TIMEOUT_S = 10.0


def answer(*classes: tuple[str, float]) -> Answer:
    found = [{"class_id": i, "label": label, "score": score} for i, (label, score) in enumerate(classes)]
    return 200, json.dumps({"images": [{"classes": found}]})


def refusal(status: int, message: str) -> Answer:
    return status, json.dumps({"error": message, "code": "a_code"})


def named_after_the_body(body: bytes) -> Answer:
    return answer((f"it is {body.decode()}", 0.9), ("other", 0.1))


@dataclass
class Service:
    """An HTTP server of one thread per request that answers a body with what `reply` says."""

    reply: Callable[[bytes], Answer] = named_after_the_body
    bodies: list[bytes] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    url: str = ""

    @contextmanager
    def running(self) -> Iterator["Service"]:
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                service.bodies.append(body)
                service.paths.append(self.path)
                status, text = service.reply(body)
                self.send_response(status)
                self.end_headers()
                self.wfile.write(text if isinstance(text, bytes) else text.encode())

            def log_message(self, *_: object) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            self.url = f"http://127.0.0.1:{server.server_port}"
            try:
                yield self
            finally:
                server.shutdown()
                thread.join(TIMEOUT_S)
                assert not thread.is_alive()


@pytest.fixture
def service() -> Iterator[Service]:
    with Service().running() as service:
        yield service


@pytest.fixture(autouse=True)
def _wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a table breaks no lines."""
    monkeypatch.setenv("COLUMNS", "1000")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images b, a and sub/c, and a hidden file."""
    (tmp_path / "sub").mkdir()
    for name in ("b.png", "a.png", "sub/c.png", ".hidden"):
        (tmp_path / name).write_text(name)
    return tmp_path


def classify(service: Service, *arguments: str | Path) -> Result:
    return CliRunner().invoke(cli.main, ["classify", "--url", service.url, *map(str, arguments)])


def lines(result: Result) -> list[Any]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def paths(result: Result) -> list[str]:
    return [Path(line["path"]).name for line in lines(result)]


def test_a_file_is_sent_as_it_is_and_shown_with_its_classes(service: Service, folder: Path) -> None:
    result = classify(service, folder / "a.png")
    assert service.bodies == [b"a.png"]
    assert result.exit_code == 0
    (row,) = [line for line in result.stdout.splitlines() if "it is a.png" in line]
    assert [word in row for word in (str(folder / "a.png"), "0.900", "other 0.10")] == [True] * 3
    assert "1 classified, 0 failed" in result.stdout


def test_a_folder_is_sent_with_its_folders_sorted_and_without_hidden_files(service: Service, folder: Path) -> None:
    result = classify(service, folder, "--json")
    assert paths(result) == ["a.png", "b.png", "c.png"]
    assert sorted(service.bodies) == [b"a.png", b"b.png", b"sub/c.png"]


def test_files_and_folders_keep_the_order_of_the_command_line(service: Service, folder: Path) -> None:
    result = classify(service, folder / "b.png", folder / "sub", folder / "a.png", "--json")
    assert paths(result) == ["b.png", "c.png", "a.png"]


def test_outcomes_keep_their_order_when_the_first_answer_comes_last(folder: Path) -> None:
    last_answered = threading.Event()

    def reply(body: bytes) -> Answer:
        if body == b"a.png":
            last_answered.wait(TIMEOUT_S)
        if body == b"sub/c.png":
            last_answered.set()
        return named_after_the_body(body)

    with Service(reply).running() as service:
        result = classify(service, folder, "--json")
    assert last_answered.is_set()
    assert [line["classes"][0]["label"] for line in lines(result)] == ["it is a.png", "it is b.png", "it is sub/c.png"]


def test_json_is_one_object_per_image_and_line(service: Service, folder: Path) -> None:
    result = classify(service, folder / "a.png", "--json")
    assert lines(result) == [
        {
            "path": str(folder / "a.png"),
            "classes": [
                {"class_id": 0, "label": "it is a.png", "score": 0.9},
                {"class_id": 1, "label": "other", "score": 0.1},
            ],
        }
    ]


def test_top_k_is_passed_on(service: Service, folder: Path) -> None:
    classify(service, folder / "a.png", "--top-k", "3")
    assert service.paths == ["/v1/classify?top_k=3"]


def test_without_top_k_the_service_decides(service: Service, folder: Path) -> None:
    classify(service, folder / "a.png")
    assert service.paths == ["/v1/classify"]


def test_a_url_may_end_in_a_slash(service: Service, folder: Path) -> None:
    CliRunner().invoke(cli.main, ["classify", "--url", f"{service.url}/", str(folder / "a.png")])
    assert service.paths == ["/v1/classify"]


def test_as_many_requests_are_in_flight_as_allowed(folder: Path) -> None:
    all_three = threading.Barrier(3, timeout=TIMEOUT_S)

    def reply(body: bytes) -> Answer:
        all_three.wait()
        return named_after_the_body(body)

    with Service(reply).running() as service:
        assert classify(service, folder, "--concurrency", "3").exit_code == 0


def test_no_more_requests_are_in_flight_than_allowed(folder: Path) -> None:
    two_at_once = threading.Barrier(2)

    def reply(body: bytes) -> Answer:
        with suppress(threading.BrokenBarrierError):
            two_at_once.wait(0.05)
            return 500, "two at once"
        two_at_once.reset()
        return named_after_the_body(body)

    with Service(reply).running() as service:
        assert classify(service, folder, "--concurrency", "1").exit_code == 0


def test_one_refused_image_fails_the_command_and_not_the_others(folder: Path) -> None:
    def reply(body: bytes) -> Answer:
        return refusal(422, "cut short") if body == b"b.png" else named_after_the_body(body)

    with Service(reply).running() as service:
        result = classify(service, folder)
    assert result.exit_code == 1
    assert "422: cut short" in result.stdout
    assert "2 classified, 1 failed" in result.stdout


def test_a_refused_image_is_an_error_in_json(folder: Path) -> None:
    with Service(lambda _: refusal(422, "cut short")).running() as service:
        result = classify(service, folder / "a.png", "--json")
    assert (result.exit_code, lines(result)) == (1, [{"path": str(folder / "a.png"), "error": "422: cut short"}])


def test_an_empty_folder_is_nothing_to_send(service: Service, tmp_path: Path) -> None:
    result = classify(service, tmp_path)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "there is no file to send\n"


def test_no_path_at_all_is_nothing_to_send(service: Service) -> None:
    assert classify(service).exit_code == 2


def test_a_missing_file_fails_in_words_and_not_the_others(service: Service, folder: Path) -> None:
    result = classify(service, folder / "missing.png", folder / "a.png", "--json")
    missing, present = lines(result)
    assert result.exit_code == 1
    assert missing["error"] == "No such file or directory"
    assert present["classes"]


def test_an_unreachable_service_fails_in_words(folder: Path) -> None:
    with socket.socket() as never_listening:
        never_listening.bind(("127.0.0.1", 0))
        nobody = Service(url=f"http://127.0.0.1:{never_listening.getsockname()[1]}")
        result = classify(nobody, folder, "--json")
    assert result.exit_code == 1
    assert ["onnect" in line["error"] for line in lines(result)] == [True] * 3


@pytest.mark.parametrize("url", ["nonsense", "http://", "ftp://127.0.0.1", "http://127.0.0.1:99999"])
def test_a_url_that_is_none_fails_in_words(url: str, folder: Path) -> None:
    result = classify(Service(url=url), folder / "a.png", "--json")
    assert result.exit_code == 1
    assert lines(result)[0]["error"]


@pytest.mark.parametrize("output", [[], ["--json"]], ids=["table", "json"])
def test_a_service_that_never_answers_fails_in_words(output: list[str], folder: Path) -> None:
    tested = threading.Event()

    def reply(_: bytes) -> Answer:
        tested.wait(TIMEOUT_S)
        return 200, ""

    with Service(reply).running() as service:
        result = classify(service, folder / "a.png", "--timeout-s", "0.1", *output)
        tested.set()
    assert (result.exit_code, "no answer in time" in result.stdout) == (1, True)


@pytest.mark.parametrize(
    "reply",
    [
        (503, ""),
        (502, "<html>Bad Gateway</html>"),
        (500, "[]"),
        (500, "null"),
        (500, '"text"'),
        (500, "{}"),
        (502, b"\xff\xfe"),
        (200, ""),
        (200, "<html>a login page</html>"),
        (200, b"\xff\xfe"),
        (200, "[]"),
        (200, "null"),
        (200, "{}"),
        (200, '{"images": []}'),
        (200, '{"images": [{"name": "a", "error": "e", "code": "c"}]}'),
    ],
    ids=repr,
)
@pytest.mark.parametrize("output", [[], ["--json"]], ids=["table", "json"])
def test_an_answer_of_something_else_fails_in_words(reply: Answer, output: list[str], folder: Path) -> None:
    with Service(lambda _: reply).running() as service:
        result = classify(service, folder / "a.png", *output)
    assert (result.exit_code, type(result.exception)) == (1, SystemExit)


MARKUP = ["[red]", "[/]", "[bold]a[/bold]", "[link=http://x]y[/link]", "a\\[b]", ":smile:"]


@pytest.mark.parametrize("text", MARKUP)
def test_a_message_of_the_server_is_shown_literally(text: str, folder: Path) -> None:
    with Service(lambda _: refusal(422, f"no {text} here")).running() as service:
        result = classify(service, folder / "a.png")
    assert f"422: no {text} here" in result.stdout


@pytest.mark.parametrize("text", MARKUP)
def test_a_label_is_shown_literally(text: str, folder: Path) -> None:
    with Service(lambda _: answer((f"best {text}!", 0.5), (f"then {text}!", 0.25))).running() as service:
        result = classify(service, folder / "a.png")
    assert f"best {text}!" in result.stdout
    assert f"then {text}! 0.25" in result.stdout


@pytest.mark.parametrize("name", ["[red].png", "[bold]a.png", ":smile:.png", "[", "Käfer.png"])
def test_a_file_name_is_shown_literally(name: str, service: Service, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"7")
    result = classify(service, tmp_path)
    assert result.exit_code == 0
    assert f"{tmp_path / name} " in result.stdout


def test_a_file_name_that_closes_a_tag_is_shown_literally(service: Service, tmp_path: Path) -> None:
    (tmp_path / "[").mkdir()
    (tmp_path / "[" / "red]").write_bytes(b"7")
    assert f"{tmp_path}/[/red] " in classify(service, tmp_path).stdout
