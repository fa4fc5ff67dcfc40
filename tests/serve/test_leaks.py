"""What a service tells: nothing of its insides to clients, nothing of their images and tokens to logs and disks."""

import asyncio
import re
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile

import grpc
import psutil
import pytest

from serve_app.bench.torture.surface import Material, case, request
from serve_app.grpc.server import RPCS
from serve_app.tokens import add, create
from tests.grpc.calls import OPTIONS, Call, Outcome, answered, image_request
from tests.http.test_access import every_request
from tests.serve.service import Service, config, running

CONTENT = b"sa7-content-of-an-image"
NAME = b"sa7-name-of-a-file"
OTHERS_TOKEN = b"sa7-token-of-another"
QUERY = b"sa7-token-in-a-query"
SECRETS = (CONTENT, NAME, OTHERS_TOKEN, QUERY)
CASES = 100
SEED = 8
PART_BYTES, PARTS = 9 << 20, 3
LIMIT_S = 10.0
FORM = {"Content-Type": "multipart/form-data; boundary=b"}
FORM_PART = b'--b\r\nContent-Disposition: form-data; name="f"; filename="%s"\r\n\r\n%s\r\n'

# What no client is to learn. Not in the page's own files, which name no service.
INSIDES = re.compile(
    rb"""/(?:root|home|tmp|usr|opt|var|proc|etc)/ | \.py\b | Traceback | serve_app\. | ray:: | \bpid= |
    (?<![\d.])(?:127|10|172|192)\.\d+\.\d+\.\d+ | site-packages""",
    re.VERBOSE,
)
# What an answer may carry beside its content, whoever gives it: Ray, HAProxy, uvicorn.
HEADERS = {
    *("content-type", "content-length", "date", "server", "x-request-id", "server-timing", "connection"),
    *("retry-after", "www-authenticate", "allow", "transfer-encoding", "cache-control", "keep-alive"),
    *(
        "content-security-policy",
        "etag",
        "referrer-policy",
        "x-content-type-options",
        "inference-header-content-length",
    ),
}
SERVERS = {b"", b"uvicorn"}


@dataclass
class Asked:
    """A service with one caller, and all that it has answered."""

    service: Service
    token: str
    answers: list[tuple[str, bytes]] = field(default_factory=list)
    """What was asked for, and the whole answer, headers too."""

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.service.content["http_options"]["port"]

    def say(self, what: str, *chunks: bytes) -> bytes:
        """On a connection of its own, until the other side closes it or says no more."""
        received = b""
        with suppress(OSError), socket.create_connection(self.address, timeout=LIMIT_S) as connection:
            for chunk in chunks:
                connection.sendall(chunk)
            connection.settimeout(1 if what == "hostile" else LIMIT_S)
            while part := connection.recv(1 << 16):
                received += part
        self.answers.append((what, received))
        return received

    def authorized(self, **headers: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}", **headers}


@pytest.fixture(scope="module", params=["1", "0"], ids=["haproxy", "ordinary proxy"])
def asked(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, samples: dict[int, bytes]
) -> Iterator[Asked]:
    """Asked all sorts of things, before any test looks."""
    path = tmp_path_factory.mktemp("leaks") / "tokens"
    token, caller = create("caller")
    add(path, caller)
    with running(config({"tokens_file": str(path)}), grpc=True, RAY_SERVE_ENABLE_HA_PROXY=request.param) as service:
        asked = Asked(service, token)
        ask_every_route(asked, samples[7])
        ask_for_answers_and_refusals(asked, samples[7])
        ask_what_is_hostile(asked, samples[7])
        yield asked


def ask_every_route(asked: Asked, image: bytes) -> None:
    """With the token, without, with another's; from another site's page; and what such a page asks for first."""
    for method, path in [*every_request(), ("GET", "/-/routes"), ("GET", "/-/healthz"), ("GET", "/nothing/here")]:
        elsewhere = {"Origin": "https://elsewhere.example"}
        body = image if method == "POST" else b""
        for headers in (elsewhere, asked.authorized(**elsewhere), {"Authorization": f"Bearer {OTHERS_TOKEN.decode()}"}):
            asked.say(path, request(body, path, method, headers))
        preflight = {**elsewhere, "Access-Control-Request-Method": method}
        asked.say("preflight", request(b"", path, "OPTIONS", preflight))
        asked.say("preflight", request(b"", path, "OPTIONS", asked.authorized(**preflight)))


