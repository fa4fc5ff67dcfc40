"""What /openapi.json promises, held by a real service in both proxy modes."""

import json
import urllib.request

import pytest

from tests.serve.conformance import Findings, examine
from tests.serve.service import config, running

MIN_CASES = 1_500
"""In each of the modes: 3,000 in all."""


@pytest.mark.parametrize("proxy", ["1", "0"], ids=["haproxy", "ordinary proxy"])
def test_no_answer_contradicts_the_document(proxy: str, samples: dict[int, bytes]) -> None:
    content = config({"device": "stub", "stub": {"base_ms": 1, "per_image_ms": 0}, "max_images": 8})
    with running(content, RAY_SERVE_ENABLE_HA_PROXY=proxy) as service:
        with urllib.request.urlopen(f"{service.url}/openapi.json") as answer:
            document = json.load(answer)
        findings = examine(service.url, document, list(samples.values()), max_examples=10, max_examples_of_post=60)

    documented = {f"{method.upper()} {path}" for path, item in document["paths"].items() for method in item}
    assert findings.failures == []
    assert findings.operations == documented
    assert findings.cases >= MIN_CASES
    assert_deep(findings, documented)


def assert_deep(findings: Findings, documented: set[str]) -> None:
    """Requests came as far as an answer, and as far as each kind of refusal."""
    assert [operation for operation in documented if 200 not in findings.statuses(operation)] == []
    assert {200, 400, 413, 415} <= findings.statuses("POST /v1/classify")
    assert {200, 400, 404} <= findings.statuses("POST /v2/models/{name}/infer")
    assert 500 not in {status for _, status in findings.answers}
