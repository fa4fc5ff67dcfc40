"""The Open Inference Protocol of a real service, asked by clients that nobody here wrote."""

import asyncio
import base64
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest

from serve_app.bench import infer
from serve_app.decode import Pixels
from serve_app.model_spec import Geometry
from serve_app.weights import Checkpoint
from tests.serve.service import REPOSITORY, Service, config, running

CALLS_TIMEOUT_S = 180
PROXIES = {"HAProxy": "1", "ordinary": "0"}
KINDS = ("http", "http.aio", "grpc", "grpc.aio")
INFERENCES = ("image", "pixels NHWC", "pixels NCHW", "normalized NCHW", "normalized NHWC", "without outputs", "terms")
ONLY_OVER_HTTP = ("image JSON", "pixels JSON", "normalized JSON", "gzip", "deflate")
NUM_CLASSES = 10
IMAGES = 32
# For company: of photos that take the device a millisecond, the first would leave while the others arrive.
WAITING = {"max_batch_size": 16, "batch_wait_timeout_s": 0.05}

Calls = dict[str, Any]


@pytest.fixture(scope="module", params=PROXIES)
def service(request: pytest.FixtureRequest) -> Iterator[Service]:
    with running(
        config(user_config=WAITING), grpc=True, RAY_SERVE_ENABLE_HA_PROXY=PROXIES[request.param]
    ) as running_service:
        yield running_service


@pytest.fixture(scope="module")
def native(service: Service, samples: dict[int, bytes]) -> list[list[int]]:
    """What `/v1/classify` says of the samples: class ids, best first."""
    answers = service.post(*samples.values(), query=f"?top_k={NUM_CLASSES}")
    return [[c["class_id"] for c in body["images"][0]["classes"]] for _, body in answers]


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory, samples: dict[int, bytes], digits: list[Pixels], checkpoint: Checkpoint
) -> Path:
    """What the clients send."""
    path = tmp_path_factory.mktemp("tensors")
    for number, data in samples.items():
        (path / f"{number}.png").write_bytes(data)
    pixels = np.stack(digits)
    np.save(path / "pixels.npy", pixels)
    np.save(path / "normalized.npy", normalized(pixels, checkpoint.spec.geometry))
    return path


def normalized(pixels: Pixels, geometry: Geometry) -> np.ndarray[Any, np.dtype[np.float32]]:
    """uint8 (N, H, W, 3) -> float32 (N, 3, H, W), as the geometry says."""
    scaled = (pixels / 255 - geometry.mean) / geometry.std
    return scaled.transpose(0, 3, 1, 2).astype(np.float32)


@pytest.fixture(scope="module")
def asked(service: Service, folder: Path) -> Callable[[str], Calls]:
    """All that a kind of Triton's clients asks, and the answers; each kind asks once."""

    @cache
    def ask(kind: str) -> Calls:
        address = service.grpc_address if kind.startswith("grpc") else service.url.removeprefix("http://")
        command = [sys.executable, "-m", "tests.serve.clients.triton", kind, address, str(folder)]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=CALLS_TIMEOUT_S)
        assert done.returncode == 0, done.stderr
        return {"kind": kind, **json.loads(done.stdout)}

    return ask


# Not of the module: pytest would start a service for each of them.
@pytest.fixture(params=KINDS)
def calls(request: pytest.FixtureRequest, asked: Callable[[str], Calls]) -> Calls:
    return asked(request.param)


def best_of(outputs: dict[str, Any]) -> list[list[int]]:
    """The first class of each image, by each of the outputs."""
    return [
        [row[0] for row in outputs["class_ids"]],
        [NAMES.index(row[0]) for row in outputs["labels"]],
        np.argmax(outputs["probabilities"], axis=1).tolist(),
        np.argmax(outputs["logits"], axis=1).tolist(),
    ]


NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def test_health_and_metadata(calls: Calls) -> None:
    assert [calls[what] for what in ("live", "ready", "model ready", "version ready")] == [True] * 4
    assert calls["server"]["name"] == "serve-app"
    assert {"binary_tensor_data", "classification", "statistics", "model_configuration"} <= set(
        calls["server"]["extensions"]
    )
    metadata = calls["metadata"]
    assert (metadata["name"], metadata["platform"], metadata["versions"]) == ("digits", "pytorch_torchvision", ["1"])
    assert {i["name"]: i["datatype"] for i in metadata["inputs"]} == {
        "image": "BYTES",
        "pixels": "UINT8",
        "normalized": "FP32",
    }
    assert [o["name"] for o in metadata["outputs"]] == ["class_ids", "labels", "probabilities", "logits"]


def test_configuration_and_repository(calls: Calls) -> None:
    configuration = calls["config"].get("config", calls["config"])
    assert (configuration["name"], configuration["max_batch_size"]) == ("digits", 32)
    assert [i["data_type"] for i in configuration["input"]] == ["TYPE_STRING", "TYPE_UINT8", "TYPE_FP32"]
    repository = calls["repository"]
    (model,) = repository["models"] if isinstance(repository, dict) else repository
    assert (model["name"], model["state"]) == ("digits", "READY")


def test_every_input_gives_the_classes_of_v1_classify(calls: Calls, native: list[list[int]]) -> None:
    names = [*INFERENCES, *(ONLY_OVER_HTTP if calls["kind"].startswith("http") else ())]
    names += [] if calls["kind"].endswith("aio") else ["async_infer"]
    first = [ids[0] for ids in native]
    assert first == list(range(NUM_CLASSES))  # the samples are one of each digit
    for name in names:
        assert all(best == first for best in best_of(calls[name]["outputs"])), name
    assert [row[0] for row in calls["one"]["outputs"]["class_ids"]] == [7]


def test_outputs_agree_with_one_another(calls: Calls, native: list[list[int]]) -> None:
    outputs = calls["image"]["outputs"]
    assert outputs["class_ids"] == [ids[:5] for ids in native]
    assert outputs["labels"] == [[NAMES[i] for i in ids[:5]] for ids in native]
    np.testing.assert_allclose(np.sum(outputs["probabilities"], axis=1), 1, rtol=1e-5)
    powers = np.exp(outputs["logits"])
    np.testing.assert_allclose(powers / powers.sum(axis=1, keepdims=True), outputs["probabilities"], atol=1e-6)


def test_classification_gives_value_index_and_label(calls: Calls, native: list[list[int]]) -> None:
    rows = calls["classification"]["outputs"]["probabilities"]
    assert len(rows) == NUM_CLASSES
    probabilities = calls["image"]["outputs"]["probabilities"]
    for row, ids, values in zip(rows, native, probabilities, strict=True):
        for text, class_id in zip(row, ids, strict=False):
            value, index, label = text.split(":")
            assert (int(index), label) == (class_id, NAMES[class_id])
            assert float(value) == pytest.approx(values[class_id], abs=0.02)  # bf16: of another batch size


def test_the_id_is_echoed(calls: Calls) -> None:
    assert calls["terms"]["id"] == "r-1"


def test_statistics_count_images_and_executions(calls: Calls) -> None:
    (model,) = calls["stats"]["model_stats"]
    sizes = {int(batch["batch_size"]): int(batch["compute_infer"]["count"]) for batch in model["batch_stats"]}
    assert int(model["inference_count"]) >= 8 * NUM_CLASSES
    assert int(model["execution_count"]) == sum(sizes.values()) < int(model["inference_count"])
    assert max(sizes) > 1
    assert int(model["inference_stats"]["success"]["ns"]) > 0


