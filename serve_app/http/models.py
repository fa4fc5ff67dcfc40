"""What server and model say of themselves.

GET  /v1/model                           the model, where it runs, and how much it takes
GET  /v2, /v2/                           the server: name, version, extensions
GET  /v2/health/live                     the process answers
GET  /v2/health/ready                    the model is warmed: 200, else 503
GET  /v2/models                          names of the models served
GET  /v2/models/{name}                   tensors; what the checkpoint says of itself, and where it runs
GET  /v2/models/{name}/ready             as /v2/health/ready, with its name
GET  /v2/models/{name}/config            Triton's model configuration
GET  /v2/models/{name}/stats             counts and times of the replica that answers
GET  /v2/models/stats                    the same
POST /v2/repository/index                Triton's list of models

After `{name}` there may be `/versions/1`.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from serve_app.protocol import model
from serve_app.protocol.infer import check_model, require_ready
from serve_app.service import Service

MODEL_PATHS = ("/v2/models/{name}", "/v2/models/{name}/versions/{version}")

Endpoint = Callable[[Request], Awaitable[Response]]


def routes(service: Service) -> list[Route]:
    def ready() -> dict[str, Any]:
        require_ready(service)
        return {"ready": True}

    def model_ready() -> dict[str, Any]:
        return {"name": service.model_name, **ready()}

    plain: dict[str, Callable[[], Any]] = {
        "/v1/model": lambda: model.description(service),
        "/v2": model.server_metadata,
        "/v2/": model.server_metadata,
        "/v2/health/live": lambda: {"live": True},
        "/v2/health/ready": ready,
        "/v2/models": lambda: {"models": [service.model_name]},
        "/v2/models/stats": lambda: model.statistics(service),
    }
    of_a_model: dict[str, Callable[[], Any]] = {
        "": lambda: model.model_metadata(service),
        "/ready": model_ready,
        "/config": lambda: model.model_config(service),
        "/stats": lambda: model.statistics(service),
    }
    return [
        *[Route(path, _answering(content)) for path, content in plain.items()],
        Route("/v2/repository/index", _answering(lambda: model.repository_index(service)), methods=["POST"]),
        *[
            Route(f"{prefix}{path}", _of_a_model(service, content))
            for path, content in of_a_model.items()
            for prefix in MODEL_PATHS
        ],
    ]


# Coroutines, though nothing waits: Starlette would run functions in threads, and statistics are the event loop's.
def _answering(content: Callable[[], Any]) -> Endpoint:
    async def answer(_: Request) -> Response:
        return JSONResponse(content())

    return answer


def _of_a_model(service: Service, content: Callable[[], Any]) -> Endpoint:
    async def answer(request: Request) -> Response:
        check_model(service, request.path_params["name"], request.path_params.get("version", ""))
        return JSONResponse(content())

    return answer
