"""Everything that Triton's Python clients ask a service, as JSON on stdout.

    python -m tests.serve.clients.triton KIND ADDRESS FOLDER

KIND: http, http.aio, grpc or grpc.aio. FOLDER: `0.png` ... and `pixels.npy` (uint8 N, H, W, 3),
`normalized.npy` (float32 N, 3, H, W). A process of its own: tritonclient.grpc and serve_app.grpc
register the same protobuf symbols. Nothing of serve_app is imported here.
"""

import asyncio
import base64
import importlib
import inspect
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tritonclient.utils import InferenceServerException

MODEL = "digits"
OUTPUTS = ("class_ids", "labels", "probabilities", "logits")
CLIENT_TIMEOUT_S = 60
Calls = dict[str, Any]


class Asker:
    def __init__(self, kind: str, address: str, folder: Path) -> None:
        self.kind = kind
        self.is_http = kind.startswith("http")
        self.is_async = kind.endswith("aio")
        self.client_module = importlib.import_module(f"tritonclient.{kind}")
        self.tensors = importlib.import_module(f"tritonclient.{kind.partition('.')[0]}")
        self.address = address
        files = [path.read_bytes() for path in sorted(folder.glob("*.png"))]
        self.files = np.array(files, dtype=np.object_).reshape(-1, 1)
        self.pixels = np.load(folder / "pixels.npy")
        self.normalized = np.load(folder / "normalized.npy")

    async def everything(self) -> Calls:
        client = self.client_module.InferenceServerClient(self.address)
        try:
            return {**await self.questions(client), **await self.inferences(client), **await self.refusals(client)}
        finally:
            await maybe(client.close())

    async def questions(self, client: Any) -> Calls:
        as_json = {} if self.is_http else {"as_json": True}
        return {
            "live": await maybe(client.is_server_live()),
            "ready": await maybe(client.is_server_ready()),
            "model ready": await maybe(client.is_model_ready(MODEL)),
            "version ready": await maybe(client.is_model_ready(MODEL, "1")),
            "server": await maybe(client.get_server_metadata(**as_json)),
            "metadata": await maybe(client.get_model_metadata(MODEL, **as_json)),
            "config": await maybe(client.get_model_config(MODEL, **as_json)),
            "repository": await maybe(client.get_model_repository_index(**as_json)),
        }

    async def inferences(self, client: Any) -> Calls:
        found = {
            "image": await self.infer(client, "image", self.files),
            "pixels NHWC": await self.infer(client, "pixels", self.pixels),
            "pixels NCHW": await self.infer(client, "pixels", self.pixels.transpose(0, 3, 1, 2)),
            "normalized NCHW": await self.infer(client, "normalized", self.normalized),
            "normalized NHWC": await self.infer(client, "normalized", self.normalized.transpose(0, 2, 3, 1)),
            "one": await self.infer(client, "image", self.files[7:8]),
            "without outputs": await self.infer(client, "image", self.files, outputs=None),
            "classification": await self.infer(
                client, "image", self.files, outputs=[self.output("probabilities", class_count=3)]
            ),
            "terms": await self.infer(client, "image", self.files, request_id="r-1", timeout=30_000_000, priority=2),
        }
        if self.is_http:
            found |= await self.only_over_http(client)
        if not self.is_async:
            found["async_infer"] = self.async_infer(client)
        stats = await maybe(client.get_inference_statistics(MODEL, **({} if self.is_http else {"as_json": True})))
        return {**found, "stats": stats}

    async def only_over_http(self, client: Any) -> Calls:
        text = np.array([base64.b64encode(f) for f in self.files.ravel()], dtype=np.object_).reshape(-1, 1)
        outputs = [self.output(name, binary_data=False) for name in OUTPUTS]
        found = {
            "image JSON": await self.infer(client, "image", text, outputs=outputs, binary_data=False),
            "pixels JSON": await self.infer(client, "pixels", self.pixels, outputs=outputs, binary_data=False),
            "normalized JSON": await self.infer(client, "normalized", self.normalized, binary_data=False),
        }
        for algorithm in ("gzip", "deflate"):
            found[algorithm] = await self.infer(
                client,
                "pixels",
                self.pixels,
                request_compression_algorithm=algorithm,
                response_compression_algorithm=algorithm,
            )
        return found

    async def refusals(self, client: Any) -> Calls:
        damaged = self.files.copy()
        damaged[3, 0] = damaged[3, 0][:60]
        return {
            "wrong model": await refusal(self.infer(client, "image", self.files, model="birds")),
            "wrong version": await refusal(self.infer(client, "image", self.files, model_version="2")),
            "wrong name": await refusal(self.infer(client, "images", self.files)),
            "wrong datatype": await refusal(self.infer(client, "pixels", self.normalized)),
            "wrong shape": await refusal(self.infer(client, "pixels", self.pixels[:, 1:])),
            "wrong output": await refusal(self.infer(client, "image", self.files, outputs=[self.output("scores")])),
            "not a number": await refusal(self.infer(client, "normalized", self.normalized * np.float32("nan"))),
            "damaged": await refusal(self.infer(client, "image", damaged)),
            "too many": await refusal(self.infer(client, "image", np.repeat(self.files, 4, axis=0))),
            "late": await refusal(self.infer(client, "image", self.files, timeout=1)),
            "unknown model": await refusal(metadata_of(client, "birds")),
        }

    def input(self, name: str, array: np.ndarray[Any, Any], binary_data: bool | None = None) -> Any:
        datatype = {"O": "BYTES", "u": "UINT8", "f": "FP32"}[array.dtype.kind]
        tensor = self.tensors.InferInput(name, list(array.shape), datatype)
        how = {} if binary_data is None else {"binary_data": binary_data}
        tensor.set_data_from_numpy(np.ascontiguousarray(array), **how)
        return tensor

    def output(self, name: str, **how: Any) -> Any:
        return self.tensors.InferRequestedOutput(name, **how)

    def request(self, name: str, array: np.ndarray[Any, Any], binary_data: bool | None = None, **more: Any) -> Any:
        outputs = more.pop("outputs", [self.output(output) for output in OUTPUTS])
        model = more.pop("model", MODEL)
        return {"model_name": model, "inputs": [self.input(name, array, binary_data)], "outputs": outputs, **more}

    async def infer(self, client: Any, name: str, array: np.ndarray[Any, Any], **how: Any) -> Calls:
        return contents(await maybe(client.infer(**self.request(name, array, **how))))

    def async_infer(self, client: Any) -> Calls:
        """Of the clients that are not async themselves."""
        request = self.request("image", self.files)
        if self.is_http:
            return contents(client.async_infer(**request).get_result())
        import queue

        done: queue.Queue[tuple[Any, Any]] = queue.Queue()
        client.async_infer(callback=lambda result, error: done.put((result, error)), **request)
        result, error = done.get(timeout=CLIENT_TIMEOUT_S)
        assert error is None, error
        return contents(result)


async def maybe(result: Any) -> Any:
    return await result if inspect.isawaitable(result) else result


async def metadata_of(client: Any, model: str) -> Any:
    return await maybe(client.get_model_metadata(model))


async def refusal(call: Any) -> dict[str, str | None] | None:
    """What was said; None: it was answered."""
    try:
        await call
    except InferenceServerException as error:
        return {"status": error.status(), "message": error.message()}
    return None


def contents(result: Any) -> Calls:
    response = result.get_response()
    is_json = isinstance(response, dict)
    names = [
        output["name"] if is_json else output.name for output in (response["outputs"] if is_json else response.outputs)
    ]
    found = {name: plain(result.as_numpy(name)) for name in names}
    return {"id": response.get("id", "") if is_json else response.id, "outputs": found}


def plain(array: np.ndarray[Any, Any]) -> Any:
    if array.dtype == np.object_:
        return (
            np.array([e.decode() if isinstance(e, bytes) else e for e in array.ravel()]).reshape(array.shape).tolist()
        )
    return array.tolist()


def serialised(run: Callable[[], Any]) -> str:
    return json.dumps(asyncio.run(run()))


if __name__ == "__main__":
    asker = Asker(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
    print(serialised(asker.everything))
