"""What engines answered, in a form that tests compare."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from serve_app.decode import Decoder, Pixels
from serve_app.engine import Outcome, Prediction
from serve_app.weights import Checkpoint

NUM_DIGITS = 10


def decoded(checkpoint: Checkpoint, samples: dict[int, bytes]) -> list[Pixels]:
    """The samples 0 to 9."""
    decoder = Decoder(checkpoint.spec.geometry, max_image_pixels=1_000_000)
    return [decoder(samples[digit]) for digit in range(NUM_DIGITS)]


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
