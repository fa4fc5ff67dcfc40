"""Hostile HTTP, as bytes for a socket: bodies that lie about themselves, headers, lines, forms, pipelines, drips."""

import gzip
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache

import numpy as np

from serve_app.bench.torture import bombs
from serve_app.bench.torture.mutations import cut, flipped, mutated
from serve_app.tokens import authorization

CLASSIFY, INFER = "/v1/classify", "/v2/models/{model}/infer"
PAUSE_S = 0.02
STALL_S = 1.0
"""Between the parts of a request that keeps its connection open."""
MANY_PARTS = 3000
MAX_PIPELINED_BYTES = 4 << 20
BOMBS_BYTES = (32 << 20, 256 << 20)
"""Unpacked: half of what a request may have, and four times it; packed a thousandth of it."""
DEADLINE = "X-Request-Timeout-Seconds"
NASTY = (
    *("", " ", "0", "-1", "1e9", "nan", "inf", "9" * 5000, "1" + "0" * 18, "\xff\xfe", "a" * 9000, "..", "%00"),
    *("../../../../etc/passwd", "${jndi:ldap://127.0.0.1/a}", "'; DROP TABLE images; --", "<script>", "{}", "null"),
    *("bytes=0-", "gzip, gzip", "*/*", "Bearer x", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "batch", "0.0", "0.001"),
)
HEADERS = (
    *(DEADLINE, "X-Request-Priority", "X-Request-ID", "Content-Type", "Content-Encoding"),
    *("Inference-Header-Content-Length", "Authorization", "Accept", "Expect", "Range", "Cookie", "traceparent"),
    *("X-Forwarded-For", "X-Forwarded-Proto", "serve_multiplexed_model_id", "Upgrade", "Connection", "Origin", "Host"),
)


class Ends(Enum):
    """What the client does when it has said everything."""

    WAITS = "until something came back, which has to"
    STAYS = "for a while, silent: whatever comes counts, nothing has to"
    HALF_CLOSES = "says that it is done, and stays"
    LEAVES = "at once"


@dataclass(frozen=True)
class Case:
    """What one client sends on a connection of its own."""

    kind: str
    chunks: tuple[bytes, ...]
    """Sent one after the other, `pause_s` apart."""
    ends: Ends = Ends.WAITS
    answers: int = 1
    """That it waits for."""
    is_http: bool = True
    """Its HTTP is well formed, whatever it carries: to be closed without a word is no answer."""
    has_deadline: bool = False
    """One of its own, so that it may be refused or expire."""
    pause_s: float = PAUSE_S
    reads_slowly: bool = False
    is_heavy: bool = False
    """It may take a second of a core, or hundreds of MB."""

    @property
    def is_slow(self) -> bool:
        """It mostly waits."""
        return self.ends is Ends.STAYS or self.pause_s > PAUSE_S or self.reads_slowly

    @property
    def has_body(self) -> bool:
        """Of its answer."""
        return not self.chunks[0].startswith(b"HEAD ")


@dataclass(frozen=True)
class Material:
    """What cases are made of."""

    images: Sequence[bytes]
    model: str

    def image(self, generator: np.random.Generator) -> bytes:
        """A good one in three."""
        image = self.images[int(generator.integers(len(self.images)))]
        return image if generator.random() < 1 / 3 else mutated(image, self.images, generator)


Maker = Callable[[Material, np.random.Generator], Case]


def case(material: Material, seed: int, number: int) -> Case:
    """The same for the same seed and number, whatever was made before."""
    generator = np.random.default_rng([seed, number])
    makers = [maker for maker, times in MAKERS.items() for _ in range(times)]
    return makers[int(generator.integers(len(makers)))](material, generator)


