import pytest

from serve_app.config import Args
from serve_app.protocol import model
from serve_app.version import VERSION
from tests.http.service import FakeService


def test_the_server_names_its_extensions() -> None:
    found = model.server_metadata()
    assert found.keys() == {"name", "version", "extensions"}
    assert (found["name"], found["version"]) == ("serve-app", VERSION)
    assert {"binary_tensor_data", "classification", "statistics"} <= set(found["extensions"])


def test_a_model_has_the_protocols_fields_beside_the_checkpoints() -> None:
    assert model.model_metadata(FakeService()) == {
        "name": "digits",
        "device": "fake",
        "batching": {"max_batch_size": 16, "batch_wait_timeout_s": 0.0},
        "versions": ["1"],
        "platform": "pytorch_torchvision",
        "inputs": [
            {"name": "image", "datatype": "BYTES", "shape": [-1, 1]},
            {"name": "pixels", "datatype": "UINT8", "shape": [-1, 4, 4, 3]},
            {"name": "normalized", "datatype": "FP32", "shape": [-1, 3, 4, 4]},
        ],
        "outputs": [
            {"name": "class_ids", "datatype": "INT64", "shape": [-1, -1]},
            {"name": "labels", "datatype": "BYTES", "shape": [-1, -1]},
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, 10]},
            {"name": "logits", "datatype": "FP32", "shape": [-1, 10]},
        ],
        "server": {"name": "serve-app", "version": VERSION},
    }


def test_the_configuration_is_tritons() -> None:
    found = model.model_config(FakeService(args=Args(max_images=8)))
    assert (found["name"], found["max_batch_size"]) == ("digits", 8)
    assert found["input"] == [
        {"name": "image", "data_type": "TYPE_STRING", "dims": [1], "optional": True},
        {"name": "pixels", "data_type": "TYPE_UINT8", "dims": [4, 4, 3], "optional": True},
        {"name": "normalized", "data_type": "TYPE_FP32", "dims": [3, 4, 4], "optional": True},
    ]
    assert [(each["data_type"], each["dims"]) for each in found["output"]] == [
        ("TYPE_INT64", [-1]),
        ("TYPE_STRING", [-1]),
        ("TYPE_FP32", [10]),
        ("TYPE_FP32", [10]),
    ]
    batching = found["dynamic_batching"]
    assert (batching["preferred_batch_size"], batching["max_queue_delay_microseconds"]) == ([16], 0)


def test_statistics_are_of_the_model_and_its_version() -> None:
    service = FakeService()
    service.statistics.succeeded(1.0, 1.0, 1.0)
    (found,) = model.statistics(service)["model_stats"]
    assert (found["name"], found["version"], found["inference_count"]) == ("digits", "1", 1)


@pytest.mark.parametrize(("ready", "state"), [(True, "READY"), (False, "UNAVAILABLE")])
def test_the_repository_has_one_model(ready: bool, state: str) -> None:
    expected = [{"name": "digits", "version": "1", "state": state, "reason": ""}]
    assert model.repository_index(FakeService(ready=ready)) == expected
