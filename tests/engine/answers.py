"""What engines answered, in a form that tests compare."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from serve_app.decode import Decoder, Pixels
from serve_app.engine import Normalised, Outcome, Prediction
from serve_app.model_spec import Geometry
from serve_app.weights import Checkpoint

NUM_DIGITS = 10


def decoded(checkpoint: Checkpoint, samples: dict[int, bytes]) -> list[Pixels]:
    """The samples 0 to 9."""
    decoder = Decoder(checkpoint.spec.geometry, max_image_pixels=1_000_000)
    return [decoder(samples[digit]) for digit in range(NUM_DIGITS)]


def normalised(crop: Pixels, geometry: Geometry) -> Normalised:
    """The crop as a client would send it: the formula of the README, rounded to float32."""
    mean, std = (np.array(values).reshape(3, 1, 1) for values in (geometry.mean, geometry.std))
    return Normalised(((crop.transpose(2, 0, 1) / 255 - mean) / std).astype(np.float32))


def predictions(outcomes: Sequence[Outcome]) -> list[Prediction]:
    """All of them; none was refused."""
    found = [outcome for outcome in outcomes if isinstance(outcome, Prediction)]
    assert len(found) == len(outcomes)
    return found


def best(outcomes: Sequence[Outcome]) -> list[int]:
    return [int(prediction.class_ids[0]) for prediction in predictions(outcomes)]


def by_class(outcomes: Sequence[Outcome]) -> npt.NDArray[np.float32]:
    """float32 (N, k): the scores in the order of the class ids, of which there are k."""
    return np.stack([prediction.scores[np.argsort(prediction.class_ids)] for prediction in predictions(outcomes)])


def logits(outcomes: Sequence[Outcome]) -> npt.NDArray[np.float32]:
    """float32 (N, num_classes)"""
    return np.stack([prediction.logits for prediction in predictions(outcomes)])


def assert_logits_are_those_of_the_scores(outcomes: Sequence[Outcome], num_classes: int) -> None:
    """No two classes of an image are as likely as each other."""
    for prediction in predictions(outcomes):
        assert prediction.logits.shape == (num_classes,)
        assert prediction.logits.dtype == np.float32
        powers = np.exp(prediction.logits - prediction.logits.max())
        best_first = np.argsort(-prediction.logits)[: len(prediction.class_ids)]
        assert best_first.tolist() == prediction.class_ids.tolist()
        np.testing.assert_allclose(prediction.scores, (powers / powers.sum())[best_first], atol=1e-6)
