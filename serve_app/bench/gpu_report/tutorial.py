"""The tutorial's app on the same machine, with the same images."""

from collections.abc import Iterator

from serve_app.bench import compare
from serve_app.bench.gpu_report import service
from serve_app.bench.gpu_report.known import Known
from serve_app.bench.gpu_report.line import Line
from serve_app.bench.gpu_report.scale import Scale
from serve_app.bench.gpu_report.task import Context, NotMeasured

SECTION = 8
START_S = 20.0
NAME = "tutorial"


def expected_s(_: Known, scale: Scale) -> float:
    return START_S + service.STOP_S + service.run_s(scale)


def run(context: Context) -> Iterator[Line]:
    subject, scale = context.subject, context.scale
    terms = compare.Terms(subject.args(), scale.max_batch_size, subject.num_cores, int(subject.on_gpu))
    found = [one for one in compare.contestants(terms) if one.name == NAME]
    if not found:
        raise NotMeasured("the stub is no network")
    limit_s = service.start_timeout_s(context, service.run_s(scale))
    with context.serve(found[0].content, found[0].environment, service.template(scale), limit_s) as test:
        row = test.at_concurrency(scale.tutorial_concurrency)
    if row.median.p50_ms is None:
        raise NotMeasured(f"nothing was answered: {row.median.errors}")
    context.known.tutorial = row
    yield service.closed_line(SECTION, f"the tutorial's app, {scale.tutorial_concurrency} at once", row)
