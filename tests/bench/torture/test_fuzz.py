"""The fuzzer against the application itself, over uvicorn and sockets; and against services that are broken."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from serve_app.bench.torture.answers import HUNG
from serve_app.bench.torture.fuzz import Report, fuzz
from serve_app.bench.torture.seeds import digits, seeds
from serve_app.bench.torture.surface import MAKERS, Ends, Material, case
from serve_app.config import Args
from serve_app.decode import Decoder
from serve_app.http import build_app
from serve_app.model_spec import Geometry
from serve_app.scheduler import Terms
from serve_app.service import Classification
from tests.http.service import FakeService

MATERIAL = Material(tuple(seeds().values()), "digits")
GOOD = digits()[:2]
"""In no case of MATERIAL."""
LIMIT_S = 30.0


@dataclass
class Decoding(FakeService):
    """Decodes what it is sent; every good image is of class 7."""

    decode: Decoder = field(default_factory=lambda: Decoder(Geometry(resize_size=32, crop_size=28), 1_000_000))

    async def classify(self, image: object, terms: Terms) -> Classification:
        if isinstance(image, bytes):
            await asyncio.to_thread(self.decode, image)
        return await super().classify(b"7", terms)


@contextmanager
def served(app: ASGIApp) -> Iterator[str]:
    server = uvicorn.Server(
        uvicorn.Config(app, port=0, log_level="critical", lifespan="off", timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
        [listening] = server.servers[0].sockets
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def fuzzed(app: ASGIApp, number: int, seed: int = 1, limit_s: float = LIMIT_S) -> Report:
    with served(app) as url:
        return asyncio.run(fuzz(url, MATERIAL, GOOD, seed, range(number), 4, limit_s, lambda: None))


def test_the_application_bears_it() -> None:
    limits = Args(max_image_bytes=1 << 20, max_request_bytes=4 << 20, max_json_bytes=1 << 20)
    report = fuzzed(build_app(Decoding(args=limits)), 1500)
    assert report.failures == []
    assert report.cases == 1500
    assert report.wrong == []
    assert report.neighbours > 100
    assert {kind for kind, _ in report.outcomes} == {maker.__name__ for maker in MAKERS}
    assert {"200", "400", "413", "415", "422", "left"} <= {outcome for _, outcome in report.outcomes}


def test_a_case_is_made_anew_by_its_number() -> None:
    first = [case(MATERIAL, 5, number) for number in range(100)]
    assert [case(MATERIAL, 5, number) for number in reversed(range(100))][::-1] == first
    assert case(MATERIAL, 6, 3) != first[3]


def failing_now_and_then(how: str) -> ASGIApp:
    app = build_app(Decoding())

    async def failing(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["query_string"] == b"" and scope["path"] == "/v1/classify":
            if how == "hangs":
                await asyncio.sleep(3600)
            raise RuntimeError("a bug")
        await app(scope, receive, send)

    return failing


def test_a_bug_is_found() -> None:
    failures = fuzzed(failing_now_and_then("raises"), 100).failures
    assert {failure.outcome for failure in failures} == {"500"}
    assert {failure.kind for failure in failures} > {"image"}
    ends = {case(MATERIAL, 1, failure.number).ends for failure in failures}
    assert {Ends.WAITS, Ends.STAYS} <= ends  # half a request is answered before its other half


def test_a_hang_is_found() -> None:
    failures = fuzzed(failing_now_and_then("hangs"), 12, limit_s=1.0).failures
    assert {failure.outcome for failure in failures} == {HUNG}


def test_good_images_have_a_limit_of_their_own() -> None:
    class Slow(Decoding):
        async def classify(self, image: object, terms: Terms) -> Classification:
            await asyncio.sleep(0.3)
            return await super().classify(image, terms)

    report = fuzzed(build_app(Slow()), 10, limit_s=0.1)
    assert (report.lost, report.wrong) == ("", [])
    assert HUNG in {failure.outcome for failure in report.failures}


def test_a_service_that_answers_otherwise_afterwards_is_lost() -> None:
    class Wearing(Decoding):
        async def classify(self, image: object, terms: Terms) -> Classification:
            await super().classify(image, terms)
            return await FakeService.classify(self, b"%d" % (len(self.seen) > 20), terms)

    report = fuzzed(build_app(Wearing()), 300)
    assert "a known image is 1 and not 0" in report.lost
    assert 0 < report.cases == sum(report.outcomes.values())


def test_a_neighbour_that_is_answered_wrongly_once_is_told() -> None:
    @dataclass
    class Slipping(Decoding):
        good: int = 0

        async def classify(self, image: object, terms: Terms) -> Classification:
            await super().classify(image, terms)
            self.good += image in GOOD
            return await FakeService.classify(self, b"%d" % (image in GOOD and self.good == 9), terms)

    assert fuzzed(build_app(Slipping()), 300).wrong == ["a known image is 1 and not 0"]


def test_a_service_that_dies_is_lost() -> None:
    async def quits(scope: Scope, receive: Receive, send: Send) -> None:
        raise SystemExit

    assert "was not answered" in fuzzed(quits, 10).lost