def ask_for_answers_and_refusals(asked: Asked, image: bytes) -> None:
    """Images that hold CONTENT, good and bad, in all the ways there are."""
    content, name, query = CONTENT.decode(), NAME.decode(), QUERY.decode()
    classify = "/v1/classify?top_k=2"
    images = [image + CONTENT, CONTENT * 100, image[:200] + CONTENT, b"\xff\xd8\xff" + CONTENT * 10]
    told = asked.authorized(**{"X-Name": name, "User-Agent": name, "Cookie": f"a={name}", "Referer": f"http://{name}/"})
    for each in images:
        assert b" 200 " in asked.say("image", request(image, classify, headers=told))[:20]
        asked.say("image", request(each, classify, headers=told))
        asked.say(
            "form", request(form(each), classify, headers=told | {"Content-Type": "multipart/form-data; boundary=b"})
        )
        asked.say("infer", request(each, "/v2/models/digits/infer", headers=told | {"Content-Type": content}))
    for wrong in ("top_k=0", f"top_k={content}", f"token={query}", f"top_k=1&access_token={query}"):
        asked.say("parameter", request(image, f"/v1/classify?{wrong}", headers=told))
    for name, value in (("X-Request-Timeout-Seconds", content), ("X-Request-Priority", content)):
        asked.say("header", request(image, headers=told | {name: value}))
    asked.say("late", request(image, headers=told | {"X-Request-Timeout-Seconds": "0.000001"}))
    ask_over_grpc(asked, image)


def ask_over_grpc(asked: Asked, image: bytes) -> None:
    calls = [
        Call(name, image_request(each) if name == "ModelInfer" else b"\xff" + CONTENT, headers, service=of)
        for of, names in RPCS.items()
        for name in names
        for each in (image, CONTENT * 10, image[:100] + CONTENT)
        for headers in (
            {"authorization": f"Bearer {asked.token}", "x-name": NAME.decode()},
            {"authorization": f"Bearer {OTHERS_TOKEN.decode()}"},
        )
    ]

    async def ask() -> list[Outcome]:
        async with grpc.aio.insecure_channel(asked.service.grpc_address, options=OPTIONS) as channel:
            return [await answered(channel, call) for call in calls]

    for call, outcome in zip(calls, asyncio.run(ask()), strict=True):
        told = f"{outcome.details} {dict(outcome.trailing)} {outcome.response}"
        asked.answers.append((f"gRPC {call.method}", told.encode()))


def ask_what_is_hostile(asked: Asked, image: bytes) -> None:
    material = Material([image, image + CONTENT, CONTENT * 50], "digits")
    for number in range(CASES):
        asked.say("hostile", *case(material, SEED, number).chunks)


def form(*images: bytes) -> bytes:
    return b"".join(FORM_PART % (NAME, image) for image in images) + b"--b--\r\n"


# --- answers ------------------------------------------------------------------------------------------


def heads(answer: bytes) -> Iterator[dict[str, bytes]]:
    """The headers of each answer on a connection."""
    for head in re.findall(rb"HTTP/1\.[01] \d{3}[^\r\n]*\r\n(.*?)\r\n\r\n", answer, re.DOTALL):
        yield {
            name.decode().strip().lower(): value.strip()
            for name, _, value in (line.partition(b":") for line in head.split(b"\r\n"))
        }


def is_page(what: str) -> bool:
    return what.startswith(("/page", "/docs", "/openapi.json")) or what == "/"


def test_no_answer_tells_of_insides(asked: Asked) -> None:
    """Nor gives back what a client said that looks like them."""
    told = {
        (what, found[0]) for what, answer in asked.answers if not is_page(what) if (found := INSIDES.search(answer))
    }
    assert told == set()
    host = socket.gethostname().encode()
    if len(host) > 3:  # a word of its own
        assert not [what for what, answer in asked.answers if host in answer]


def test_no_answer_gives_back_a_token(asked: Asked) -> None:
    tokens = (asked.token.encode(), OTHERS_TOKEN, QUERY)
    assert not [(what, answer) for what, answer in asked.answers if any(token in answer for token in tokens)]


def test_headers_are_these_and_no_others(asked: Asked) -> None:
    every = [head for _, answer in asked.answers for head in heads(answer)]
    assert len(every) > 200
    assert {name for head in every for name in head} <= HEADERS
    assert {head.get("server", b"") for head in every} <= SERVERS  # no version of anything