def request(
    body: bytes = b"", path: str = CLASSIFY, method: str = "POST", headers: Mapping[str, str] | None = None
) -> bytes:
    """A good one, but for what it is given; with the token of this process's environment, if there is one."""
    good = {"Host": "torture", "Content-Length": str(len(body)), "Connection": "close"}
    lines = {**good, **_token(), **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1", "replace") + body


def _token() -> dict[str, str]:
    """Under the name of the header that cases put another value to."""
    return {name.title(): value for name, value in authorization().items()}


def _unanswered(generator: np.random.Generator) -> Ends:
    """Of what need not be answered. That a client leaves is hostile in itself, but then nobody sees what came."""
    return (Ends.STAYS, Ends.STAYS, Ends.HALF_CLOSES, Ends.HALF_CLOSES, Ends.LEAVES)[int(generator.integers(5))]


def _one(generator: np.random.Generator, choices: Sequence[str]) -> str:
    return choices[int(generator.integers(len(choices)))]


# --- bodies ------------------------------------------------------------------------------------------


def image(material: Material, generator: np.random.Generator) -> Case:
    return Case("image", (request(material.image(generator)),))


def metadata(material: Material, generator: np.random.Generator) -> Case:
    """A good picture with a colour profile or EXIF that is huge, cut, or goes round in a circle."""
    return Case("metadata", (request(bombs.with_metadata(generator)),))


def bomb(_: Material, generator: np.random.Generator) -> Case:
    """A small file that wants minutes or gigabytes; heavy ones, which are let in, are rarer than their number."""
    name = _one(generator, bombs.HEAVY if generator.random() < 0.25 else bombs.LIGHT)
    return Case("bomb", (request(bombs.made(name)),), is_heavy=name in bombs.HEAVY)


def form(material: Material, generator: np.random.Generator) -> Case:
    """A form that is cut, damaged, of other parts than files, of none, or of thousands."""
    boundary = _one(generator, ("b", "b" * 70, "b" * 3000, "", "--", "a b", "\xe9"))
    many = generator.random() < 0.05
    number = MANY_PARTS if many else int(generator.integers(0, 6))
    disposition = ("form-data; name=f; filename=a.png", "form-data; name=f", "attachment", "", "form-data; filename*=x")
    parts = []
    for _ in range(number):
        header = f"Content-Disposition: {_one(generator, disposition)}\r\n"
        if generator.random() < 0.1:
            header += f"X-{'h' * int(generator.integers(1, 9000))}: {_one(generator, NASTY)}\r\n"
        content = b"x" if many else material.image(generator)
        parts.append(f"--{boundary}\r\n{header}\r\n".encode("latin-1") + content + b"\r\n")
    body = b"".join(parts) + f"--{boundary}--\r\n".encode("latin-1")
    if generator.random() < 0.4:
        body = (cut, flipped)[int(generator.integers(2))](body, generator)
    told = boundary if generator.random() < 0.9 else "other"
    return Case("form", (request(body, headers={"Content-Type": f"multipart/form-data; boundary={told}"}),))


def inference(material: Material, generator: np.random.Generator) -> Case:
    """JSON that is none, of other types, or deep; binary tensors whose sizes lie; bombs."""
    path = INFER.format(model=material.model if generator.random() < 0.9 else _one(generator, ("x", "%2e%2e", "é")))
    headers = {"Content-Type": "application/json"}
    what = int(generator.integers(5))
    if what == 0:
        depth = int(generator.integers(1, 100_000))
        body = b'{"inputs":' + b"[" * depth + b"]" * depth + b"}"
    elif what == 1:
        body = flipped(json.dumps(_tensor_request(generator)).encode(), generator)
    elif what == 2:
        body = json.dumps(_tensor_request(generator)).encode()
    elif what == 3:
        raw = material.image(generator)
        binary = len(raw).to_bytes(4, "little") + raw
        size = len(binary) + int(generator.integers(-5, 6)) * int(generator.integers(0, 2))
        tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": size}}
        head = json.dumps({"inputs": [tensor]}).encode()
        told = len(head) + int(generator.integers(-5, 6)) * int(generator.integers(0, 2))
        headers["Inference-Header-Content-Length"] = str(told)
        body = head + binary
    else:
        encoding = _one(generator, ("gzip", "deflate"))
        rare = generator.random() < 0.1
        body = (
            _packed_zeros(encoding, BOMBS_BYTES[int(generator.integers(2))]) if rare else _PACK[encoding](b"[" * 9999)
        )
        headers["Content-Encoding"] = encoding
        if generator.random() < 0.5:
            body = flipped(body, generator)
    return Case("inference", (request(body, path, headers=headers),), is_http=path.isascii())


_PACK: Mapping[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, 1, mtime=0),
    "deflate": lambda data: zlib.compress(data, 1),
}


@cache
def _packed_zeros(encoding: str, size: int) -> bytes:
    return _PACK[encoding](bytes(size))


def _tensor_request(generator: np.random.Generator) -> object:
    wrong: Sequence[object] = (None, -1, 1e308, 2**70, "x", [], {}, [[[]]], True, "9" * 5000, [0] * 500)
    tensor: dict[str, object] = {"name": "image", "datatype": "BYTES", "shape": [1], "data": ["Nw=="]}
    asked: dict[str, object] = {"inputs": [tensor], "outputs": [{"name": "labels"}], "parameters": {"top_k": 1}}
    for _ in range(int(generator.integers(1, 3))):
        target = (tensor, asked)[int(generator.integers(2))]
        names = (*target, "id", "timeout", "priority", "unknown")
        target[_one(generator, names)] = wrong[int(generator.integers(len(wrong)))]
    return asked


