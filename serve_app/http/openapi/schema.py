"""JSON Schema (2020-12, as OpenAPI 3.1 has it), as plain dicts."""

from collections.abc import Iterable
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

Schema = dict[str, Any]

PREFIX = "#/components/schemas/"
TEXT: Schema = {"type": "string"}
FLAG: Schema = {"type": "boolean"}
COUNT: Schema = {"type": "integer", "minimum": 0}
NUMBER: Schema = {"type": "number"}
MILLISECONDS: Schema = {"type": "number", "minimum": 0}


def ref(name: str) -> Schema:
    """A schema of the document's components."""
    return {"$ref": PREFIX + name}


def closed(properties: Schema, optional: Iterable[str] = (), **more: Any) -> Schema:
    """An object of these properties and no others; all are there but the `optional` ones."""
    left_out = set(optional)
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in left_out],
        "additionalProperties": False,
        **more,
    }


def array(items: Schema, **more: Any) -> Schema:
    """A list. `more`: minItems, maxItems."""
    return {"type": "array", "items": items, **more}


def nullable(schema: Schema) -> Schema:
    """The schema, or null."""
    return {"anyOf": [schema, {"type": "null"}]}


def of_models(*models: type[BaseModel], mode: Literal["validation", "serialization"] = "validation") -> Schema:
    """Pydantic's schemas of the models and of those that they hold, by title."""
    _, definitions = models_json_schema([(model, mode) for model in models], ref_template=PREFIX + "{model}")
    found: Schema = definitions["$defs"]
    titles = {name: schema["title"] for name, schema in found.items()}
    return {titles[name]: _renamed(schema, titles) for name, schema in found.items()}


def _renamed(part: Any, titles: dict[str, str]) -> Any:
    """With references by title, which a client sees, in place of those by class."""
    if isinstance(part, list):
        return [_renamed(each, titles) for each in part]
    if not isinstance(part, dict):
        return part
    return {
        key: PREFIX + titles[value.removeprefix(PREFIX)] if key == "$ref" else _renamed(value, titles)
        for key, value in part.items()
    }
