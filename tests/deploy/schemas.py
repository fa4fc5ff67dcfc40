"""Schemas of others, made to refuse keys that they do not know."""

from typing import Any

from jsonschema import Draft202012Validator


def closed(node: Any) -> Any:
    """A JSON schema, or an OpenAPI schema of Kubernetes, as a JSON schema that refuses unknown keys."""
    if isinstance(node, list):
        return [closed(each) for each in node]
    if not isinstance(node, dict):
        return node
    found = {key: closed(value) for key, value in node.items()}
    if node.get("x-kubernetes-int-or-string") is True:
        found["type"] = ["integer", "string"]
    elif (
        "properties" in node
        and isinstance(node.get("type"), str)
        and not isinstance(node.get("additionalProperties"), dict)
    ):
        found["additionalProperties"] = False
    return found


def refusals(validator: Draft202012Validator, document: Any) -> set[str]:
    return {error.json_path for error in validator.iter_errors(document)}
