from serve_app.protocol.statistics import Statistics

STATS = {"success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit", "cache_miss"}


def test_before_the_first_image_all_is_zero_and_every_key_of_the_extension_is_there() -> None:
    found = Statistics().as_dict()
    assert found.keys() == {
        *("last_inference", "inference_count", "execution_count", "inference_stats"),
        *("response_stats", "batch_stats", "memory_usage"),
    }
    assert found["inference_stats"].keys() == STATS
    assert all(each == {"count": 0, "ns": 0} for each in found["inference_stats"].values())
    assert (found["last_inference"], found["inference_count"], found["execution_count"]) == (0, 0, 0)
    assert (found["batch_stats"], found["response_stats"], found["memory_usage"]) == ([], {}, [])


def test_images_and_their_times_add_up() -> None:
    statistics = Statistics(now=lambda: 1234.5678)
    statistics.succeeded(1.0, 2.0, 3.0)
    statistics.succeeded(0.5, 0.25, 0.000001)
    statistics.failed(7.5)
    found = statistics.as_dict()
    assert (found["last_inference"], found["inference_count"]) == (1_234_568, 2)
    stats = found["inference_stats"]
    assert stats["success"] == {"count": 2, "ns": 6_750_001}
    assert stats["compute_input"] == {"count": 2, "ns": 1_500_000}
    assert stats["queue"] == {"count": 2, "ns": 2_250_000}
    assert stats["compute_infer"] == {"count": 2, "ns": 3_000_001}
    assert stats["compute_output"] == {"count": 2, "ns": 0}
    assert stats["fail"] == {"count": 1, "ns": 7_500_000}


def test_a_failure_is_no_inference() -> None:
    statistics = Statistics()
    statistics.failed(1.0)
    found = statistics.as_dict()
    assert (found["inference_count"], found["last_inference"]) == (0, 0)


def test_executions_are_counted_by_their_size_the_smallest_first() -> None:
    statistics = Statistics()
    for size, ms in ((8, 4.0), (1, 1.0), (8, 5.0)):
        statistics.executed(size, ms)
    found = statistics.as_dict()
    assert found["execution_count"] == 3
    assert [each["batch_size"] for each in found["batch_stats"]] == [1, 8]
    assert found["batch_stats"][1] == {
        "batch_size": 8,
        "compute_input": {"count": 2, "ns": 0},
        "compute_infer": {"count": 2, "ns": 9_000_000},
        "compute_output": {"count": 2, "ns": 0},
    }