@pytest.mark.parametrize(
    ("case", "http", "grpc", "words"),
    [
        ("wrong model", "404", "NOT_FOUND", "digits"),
        ("wrong version", "404", "NOT_FOUND", "version 1"),
        ("unknown model", "404", "NOT_FOUND", "digits"),
        ("wrong name", "400", "INVALID_ARGUMENT", "image, pixels, normalized"),
        ("wrong datatype", "400", "INVALID_ARGUMENT", "UINT8"),
        ("wrong shape", "400", "INVALID_ARGUMENT", "shape"),
        ("wrong output", "400", "INVALID_ARGUMENT", "class_ids"),
        ("not a number", "400", "INVALID_ARGUMENT", "finite"),
        ("damaged", "400", "INVALID_ARGUMENT", "image"),
        ("too many", "400", "INVALID_ARGUMENT", "32"),
        ("late", "504", "DEADLINE_EXCEEDED", "deadline"),
    ],
)
def test_refusals(calls: Calls, case: str, http: str, grpc: str, words: str) -> None:
    refusal = calls[case]
    assert refusal is not None, "it was answered"
    assert (http if calls["kind"].startswith("http") else grpc) in str(refusal["status"])
    assert words in refusal["message"]


def test_one_request_of_32_images_and_32_of_one_ride_in_batches(
    service: Service, samples: dict[int, bytes], native: list[list[int]]
) -> None:
    files = [samples[i % NUM_CLASSES] for i in range(IMAGES)]
    expected = [native[i % NUM_CLASSES][0] for i in range(IMAGES)]
    before = batches(service)
    assert inferred(service, files) == expected
    together = batches(service)
    assert asyncio.run(inferred_at_once(service, files)) == expected
    for earlier, later in ((before, together), (together, batches(service))):
        executions = {size: later[size] - earlier.get(size, 0) for size in later}
        assert sum(size * number for size, number in executions.items()) == IMAGES
        assert sum(executions.values()) <= IMAGES // 2


def batches(service: Service) -> dict[int, int]:
    """Executions by the number of images in them."""
    (model,) = service.get("/v2/models/digits/stats")[1]["model_stats"]
    return {batch["batch_size"]: batch["compute_infer"]["count"] for batch in model["batch_stats"]}


def inferred(service: Service, files: list[bytes]) -> list[int]:
    """The first class of each, from one binary request, by curl."""
    body, headers = infer.request(files)
    options = [option for name, value in headers.items() for option in ("-H", f"{name}: {value}")]
    answer = curl("--data-binary", "@-", *options, f"{service.url}/v2/models/digits/infer", stdin=body)
    ids: list[int] = answer["outputs"][0]["data"]
    return ids


async def inferred_at_once(service: Service, files: list[bytes]) -> list[int]:
    """The first class of each, from a request each."""
    async with aiohttp.ClientSession(service.url, connector=aiohttp.TCPConnector(limit=0)) as session:

        async def one(file: bytes) -> int:
            body, headers = infer.request([file])
            async with session.post("/v2/models/digits/infer", data=body, headers=headers) as response:
                return int((await response.json())["outputs"][0]["data"][0])

        return await asyncio.gather(*map(one, files))


def test_curl_with_json(service: Service, samples: dict[int, bytes]) -> None:
    """The specification's example, with our tensors."""
    image = base64.b64encode(samples[7]).decode()
    request = {
        "id": "42",
        "inputs": [{"name": "image", "shape": [1, 1], "datatype": "BYTES", "data": [image]}],
        "outputs": [{"name": "probabilities", "parameters": {"classification": 2}}],
    }
    answer = curl("-d", json.dumps(request), f"{service.url}/v2/models/digits/versions/1/infer")
    assert (answer["id"], answer["model_name"], answer["model_version"]) == ("42", "digits", "1")
    (output,) = answer["outputs"]
    assert (output["datatype"], output["shape"]) == ("BYTES", [1, 2])
    assert output["data"][0].endswith(":7:seven")


def curl(*arguments: str, stdin: bytes = b"") -> Any:
    done = subprocess.run(["curl", "-sS", *arguments], input=stdin, capture_output=True, check=True, timeout=60)
    return json.loads(done.stdout)


def test_bench_infer_measures_a_running_service(service: Service) -> None:
    images = [(REPOSITORY / "serve_app/bundled/samples/7.png").read_bytes()] * 4
    done: list[str] = []
    rounds = asyncio.run(infer.measure(service.url, images, 2, 60, done.append))
    assert done == ["warm-up", "round 1", "round 2"]
    assert all(len(seconds) == 2 for seconds in rounds.seconds.values())
    assert all(rounds.per_s(mode) > 0 for mode in infer.MODES)
