"""Whatever JSON can say, and requests that are almost right: what hypothesis tries."""

from collections.abc import Callable
from typing import Any, TypeVar

from hypothesis import strategies as st

from serve_app.errors import RequestError

T = TypeVar("T")

MAX_MESSAGE = 500
"""Characters of a message to a client, whatever it sent."""

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([0, 1, 2, 3, 4, 48, -1, 2**31, 2**63, 2**64, 10**4000, -(10**4000)]),
    st.floats(),
    st.text(max_size=50),
    st.sampled_from(
        ["image", "pixels", "normalized", "BYTES", "UINT8", "FP32", "logits", "\U000e0001" * 100, "A" * 600]
    ),
)
ANY = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=60), inner, max_size=6)
)
SHAPES = ANY | st.sampled_from([[1], [1, 1], [2], [1, 4, 4, 3], [2, 3, 4, 4], [0], [], [-1, 4, 4, 3], [True], [1.0]])


def _perhaps(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


PARAMETERS = ANY | _perhaps(
    timeout=ANY, priority=ANY, top_k=ANY, binary_data_output=ANY, binary_data=ANY, binary_data_size=ANY
)
INPUTS = _perhaps(
    name=st.sampled_from(["image", "pixels", "normalized"]) | ANY,
    datatype=st.sampled_from(["BYTES", "UINT8", "FP32"]) | ANY,
    shape=SHAPES,
    data=ANY | st.just([7] * 48) | st.just(["Nw=="]),
    parameters=PARAMETERS,
)
OUTPUTS = _perhaps(name=st.sampled_from(["logits", "class_ids"]) | ANY, parameters=PARAMETERS)
REQUESTS = _perhaps(
    id=ANY,
    parameters=PARAMETERS,
    inputs=ANY | st.lists(INPUTS | ANY, max_size=2),
    outputs=ANY | st.lists(OUTPUTS | ANY, max_size=3),
)


def made(make: Callable[[], T]) -> T | None:
    """What `make` makes of what a client sent; None where it refuses that, in a message of bounded length."""
    try:
        return make()
    except RequestError as error:
        length = len(error.message)
    assert length < MAX_MESSAGE
    return None