def test_no_other_sites_page_may_read_an_answer(asked: Asked) -> None:
    """CORS is off: a browser gives nothing to a page of another origin, and sends it no token."""
    for what, answer in asked.answers:
        assert b"access-control-" not in answer.lower(), what
    preflights = [answer for what, answer in asked.answers if what == "preflight"]
    assert preflights
    assert not [answer for answer in preflights if answer[9:12] in (b"200", b"204") and not is_proxys_own(answer)]


def is_proxys_own(answer: bytes) -> bool:
    """Ray's two paths, /-/routes and /-/healthz, are answered whatever the method."""
    return b'{"/":"serve-app"}' in answer or b"success" in answer


# --- logs and disks -----------------------------------------------------------------------------------


def session(service: Service) -> Path:
    return Path(service.output.split("logs in ")[1].split()[0]).parents[1]


def test_no_log_holds_an_image_a_file_name_or_a_token(asked: Asked) -> None:
    time.sleep(2)  # for the logs
    files = {path: path.read_bytes() for path in session(asked.service).rglob("*") if path.is_file()}
    assert any(b"/v1/classify" in content for content in files.values())
    for secret in (*SECRETS, asked.token.encode()):
        assert not [path for path, content in files.items() if secret in content], secret
        assert secret not in asked.service.output.encode()


def test_what_clients_do_wrong_leaves_no_traceback(asked: Asked) -> None:
    """A log of tracebacks hides the one that matters."""
    logs = [path for path in (session(asked.service) / "logs" / "serve").rglob("*.log") if "replica" in path.name]
    assert logs
    assert not [path for path in logs if b"Traceback" in path.read_bytes()]


def test_an_upload_is_nowhere_on_a_disk(asked: Asked) -> None:
    """Nor in a file that has no name any more, as those of servers that spool are; looked for before it has ended."""
    parts = form(*[CONTENT * (PART_BYTES // len(CONTENT))] * PARTS)
    whole = request(parts, headers=asked.authorized(**FORM))
    with socket.create_connection(asked.address, timeout=60) as connection:
        connection.sendall(whole[:-100])
        time.sleep(2)  # all of it has been read
        assert list(written(asked.service)) == []
        connection.sendall(whole[-100:])
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 415 ")  # all of it was looked at
    assert list(written(asked.service)) == []


def test_what_is_written_would_be_found(asked: Asked) -> None:
    planted = session(asked.service) / "planted"
    planted.write_bytes(b"." * (1 << 20) + CONTENT)
    try:
        assert list(written(asked.service)) == [str(planted)]
    finally:
        planted.unlink()


def test_what_is_open_and_has_no_name_would_be_found() -> None:
    with TemporaryFile() as file:
        file.write(b"." * ((1 << 20) - 3) + CONTENT)  # across two of the parts that are read
        file.flush()
        assert len(list(opened(psutil.Process()))) == 1
    assert list(opened(psutil.Process())) == []


def written(service: Service) -> Iterator[str]:
    """Files with CONTENT that a process of the service has open, or that are in a folder it writes to."""
    seen = set()
    for process in service.leftover_processes():
        with suppress(psutil.Error, OSError):
            yield from opened(process)
            seen.add(Path(process.cwd()))
    for folder in {session(service), *Path("/tmp").glob("serve-app-*"), *Path("/tmp").glob("tmp*")}:
        for path in folder.rglob("*") if folder.is_dir() else [folder]:
            with suppress(OSError):
                if path.is_file() and holds(path):
                    yield str(path)
    for folder in seen:
        for path in folder.iterdir():
            with suppress(OSError):
                if path.is_file() and holds(path):
                    yield str(path)


def opened(process: psutil.Process) -> Iterator[str]:
    for descriptor in Path(f"/proc/{process.pid}/fd").iterdir():
        with suppress(OSError):
            if is_on_disk(descriptor) and holds(descriptor):
                yield f"{process.name()}: {descriptor.readlink()}"


def is_on_disk(descriptor: Path) -> bool:
    """/dev/shm is memory: Ray's ordinary proxy hands large bodies to replicas there."""
    return descriptor.is_file() and not str(descriptor.readlink()).startswith("/dev/")


def holds(path: Path) -> bool:
    with path.open("rb") as file:
        before = b""
        while part := file.read(1 << 20):
            if CONTENT in before + part:
                return True
            before = part[-len(CONTENT) :]
    return False
