from pathlib import Path

import numpy as np
import pytest

from serve_app.bench.torture import decode_fuzz
from serve_app.bench.torture.decode_fuzz import Campaign, WrongCrop, campaign, check, parsed
from serve_app.bench.torture.seeds import seeds
from serve_app.decode import Pixels

SAID = """INFO: Running with entropic power schedule (0xFF, 100).
#2	INITED cov: 15 ft: 15 corp: 1/1b exec/s: 0 rss: 168Mb
#5631	REDUCE cov: 1190 ft: 2190 corp: 176/80Kb lim: 4096 exec/s: 500 rss: 300Mb L: 3/4096 MS: 1 EraseBytes-
Done 5792 runs in 12 second(s)
"""


def test_what_libfuzzer_says_is_read() -> None:
    assert parsed(SAID, 1, 0) == Campaign(1, 5792, 1190, 2190, 176, (), 0)


def test_findings_are_named() -> None:
    said = SAID.replace("Done", "==7== ERROR: libFuzzer: timeout\nTest unit written to f/timeout-da39a3\nDone")
    assert parsed(said, 1, 70).findings == ("f/timeout-da39a3",)


def test_what_did_not_run_has_no_executions() -> None:
    assert parsed("ModuleNotFoundError: No module named 'atheris'", 1, 1).executions == 0


def test_seeds_pass() -> None:
    decode = decode_fuzz.decoder()
    for data in [*seeds().values(), b"", b"hello", seeds()["JPEG RGB"][:200]]:
        check(decode, data)


@pytest.mark.parametrize("crop", [np.zeros((32, 32), np.uint8), np.zeros((32, 32, 3), np.float32)])
def test_what_is_no_crop_is_a_finding(crop: Pixels) -> None:
    with pytest.raises(WrongCrop):
        check(lambda _: crop, b"")


def test_an_error_that_is_not_documented_is_a_finding() -> None:
    def raises(_: bytes) -> Pixels:
        raise MemoryError

    with pytest.raises(MemoryError):
        check(raises, b"")


def test_a_campaign_finds_its_way(tmp_path: Path) -> None:
    pytest.importorskip("atheris")
    lines: list[str] = []
    found = campaign(tmp_path, seconds=3, seed=1, said=lines.append)
    assert (found.status, found.findings) == (0, ())
    assert found.executions > len(seeds())
    assert found.corpus > 10
