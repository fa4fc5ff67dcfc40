from collections.abc import Callable, Iterator

import pytest

from serve_app import config_file
from serve_app.bench.generator import Run
from serve_app.bench.gpu_report import open_loop, service, tutorial
from serve_app.bench.gpu_report.known import Known
from serve_app.bench.gpu_report.line import Line
from serve_app.bench.gpu_report.scale import FULL, QUICK
from serve_app.bench.gpu_report.task import NotMeasured
from tests.bench.gpu_report import made_up
from tests.bench.gpu_report.made_up import CPU, GPU, Services


@pytest.fixture(autouse=True)
def _a_rate_is_found_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_loop, "highest", lambda test, start_per_s, _: (test.at_rate(start_per_s), [start_per_s]))


@pytest.mark.parametrize("replicas", [1, 2, 3, 4, 6])
def test_its_configs_fit_one_gpu_and_are_without_findings(replicas: int) -> None:
    content = service.content(GPU, FULL, replicas, "default")
    assert config_file.check(content, config_file.Resources(gpus=1, cpus=GPU.num_cores)) == []
    options = content["applications"][0]["deployments"][0]["ray_actor_options"]
    assert options["num_gpus"] * replicas <= 1
    assert options["num_cpus"] * replicas <= GPU.num_cores
    assert content["applications"][0]["args"]["decode"] == "gpu"


def test_more_replicas_than_cores_are_not_tried() -> None:
    with pytest.raises(NotMeasured, match="4 replicas need as many cores, and here are 2"):
        service.content(CPU, FULL, 4, "default")


def test_a_service_that_is_known_not_to_compile_is_told_not_to() -> None:
    args = service.content(GPU, FULL, 1, "uncompiled")["applications"][0]["args"]
    assert args["compile"] is False
    assert "compile" not in service.content(GPU, FULL, 1, "default")["applications"][0]["args"]


def by_section(lines: Iterator[Line]) -> dict[int, list[Line]]:
    found: dict[int, list[Line]] = {}
    for line in lines:
        found.setdefault(line.section, []).append(line)
    return found


def test_a_service_is_put_under_every_load_and_the_best_again() -> None:
    services = Services(lambda run: 0.01)
    context = made_up.context(serve=services)
    found = by_section(service.row(1)(context))
    assert {section: len(lines) for section, lines in found.items()} == {3: 1, 7: 2, 9: 1, 10: 1}
    assert [run.concurrency for run in services.generator.runs] == [1, 2, 1, 1, 1, None]
    assert [len(row.summaries) for row in context.known.served[1].closed] == [3, 1]
    assert found[10][0].value == pytest.approx(10)
    assert services.running == 0
    assert services.limits_s[0] <= service.MAX_START_S


def test_only_a_service_that_is_the_best_so_far_is_put_under_an_open_loop() -> None:
    services = Services(lambda run: 0.01)
    context = made_up.context(serve=services)
    list(service.row(1)(context))
    assert 9 in by_section(service.row(1)(context))
    context.known.served[4] = context.known.served.pop(1)
    context.known.served[4].closed = [made_up.row(1e9, concurrency=64)]
    assert 9 not in by_section(service.row(1)(context))


def test_a_service_that_answers_nothing_is_not_measured() -> None:
    services = Services(lambda run: [])  # type: ignore[arg-type, return-value]
    with pytest.raises(NotMeasured, match="nothing was answered"):
        list(service.row(1)(made_up.context(serve=services)))
    assert services.running == 0


def test_the_second_start_is_expected_to_take_as_long_as_the_first() -> None:
    first, later = service.expected_s(Known(), FULL), service.expected_s(Known(start_s=10.0), FULL)
    assert first - later == service.START_S - 10


@pytest.mark.parametrize(("left_s", "expected"), [(1000.0, 150.0), (60.0, 40.0), (5.0, 20.0)])
def test_a_start_gets_what_the_loads_leave_but_never_too_little(left_s: float, expected: float) -> None:
    assert service.start_timeout_s(made_up.context(left_s=lambda: left_s), 20.0) == expected


def test_the_tutorials_app_is_put_under_its_loop() -> None:
    services = Services(lambda run: 0.5)
    context = made_up.context(serve=services)
    (line,) = tutorial.run(context)
    assert context.known.tutorial is not None
    assert [run.concurrency for run in services.generator.runs] == [QUICK.tutorial_concurrency]
    assert services.contents[0]["applications"][0]["import_path"].endswith("tutorial:build_app")
    assert line.section == 8


def test_a_tutorial_that_answers_nothing_is_not_measured() -> None:
    silent: Callable[[Run], float] = lambda run: []  # type: ignore[assignment, return-value] # noqa: E731
    with pytest.raises(NotMeasured, match="nothing was answered"):
        list(tutorial.run(made_up.context(serve=Services(silent))))