# --- what says how long a body is --------------------------------------------------------------------


def length(material: Material, generator: np.random.Generator) -> Case:
    """A Content-Length that is too small, no number, given twice; or too large, and nothing more comes."""
    body = material.image(generator)
    if generator.random() < 0.3:
        promised = len(body) + int(generator.integers(1, 1 << 20))
        lie = request(body, headers={"Content-Length": str(promised)})
        return Case("length", (lie,), _unanswered(generator), is_http=False)
    told = (str(len(body) // 2), "-1", "0x10", "1, 2", "+5", "", "9" * 30, f"{len(body)}\r\nContent-Length: 5")
    value = _one(generator, told)
    # What is left over is read as a request, and answered as the nonsense it is, or not any more.
    ends = _unanswered(generator) if value == "9" * 30 else Ends.WAITS
    return Case("length", (request(body, headers={"Content-Length": value}),), ends, is_http=False)


def chunked(material: Material, generator: np.random.Generator) -> Case:
    """Chunks with sizes that are none, with extensions, trailers, without an end; and both lengths at once."""
    body, parts = material.image(generator), []
    while body:
        size = int(generator.integers(1, 5000))
        part, body = body[:size], body[size:]
        parts.append(f"{len(part):x}{';x=y' * int(generator.integers(0, 3))}\r\n".encode() + part + b"\r\n")
    end = b"0\r\nX-Trailer: 1\r\n\r\n" if generator.random() < 0.3 else b"0\r\n\r\n"
    damage = int(generator.integers(6))
    if damage == 0:
        parts.insert(int(generator.integers(len(parts) + 1)), b"zz\r\nx\r\n")
    elif damage == 1:
        parts.insert(int(generator.integers(len(parts) + 1)), b"-5\r\nx\r\n")
    elif damage == 2:
        parts.insert(int(generator.integers(len(parts) + 1)), b"ffffffffffffffffff\r\nx\r\n")
    names = {"Host": "torture", "Transfer-Encoding": "chunked", "Connection": "close", **_token()}
    if damage == 3:
        names["Content-Length"] = "3"
    if damage == 4:
        names["Transfer-Encoding"] = _one(generator, ("chunked, chunked", "gzip", "identity", "xchunked"))
    head = "".join(f"{name}: {value}\r\n" for name, value in names.items())
    whole = f"POST {CLASSIFY} HTTP/1.1\r\n{head}\r\n".encode() + b"".join(parts)
    ends = _unanswered(generator) if damage in (2, 4, 5) else Ends.WAITS
    return Case("chunked", (whole if damage == 5 else whole + end,), ends, is_http=False)


# --- what comes before it ----------------------------------------------------------------------------


def headers(material: Material, generator: np.random.Generator) -> Case:
    """Known headers with nasty values, unknown ones, hundreds, long ones, and such as are none."""
    given: dict[str, str] = {}
    for _ in range(int(generator.integers(1, 6))):
        given[_one(generator, HEADERS)] = _one(generator, NASTY)
    if generator.random() < 0.1:
        given |= {f"X-{i}": "v" * int(generator.integers(1, 200)) for i in range(int(generator.integers(1, 500)))}
    if generator.random() < 0.1:
        given["X-Long"] = "l" * int(generator.integers(1, 200_000))
    if generator.random() < 0.1:
        given[_one(generator, ("", "a b", "\x00", "é", " X", "X:Y"))] = "1"
    ends = _unanswered(generator) if "Upgrade" in given else Ends.WAITS
    whole = request(material.image(generator), headers=given)
    return Case("headers", (whole,), ends, is_http=False, has_deadline=DEADLINE in given)


def token(material: Material, generator: np.random.Generator) -> Case:
    """None, or one that is mangled: 401 where there are tokens, and no matter where there are none."""
    good = next(iter(_token().values()), "Bearer sa_" + "x" * 43)
    wrong = (good[:-1], good + "x", good.replace(" ", ""), good.swapcase(), "Basic eDp4", "Bearer " + "x" * 9000)
    lines = {"Authorization": _one(generator, (*wrong, *NASTY))}
    whole = request(material.image(generator), headers=lines)
    if generator.random() < 0.3:
        begin = whole.index(b"Authorization: ")
        whole = whole[:begin] + whole[whole.index(b"\r\n", begin) + 2 :]
    return Case("token", (whole,))


METHODS = ("GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD", "TRACE", "CONNECT", "PRI", "x", "G\0T")
PATHS = (
    *(CLASSIFY, "/", "*", "//", "/%00", "/../..", "/" + "a" * 20_000, "http://elsewhere/v1/classify"),
    *("/?" + "a=" * 999, "/page/../x", "/\xff"),
)
VERSIONS = ("HTTP/1.1", "HTTP/1.0", "HTTP/0.9", "HTTP/2.0", "HTTP/9", "", "http/1.1")


def line(_: Material, generator: np.random.Generator) -> Case:
    """Methods, paths and versions that are none."""
    method, version = _one(generator, METHODS), _one(generator, VERSIONS)
    asked = f"{CLASSIFY}?top_k={_one(generator, NASTY)}".replace(" ", "%20")
    path = _one(generator, (*PATHS, asked))
    token = "".join(f"{name}: {value}\r\n" for name, value in _token().items())
    text = f"{method} {path} {version}\r\nHost: torture\r\nConnection: close\r\n{token}Content-Length: 1\r\n\r\nx"
    is_whole = method not in ("CONNECT", "PRI") and version.startswith("HTTP/1")
    ends = Ends.WAITS if is_whole else _unanswered(generator)
    return Case("line", (text.encode("latin-1"),), ends, is_http=False)


def pipelined(material: Material, generator: np.random.Generator) -> Case:
    """Many requests before the first answer, good ones among bad ones."""
    number = int(generator.integers(2, 30))
    keep = {"Connection": "keep-alive"}
    requests: list[bytes] = []
    while len(requests) < number and sum(map(len, requests)) < MAX_PIPELINED_BYTES:
        requests.append(request(material.image(generator), headers=keep))
    requests.append(request(path="/v2/health/live", method="GET"))
    return Case("pipelined", (b"".join(requests),), answers=len(requests))


def slow(material: Material, generator: np.random.Generator) -> Case:
    """In drips; one in three says only a part."""
    whole = request(material.image(generator))
    chunks = _parts(whole, generator, int(generator.integers(2, 12)))
    if generator.random() < 2 / 3:
        return Case("slow", chunks)
    return Case("slow", chunks[:-1], _unanswered(generator), is_http=False)


def stalled(material: Material, generator: np.random.Generator) -> Case:
    """A head or a body that stays open for seconds."""
    whole = request(material.image(generator))
    head = whole.index(b"\r\n\r\n")
    split = _parts(whole[:head], generator, 3) if generator.random() < 0.5 else (whole[:head],)
    chunks = (*split, whole[head:]) if len(split) > 1 else (*split, *_parts(whole[head:], generator, 2))
    return Case("stalled", chunks, pause_s=STALL_S)


def idle(_: Material, generator: np.random.Generator) -> Case:
    """A connection on which nothing is said, or nothing any more."""
    first = request(path="/v2/health/live", method="GET", headers={"Connection": "keep-alive"})
    return Case("idle", ((b"", first)[int(generator.integers(2))],), Ends.STAYS)


def slow_reader(material: Material, generator: np.random.Generator) -> Case:
    """An answer that is taken a byte at a time; the large one does not fit into what lies in between."""
    large = request(path="/openapi.json", method="GET")
    whole = large if generator.random() < 0.5 else request(material.image(generator))
    return Case("slow_reader", (whole,), reads_slowly=True)


def _parts(data: bytes, generator: np.random.Generator, cuts: int) -> tuple[bytes, ...]:
    at = sorted(int(each) for each in generator.integers(0, len(data), cuts))
    return tuple(data[begin:end] for begin, end in zip([0, *at], [*at, len(data)], strict=True))


def garbage(_: Material, generator: np.random.Generator) -> Case:
    """Noise, TLS's first words, HTTP/2's, nothing."""
    known = (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"", b"\r\n" * 50)
    noise = generator.bytes(int(generator.integers(1, 5000)))
    said = (*known, noise, noise)[int(generator.integers(6))]
    return Case("garbage", (said,), _unanswered(generator), is_http=False)


MAKERS: Mapping[Maker, int] = {
    **dict.fromkeys((image, form, inference, length, chunked, headers, line, pipelined, slow, garbage), 10),
    metadata: 6,
    **dict.fromkeys((stalled, token, slow_reader), 3),
    **dict.fromkeys((idle, bomb), 2),
}
"""How often, beside the others."""
