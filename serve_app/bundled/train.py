"""Train the bundled checkpoint: `python -m serve_app.bundled.train` (under a minute on two cores).

The worked example of serving your own network: train, put what you know into a `Card`, save both as
one safetensors file. Data: scikit-learn's copy of the UCI handwritten digits (E. Alpaydin and
C. Kaynak, CC BY 4.0), 1797 grey images of 8 x 8 pixels.
"""

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torchvision.transforms import v2

from serve_app import architectures
from serve_app.decode import Decoder, Pixels
from serve_app.engine.network import Normalise
from serve_app.model_spec import Card, Geometry
from serve_app.weights import BUNDLED_PATH, CARD_KEY

SEED = 0
EPOCHS = 60
BATCH_SIZE = 64
GEOMETRY = Geometry(resize_size=32, crop_size=32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
SAMPLES = Path(__file__).parent / "samples"


@dataclass(frozen=True)
class Digits:
    """PNG files of 8 x 8 grey pixels, and the digit that each shows."""

    files: list[bytes]
    labels: list[int]


def split() -> tuple[Digits, Digits]:
    """(training, held out): 1437 and 360 digits, the same ones at every call."""
    data = load_digits()
    images: list[tuple[npt.NDArray[np.float64], int]] = list(zip(data.images, data.target.tolist(), strict=True))
    training, held_out = train_test_split(images, test_size=0.2, random_state=SEED, stratify=data.target)
    return _as_files(training), _as_files(held_out)


def _as_files(images: list[tuple[npt.NDArray[np.float64], int]]) -> Digits:
    return Digits([_png(_grey(image)) for image, _ in images], [label for _, label in images])


def _grey(image: npt.NDArray[np.float64]) -> Image.Image:
    return Image.fromarray((image * 255 / 16).astype(np.uint8))


def _png(image: Image.Image) -> bytes:
    file = BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def _pixels(digits: Digits) -> torch.Tensor:
    """uint8 (N, 32, 32, 3), decoded just as the service does it."""
    decode = Decoder(GEOMETRY, max_image_pixels=1_000_000)
    decoded: list[Pixels] = [decode(file) for file in digits.files]
    return torch.from_numpy(np.stack(decoded))


def train(digits: Digits) -> torch.nn.Module:
    torch.manual_seed(SEED)
    model = architectures.build(architectures.NARROW, num_classes=10)
    inputs = Normalise(GEOMETRY, torch.float32)(_pixels(digits))
    labels = torch.tensor(digits.labels)
    augment = v2.RandomAffine(degrees=[-12, 12], translate=(0.08, 0.08), scale=(0.9, 1.1), shear=8, fill=-1)
    optimiser = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
    steps = EPOCHS * -(-len(labels) // BATCH_SIZE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=4e-3, total_steps=steps)
    for epoch in range(EPOCHS):
        for chosen in torch.randperm(len(labels)).split(BATCH_SIZE):
            batch = torch.stack([augment(image) for image in inputs[chosen]])
            loss = torch.nn.functional.cross_entropy(model(batch), labels[chosen], label_smoothing=0.05)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        print(f"epoch {epoch + 1:2}/{EPOCHS}  loss of the last batch {loss.item():.3f}")
    return model.eval()


@torch.inference_mode()
def accuracy(model: torch.nn.Module, digits: Digits) -> float:
    predicted = model(Normalise(GEOMETRY, torch.float32)(_pixels(digits))).argmax(dim=1)
    return float((predicted == torch.tensor(digits.labels)).float().mean())


def save(model: torch.nn.Module, measured: float) -> None:
    card = Card(
        name="digits",
        arch=architectures.NARROW,
        labels=("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
        geometry=GEOMETRY,
        accuracy=round(measured, 4),
        description="Handwritten digits of scikit-learn; accuracy on 360 held-out ones. For trying the service.",
    )
    metadata = {"format": "pt", CARD_KEY: card.model_dump_json()}
    save_file(model.state_dict(), BUNDLED_PATH, metadata=metadata)


def save_samples(digits: Digits) -> None:
    """One held-out digit of each kind, enlarged so that a person can see it."""
    SAMPLES.mkdir(exist_ok=True)
    for label in range(10):
        image = Image.open(BytesIO(digits.files[digits.labels.index(label)]))
        image.resize((128, 128), Image.Resampling.BICUBIC).save(SAMPLES / f"{label}.png")


if __name__ == "__main__":
    training, held_out = split()
    trained = train(training)
    held_out_accuracy = accuracy(trained, held_out)
    save(trained, held_out_accuracy)
    save_samples(held_out)
    print(f"{held_out_accuracy:.4f} of {len(held_out.files)} held-out digits; saved {BUNDLED_PATH}")
