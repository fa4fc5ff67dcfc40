"""The tutorial's service: PIL and torchvision's transforms in the handler, fp32 eager, `@serve.batch(32, 10 ms)`."""

from io import BytesIO
from typing import Any

import torch
from PIL import Image
from ray import serve
from ray.serve import Application
from starlette.requests import Request
from torchvision.transforms import v2

from serve_app import weights
from serve_app.config import Args


@serve.deployment
class Tutorial:
    def __init__(self, args: Args) -> None:
        checkpoint = weights.load(args)
        geometry = checkpoint.spec.geometry
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model = checkpoint.build_model().to(self.device)
        self.preprocess = v2.Compose(
            [
                v2.Resize(geometry.resize_size),
                v2.CenterCrop(geometry.crop_size),
                v2.PILToTensor(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(geometry.mean, geometry.std),
            ]
        )

    async def __call__(self, request: Request) -> dict[str, Any]:
        if request.method == "GET":  # "are you ready?"
            return {"models": []}
        image = Image.open(BytesIO(await request.body())).convert("RGB")
        prediction: dict[str, Any] = await self.predict(self.preprocess(image))
        return prediction

    @serve.batch(max_batch_size=32, batch_wait_timeout_s=0.01)
    async def predict(self, images: list[torch.Tensor]) -> list[dict[str, Any]]:
        with torch.inference_mode():
            scores, class_ids = self.model(torch.stack(images).to(self.device)).softmax(dim=1).topk(5)
        return [{"class_ids": i, "scores": s} for i, s in zip(class_ids.tolist(), scores.tolist(), strict=True)]


def build_app(args: Args) -> Application:
    application: Application = Tutorial.bind(args)  # type: ignore[attr-defined]
    return application
