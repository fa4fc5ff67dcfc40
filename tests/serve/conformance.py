"""Schemathesis against a running service: requests made from its own document, every answer held against that."""

import base64
import json
import os
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import schemathesis
import schemathesis.hooks
from schemathesis.engine import events, from_schema

OCTETS = "application/octet-stream"
UNAVAILABLE = ["503", "504"]
"""Of a service that is busy, or that was given too little time: documented, and no bug."""
CHECKS: dict[str, Any] = {
    "enabled": False,
    "not_a_server_error": {"enabled": True, "expected-statuses": ["2xx", "3xx", "4xx", *UNAVAILABLE]},
    "status_code_conformance": {"enabled": True},
    "content_type_conformance": {"enabled": True},
    "response_headers_conformance": {"enabled": True},
    "response_schema_conformance": {"enabled": True},
    "negative_data_rejection": {"enabled": True, "expected-statuses": ["4xx", *UNAVAILABLE]},
    "positive_data_acceptance": {"enabled": True, "expected-statuses": ["2xx", "304", *UNAVAILABLE]},
    "unsupported_method": {"enabled": True},
}
# No schema says that bytes are an image, or that data has as many elements as its shape says.
POST = {"include-method": "POST", "checks": {"positive_data_acceptance": {"enabled": False}}}


@dataclass
class Findings:
    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    """By operation ("GET /v2") and status."""
    failures: list[str] = field(default_factory=list)

    @property
    def cases(self) -> int:
        return self.answers.total()

    @property
    def operations(self) -> set[str]:
        return {operation for operation, _ in self.answers}

    def statuses(self, operation: str) -> set[int]:
        return {status for each, status in self.answers if each == operation}


def examine(
    url: str, document: dict[str, Any], images: Sequence[bytes], max_examples: int, max_examples_of_post: int
) -> Findings:
    """Every operation of the document, with values at the limits first and random ones then.

    `images`: some that the service reads. The same examples each time where CI is set.
    """
    # Not from its URL: schemathesis leaves out the path that it has a document from.
    schema = schemathesis.openapi.from_dict(document, config=_config(max_examples, max_examples_of_post))
    schema.config.update(base_url=url)
    findings = Findings()
    with _sensible_inputs(images):
        for event in from_schema(schema).execute():
            _take(event, findings)
    return findings


def _config(max_examples: int, max_examples_of_post: int) -> schemathesis.Config:
    in_ci = bool(os.environ.get("CI"))
    return schemathesis.Config.from_dict(
        {
            **({"seed": 1} if in_ci else {}),
            "generation": {"max-examples": max_examples, "deterministic": in_ci, "database": "none"},
            "checks": CHECKS,
            "phases": {"stateful": {"enabled": False}},
            "operations": [{**POST, "generation": {"max-examples": max_examples_of_post}}],
        }
    )


def _take(event: events.EngineEvent, findings: Findings) -> None:
    if isinstance(event, events.ScenarioFinished):
        recorder = event.recorder
        for interaction in recorder.interactions.values():
            status = 0 if interaction.response is None else interaction.response.status_code
            findings.answers[recorder.label, status] += 1
        findings.failures += [
            f"{recorder.label}: {check.name}: {check.failure_info.failure}\n{check.failure_info.code_sample}"
            for checks in recorder.checks.values()
            for check in checks
            if check.failure_info is not None
        ]
    elif isinstance(event, events.NonFatalError):
        findings.failures.append(f"{event.label}: {event.value}")
    elif isinstance(event, events.FatalError):
        findings.failures.append(str(event.exception))


@contextmanager
def _sensible_inputs(images: Sequence[bytes]) -> Iterator[None]:
    """Half of the inference requests that are as the schema says hold an image: nearly all would be refused else."""

    def before_call(_: schemathesis.HookContext, case: schemathesis.Case[Any], __: dict[str, Any]) -> None:
        is_as_it_should_be = case.meta is not None and case.meta.generation.mode.is_positive
        if is_as_it_should_be and case.path.endswith("/infer") and len(repr(case.body)) % 2:
            _give_image(case, images[len(repr(case.body)) % len(images)])

    schemathesis.hook(before_call)
    try:
        yield
    finally:
        schemathesis.hooks.unregister(before_call)


def _give_image(case: schemathesis.Case[Any], image: bytes) -> None:
    if case.media_type == OCTETS:
        text, tensor = _binary_request(image)
        case.headers["Inference-Header-Content-Length"] = str(len(text))
        case.body = text + tensor
    elif isinstance(case.body, dict):
        case.headers.pop("Inference-Header-Content-Length", None)
        inputs: Any = [{"name": "image", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(image).decode()]}]
        case.body = {**case.body, "inputs": inputs}


def _binary_request(image: bytes) -> tuple[bytes, bytes]:
    """The JSON, and the tensor behind it."""
    data = struct.pack("<I", len(image)) + image
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(data)}}
    return json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode(), data
