"""Totality: an error class that nobody mapped, drew or documented fails here."""

import pickle
import re
from pathlib import Path

import pytest

from serve_app import decode, errors, http
from serve_app.errors import INTERNAL_CODE, RequestError

README = Path(__file__).parents[1] / "README.md"


def subclasses(parent: type[RequestError]) -> list[type[RequestError]]:
    return [each for child in parent.__subclasses__() for each in (child, *subclasses(child))]


# Imported here, the modules that raise errors would betray any that they define themselves.
RAISING = (decode, http)
ALL = [error for error in subclasses(RequestError) if error.__module__.startswith("serve_app.")]
each_error = pytest.mark.parametrize("error", ALL, ids=lambda error: error.__name__)


def test_every_error_is_in_the_errors_module() -> None:
    assert {error.__module__ for error in ALL} == {errors.__name__}


def test_codes_are_unique() -> None:
    codes = [INTERNAL_CODE, *(error.code for error in ALL)]
    assert len(set(codes)) == len(codes) > 1


@each_error
def test_a_code_is_the_class_name_in_snake_case(error: type[RequestError]) -> None:
    assert error.code == re.sub(r"(?<!^)(?=[A-Z])", "_", error.__name__).lower()


@each_error
def test_the_status_is_a_client_or_server_error(error: type[RequestError]) -> None:
    assert 400 <= error.status < 600


@each_error
def test_the_message_survives_pickling(error: type[RequestError]) -> None:
    back = pickle.loads(pickle.dumps(error("what to do")))  # noqa: S301 - our own bytes
    assert (type(back), back.message, str(back)) == (error, "what to do", "what to do")


@each_error
def test_the_module_docstring_draws_it_with_its_status(error: type[RequestError]) -> None:
    assert re.search(rf"[├└]── {error.__name__} +{error.status} ", errors.__doc__ or "")


def test_the_module_docstring_draws_nothing_else() -> None:
    drawn = re.findall(r"[├└]── (\w+)", errors.__doc__ or "")
    assert sorted(drawn) == sorted(error.__name__ for error in ALL)


@each_error
def test_the_readme_has_its_code_and_status_on_one_line(error: type[RequestError]) -> None:
    lines = [line for line in README.read_text("utf-8").splitlines() if f"`{error.code}`" in line]
    assert any(re.search(rf"\b{error.status}\b", line) for line in lines)
