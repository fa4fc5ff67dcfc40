import hashlib
import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from pydantic import ValidationError
from safetensors.torch import save_file
from torchvision.models import ResNet18_Weights, ResNet50_Weights, list_models

from serve_app import architectures, weights
from serve_app.app import deployable
from serve_app.config import Args, ConfigError
from serve_app.model_spec import Card, Geometry
from serve_app.weights import BUNDLED_PATH, CARD_KEY, StateDict, WeightsError, WeightsUnreachable, load, load_file

NARROW = architectures.NARROW
BEANS = ("borlotti", "cannellini", "fava", "kidney", "lima", "navy", "pinto")
CARD = Card(name="beans", arch="resnet18", labels=BEANS, geometry=Geometry(resize_size=64, crop_size=64), accuracy=0.9)


@pytest.fixture(scope="module")
def fine_tuned() -> StateDict:
    """A resnet18 of seven classes."""
    return architectures.build("resnet18", num_classes=len(BEANS)).state_dict()


@pytest.fixture
def digits() -> StateDict:
    """The tensors of the bundled checkpoint, to be damaged."""
    return load(Args(weights="bundled")).state_dict


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torchvision's download folder, empty, on a machine without a network."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(weights, "_reachable", lambda url: False)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def cache(hub: Path, monkeypatch: pytest.MonkeyPatch, published: Any, state_dict: StateDict) -> Path:
    """What torchvision would have downloaded, were this what it publishes: files there are named for their hash."""
    path = pth(hub / "cached.pth", state_dict)
    path = path.rename(hub / f"cached-{sha256(path)[:8]}.pth")
    monkeypatch.setattr(published.value, "url", f"https://download.pytorch.org/models/{path.name}")
    return path


def safetensors(path: Path, state_dict: StateDict, card: Card | str | None = None) -> Path:
    raw = card.model_dump_json(exclude_none=True) if isinstance(card, Card) else card
    save_file(state_dict, path, metadata={CARD_KEY: raw} if raw else None)
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def pth(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def same_tensors(model: torch.nn.Module, state_dict: StateDict) -> bool:
    held = model.state_dict()
    return all(torch.equal(held[key], tensor) for key, tensor in state_dict.items())


# --- bundled -------------------------------------------------------------------------------------


def test_the_bundled_checkpoint_loads_and_fits() -> None:
    checkpoint = load(Args(weights="bundled"))
    assert checkpoint.spec.num_classes == 10
    assert checkpoint.spec.weights == "bundled"
    assert checkpoint.spec.notice is None
    assert same_tensors(checkpoint.build_model(), checkpoint.state_dict)


def test_a_built_model_is_fp32_and_in_eval_mode() -> None:
    model = load(Args(weights="bundled")).build_model()
    assert not any(module.training for module in model.modules())
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_sha256_is_that_of_the_file() -> None:
    assert load(Args(weights="bundled")).spec.sha256 == hashlib.sha256(BUNDLED_PATH.read_bytes()).hexdigest()


def test_model_name_overrides_the_checkpoints() -> None:
    assert load(Args(weights="bundled")).spec.name == "digits"
    assert load(Args(weights="bundled", model_name="numbers")).spec.name == "numbers"


# --- files that are right ------------------------------------------------------------------------


def test_a_fine_tuned_safetensors_file_says_everything_itself(tmp_path: Path, fine_tuned: StateDict) -> None:
    checkpoint = load(Args(weights=str(safetensors(tmp_path / "beans.safetensors", fine_tuned, CARD))))
    spec = checkpoint.spec
    assert (spec.name, spec.arch, spec.labels, spec.accuracy) == ("beans", "resnet18", BEANS, 0.9)
    assert spec.geometry == CARD.geometry
    assert same_tensors(checkpoint.build_model(), fine_tuned)


@pytest.mark.parametrize("wrapper", ["state_dict", "model_state_dict", "model"])
def test_a_training_checkpoint_is_unwrapped(tmp_path: Path, fine_tuned: StateDict, wrapper: str) -> None:
    parallel = {f"module.{key}": tensor for key, tensor in fine_tuned.items()}
    path = pth(tmp_path / "last.pth", {"epoch": 3, wrapper: parallel, "best": 0.9})
    (tmp_path / "last.json").write_text(CARD.model_dump_json())
    checkpoint = load(Args(weights=str(path)))
    assert checkpoint.spec.labels == BEANS
    assert same_tensors(checkpoint.build_model(), fine_tuned)


def test_the_json_beside_wins_over_the_files_metadata(tmp_path: Path, digits: StateDict) -> None:
    path = safetensors(tmp_path / "x.safetensors", digits, Card(arch=NARROW, name="inside"))
    (tmp_path / "x.json").write_text(Card(arch=NARROW, name="beside").model_dump_json())
    assert load_file(path).spec.name == "beside"


def test_num_batches_tracked_may_be_missing(tmp_path: Path, digits: StateDict) -> None:
    old = {key: tensor for key, tensor in digits.items() if not key.endswith("num_batches_tracked")}
    assert len(old) < len(digits)
    assert same_tensors(load_file(pth(tmp_path / "old.pth", old), NARROW).build_model(), old)


def test_half_precision_weights_become_fp32(tmp_path: Path, digits: StateDict) -> None:
    half = {key: tensor.half() if tensor.is_floating_point() else tensor for key, tensor in digits.items()}
    model = load_file(safetensors(tmp_path / "half.safetensors", half), NARROW).build_model()
    assert same_tensors(model, {key: tensor.to(digits[key].dtype) for key, tensor in half.items()})


def test_without_labels_classes_are_named_by_their_numbers(tmp_path: Path, digits: StateDict) -> None:
    assert load_file(pth(tmp_path / "x.pth", digits), NARROW).spec.labels == tuple("0123456789")


def test_a_thousand_classes_without_labels_are_imagenets(tmp_path: Path) -> None:
    thousand = architectures.build(NARROW, num_classes=1000).state_dict()
    labels = load_file(pth(tmp_path / "x.pth", thousand), NARROW).spec.labels
    assert (labels[0], labels[999]) == ("tench", "toilet tissue")


def test_metadata_is_json_and_shows_no_path(tmp_path: Path, digits: StateDict) -> None:
    metadata = load_file(pth(tmp_path / "x.pth", digits), NARROW).spec.metadata()
    assert str(tmp_path) not in json.dumps(metadata)
    assert metadata["weights"] == "x.pth"


# --- files that are wrong ------------------------------------------------------------------------


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no file .*nowhere\.pth"):
        load(Args(weights=str(tmp_path / "nowhere.pth"), arch="resnet18"))


@pytest.mark.parametrize("name", ["net.onnx", "folder/net", "net.PTH", "s3://bucket/net"])
def test_an_unknown_suffix_names_those_that_are_read(name: str) -> None:
    with pytest.raises(WeightsError, match=rf"'{name}'.*\.safetensors or \.pth"):
        load(Args(weights=name))


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "x.pth").mkdir()
    with pytest.raises(WeightsError, match=r"no file .*x\.pth"):
        load_file(tmp_path / "x.pth", NARROW)


def test_a_file_that_names_no_arch_needs_one(tmp_path: Path, digits: StateDict) -> None:
    with pytest.raises(WeightsError, match="set `arch`"):
        load_file(pth(tmp_path / "x.pth", digits))


def test_an_arch_that_contradicts_the_metadata_is_refused() -> None:
    with pytest.raises(WeightsError, match=f"it is a {NARROW}, not a resnet18"):
        load(Args(weights="bundled", arch="resnet18"))


@pytest.mark.parametrize("where", ["setting", "metadata"])
def test_an_unknown_arch_gets_a_suggestion(tmp_path: Path, digits: StateDict, where: str) -> None:
    card = Card(arch="resnet51") if where == "metadata" else None
    path = safetensors(tmp_path / "x.safetensors", digits, card)
    with pytest.raises(ConfigError, match=r"'resnet51'; did you mean .*resnet50"):
        load_file(path, None if card else "resnet51")


def test_missing_unexpected_and_misshapen_keys_are_named(tmp_path: Path, digits: StateDict) -> None:
    del digits["conv1.weight"]
    digits["extra.weight"] = torch.zeros(1)
    digits["fc.bias"] = torch.zeros(3)
    checkpoint = load_file(pth(tmp_path / "x.pth", digits), NARROW)
    with pytest.raises(WeightsError) as refused:
        checkpoint.build_model()
    assert "x.pth does not fit resnet10_narrow" in str(refused.value)
    assert "1 missing: conv1.weight" in str(refused.value)
    assert "1 unexpected: extra.weight" in str(refused.value)
    assert "1 of another shape: fc.bias (3,) instead of (10,)" in str(refused.value)


def test_many_keys_that_differ_are_shortened(tmp_path: Path, digits: StateDict) -> None:
    checkpoint = load_file(pth(tmp_path / "x.pth", digits), "resnet50")
    with pytest.raises(WeightsError, match=r"and \d+ more") as refused:
        checkpoint.build_model()
    assert len(str(refused.value)) < 1000


def test_labels_must_be_as_many_as_classes(tmp_path: Path, digits: StateDict) -> None:
    with pytest.raises(WeightsError, match="10 classes but 7 labels"):
        load_file(safetensors(tmp_path / "x.safetensors", digits, Card(arch=NARROW, labels=BEANS)))


def test_a_network_without_fc_weight_is_no_resnet(tmp_path: Path, digits: StateDict) -> None:
    del digits["fc.weight"]
    with pytest.raises(WeightsError, match=r"no `fc\.weight`"):
        load_file(pth(tmp_path / "x.pth", digits), NARROW)


@pytest.mark.parametrize("shape", [(), (10, 128, 1, 1)])
def test_an_fc_weight_of_another_rank_is_refused(tmp_path: Path, digits: StateDict, shape: tuple[int, ...]) -> None:
    digits["fc.weight"] = torch.zeros(shape)
    with pytest.raises(WeightsError, match=r"fc\.weight"):
        load_file(pth(tmp_path / "x.pth", digits), NARROW).build_model()


class Bait:
    """Makes a folder when unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


def test_pickled_code_is_refused_and_does_not_run(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    path = pth(tmp_path / "x.pth", {"fc.weight": Bait(trap)})
    with pytest.raises(WeightsError, match=r"more than tensors, which could run code.*state_dict\(\)"):
        load_file(path, NARROW)
    assert not trap.exists()
    torch.load(path, weights_only=False)
    assert trap.exists(), "the bait itself works"


def test_a_whole_pickled_module_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"torch\.save\(model\.state_dict\(\), path\)"):
        load_file(pth(tmp_path / "x.pth", architectures.build(NARROW, 10)), NARROW)


@pytest.mark.parametrize("content", [[], {"epoch": 3}, {"state_dict": [1]}, torch.zeros(2), {0: torch.zeros(2)}])
def test_a_pth_without_a_state_dict_is_refused(tmp_path: Path, content: Any) -> None:
    with pytest.raises(WeightsError, match=r"x\.pth holds no state dict"):
        load_file(pth(tmp_path / "x.pth", content), NARROW)


@pytest.mark.parametrize("kept", [0, 1, 100, 1_000_000, -1])
def test_a_pth_cut_short_is_refused(tmp_path: Path, digits: StateDict, kept: int) -> None:
    whole = pth(tmp_path / "whole.pth", digits).read_bytes()
    with pytest.raises(WeightsError, match=r"cut\.pth"):
        load_file(written(tmp_path / "cut.pth", whole[:kept]), NARROW)


# Streams of a few bytes, each of which the unpickler trips over in another way.
@pytest.mark.parametrize(
    "stream", [b"\x80\x02h\x05.", b"\x80\x02.", b"\x80\x020.", b"\x80\x02N}e.", b"\x80\x02K\x01Q."]
)
def test_a_damaged_pickle_is_refused(tmp_path: Path, stream: bytes) -> None:
    with pytest.raises(WeightsError, match=r"x\.pth"):
        load_file(written(tmp_path / "x.pth", stream), NARROW)


@pytest.mark.parametrize("text", [b"<html>404</html>", b"version https://git-lfs.github.com/spec/v1\n"])
def test_a_text_saved_as_pth_is_not_said_to_hold_code(tmp_path: Path, text: bytes) -> None:
    with pytest.raises(WeightsError, match=r"x\.pth") as refused:
        load_file(written(tmp_path / "x.pth", text), NARROW)
    assert "run code" not in str(refused.value)


@pytest.mark.parametrize("kept", [0, 7, 1000, -10])
def test_a_damaged_safetensors_file_is_refused(tmp_path: Path, kept: int) -> None:
    with pytest.raises(WeightsError, match=r"x\.safetensors is not a safetensors file"):
        load_file(written(tmp_path / "x.safetensors", BUNDLED_PATH.read_bytes()[:kept]), NARROW)


@pytest.mark.parametrize(
    ("raw", "named"),
    [
        (b"{", "not JSON"),
        (b"", "not JSON"),
        (b"\xff\xfe{}", ""),
        (b"[]", "dictionary"),
        (b"null", "dictionary"),
        (b'{"lables": ["a"]}', "lables"),
        (b'{"labels": 3}', "labels"),
        (b'{"name": "no spaces here"}', "name"),
        (b'{"accuracy": 97}', "accuracy"),
        (b'{"geometry": {"crop_size": 300}}', "crop_size"),
        (b'{"geometry": {"std": [0, 1, 1]}}', r"geometry\.std\.0"),
    ],
)
def test_a_damaged_json_beside_is_named(tmp_path: Path, digits: StateDict, raw: bytes, named: str) -> None:
    written(tmp_path / "x.json", raw)
    with pytest.raises(WeightsError, match=rf"x\.json.*{named}"):
        load_file(pth(tmp_path / "x.pth", digits), NARROW)


def test_damaged_metadata_inside_is_named(tmp_path: Path, digits: StateDict) -> None:
    with pytest.raises(WeightsError, match=r"x\.safetensors.*not JSON"):
        load_file(safetensors(tmp_path / "x.safetensors", digits, "{"))


# --- torchvision ---------------------------------------------------------------------------------


def test_an_unknown_enum_lists_those_there_are() -> None:
    with pytest.raises(WeightsError, match=r"no 'IMAGENET' for resnet50; there is IMAGENET1K_V1, IMAGENET1K_V2, DEFAU"):
        load(Args(arch="resnet50", weights="IMAGENET"))


def test_the_narrow_net_has_no_torchvision_weights() -> None:
    with pytest.raises(WeightsError, match="bundled"):
        load(Args(arch=NARROW, weights="DEFAULT"))


def test_an_unknown_arch_of_an_enum_gets_a_suggestion() -> None:
    with pytest.raises(ConfigError, match=r"did you mean .*resnet18"):
        load(Args(arch="resnet-18", weights="DEFAULT"))


def test_a_cached_file_is_used_without_a_network(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = architectures.build("resnet18", num_classes=1000).state_dict()
    cached = cache(hub, monkeypatch, ResNet18_Weights.DEFAULT, network)
    args = Args(weights="DEFAULT", fallback_weights="bundled")
    checkpoint = load(args)
    spec = checkpoint.spec
    assert (spec.name, spec.weights, spec.notice) == ("resnet18", "ResNet18_Weights.IMAGENET1K_V1", None)
    assert (spec.num_classes, spec.geometry) == (1000, Geometry())
    assert spec.sha256 == sha256(cached) == weights.check(args)
    assert same_tensors(checkpoint.build_model(), network)


def test_a_cached_file_that_torchvision_has_not_published_is_refused(hub: Path) -> None:
    other = pth(hub / "resnet18-f37072fd.pth", architectures.build("resnet18", num_classes=1000).state_dict())
    for use in (load, weights.check):
        with pytest.raises(WeightsError, match=rf"{other} is not what torchvision publishes .*: delete it"):
            use(Args(weights="DEFAULT", fallback_weights="bundled"))


def test_a_hash_that_is_asked_for_holds_for_a_cached_file_too(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = architectures.build("resnet18", num_classes=1000).state_dict()
    cached = cache(hub, monkeypatch, ResNet18_Weights.DEFAULT, network)
    asked = Args(weights="DEFAULT", weights_sha256=sha256(cached))
    assert deployable(asked) == asked
    for use in (load, weights.check):
        with pytest.raises(WeightsError, match="is not what is to be served"):
            use(Args(weights="DEFAULT", weights_sha256="0" * 64))


def test_geometry_is_the_enums_own(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache(hub, monkeypatch, ResNet50_Weights.IMAGENET1K_V2, {})
    spec = load(Args(arch="resnet50", weights="IMAGENET1K_V2")).spec
    assert (spec.geometry.resize_size, spec.geometry.crop_size) == (232, 224)


def test_unreachable_weights_name_the_folder_and_the_host(hub: Path) -> None:
    with pytest.raises(WeightsUnreachable, match=r"is not in .*hub, and download\.pytorch\.org does not answer"):
        load(Args(weights="DEFAULT"))


def test_the_fallback_is_bundled_and_sets_a_notice(hub: Path, caplog: pytest.LogCaptureFixture) -> None:
    spec = load(Args(arch="resnet18", weights="DEFAULT", fallback_weights="bundled")).spec
    assert (spec.weights, spec.arch, spec.num_classes) == ("bundled", NARROW, 10)
    assert spec.notice is not None
    # Clients read it: no path, no host. The log has both.
    assert not [word for word in ("/", "pytorch.org") if word in spec.notice]
    [logged] = [message for message in caplog.messages if spec.notice in message]
    assert "download.pytorch.org does not answer" in logged


@pytest.mark.parametrize("wrong", [Args(weights="IMAGENET"), Args(weights="gone.pth"), Args(weights="net.onnx")])
def test_a_mistake_is_no_reason_to_fall_back(hub: Path, wrong: Args) -> None:
    with pytest.raises(WeightsError):
        load(wrong.model_copy(update={"fallback_weights": "bundled"}))


@pytest.mark.parametrize("error", [TimeoutError("timed out"), RuntimeError("invalid hash value")])
def test_a_failed_download_counts_as_unreachable(hub: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise error

    monkeypatch.setattr(weights, "_reachable", lambda url: True)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fail)
    before = socket.getdefaulttimeout()
    with pytest.raises(WeightsUnreachable, match=str(error)):
        load(Args(weights="DEFAULT"))
    assert socket.getdefaulttimeout() == before


# --- reachable -----------------------------------------------------------------------------------


@contextmanager
def answering(reply: bytes) -> Iterator[str]:
    """The URL of a server that gives one answer."""

    def answer() -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(reply)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/weights.pth"
        thread.join(10)


@pytest.fixture
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")


@pytest.mark.usefixtures("_no_proxy")
@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize(
    ("reply", "reachable"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", True),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", False),
        (b"", False),
        (b"220 this is no web server\r\n", False),
    ],
)
def test_a_server_is_reachable_if_it_has_the_file(reply: bytes, reachable: bool) -> None:
    with answering(reply) as url:
        assert weights._reachable(url) is reachable


@pytest.mark.usefixtures("_no_proxy")
def test_a_server_that_never_answers_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "PROBE_TIMEOUT_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert not weights._reachable(f"http://127.0.0.1:{server.getsockname()[1]}/weights.pth")


def test_a_name_resolution_that_blocks_does_not_block_the_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    resolved = threading.Event()

    def blocking_urlopen(*args: Any, **kwargs: Any) -> nullcontext[None]:
        resolved.wait(30)
        return nullcontext()

    monkeypatch.setattr(weights, "PROBE_TIMEOUT_S", 0.1)
    monkeypatch.setattr("urllib.request.urlopen", blocking_urlopen)
    assert not weights._reachable("https://download.pytorch.org/")
    resolved.set()


# --- architectures and specs ---------------------------------------------------------------------


def test_weights_that_can_be_served_pass_the_check(tmp_path: Path, digits: StateDict, hub: Path) -> None:
    good = safetensors(tmp_path / "good.safetensors", digits, Card(arch=NARROW))
    for args in (Args(weights=str(good)), Args(weights="bundled"), Args(weights="DEFAULT")):
        weights.check(args)
    assert list(hub.iterdir()) == []  # nothing was downloaded


def test_the_check_gives_the_hash_of_what_is_here(tmp_path: Path, digits: StateDict, hub: Path) -> None:
    path = pth(tmp_path / "x.pth", digits)
    assert weights.check(Args(weights=str(path), arch=NARROW)) == sha256(path)
    assert weights.check(Args(weights="bundled")) == sha256(BUNDLED_PATH)
    assert weights.check(Args(weights="DEFAULT")) is None


def test_others_than_those_that_were_deployed_are_not_served(tmp_path: Path, digits: StateDict) -> None:
    path = pth(tmp_path / "x.pth", digits)
    deployed = deployable(Args(weights=str(path), arch=NARROW))
    assert load(deployed).spec.sha256 == sha256(path)
    digits["fc.bias"] += 1
    pth(path, digits)
    for use in (load, weights.check):
        with pytest.raises(
            WeightsError, match=rf"x\.pth is not what is to be served: its sha256 is {sha256(path)}, not"
        ):
            use(deployed)


def test_a_hash_of_weights_that_are_not_here_yet_is_kept(tmp_path: Path) -> None:
    args = Args(weights=str(tmp_path / "volume" / "birds.pth"), weights_sha256="0" * 64)
    assert deployable(args) == args


def test_the_check_says_nothing_of_a_volume_that_is_not_mounted_here(tmp_path: Path) -> None:
    weights.check(Args(weights=str(tmp_path / "volume" / "birds.pth")))


@pytest.mark.parametrize(
    ("name", "arch", "named"),
    [
        ("missing.pth", None, "there is no file"),
        ("damaged.safetensors", None, "is not a safetensors file"),
        ("of_ten.safetensors", "resnet18", "does not fit resnet18"),
        ("IMAGENET1K_V9", None, "torchvision has no 'IMAGENET1K_V9'"),
        ("birds.onnx", None, "is no file we read"),
    ],
)
def test_the_check_refuses_what_could_not_be_served(
    tmp_path: Path, digits: StateDict, name: str, arch: str | None, named: str
) -> None:
    (tmp_path / "damaged.safetensors").write_bytes(b"not at all")
    safetensors(tmp_path / "of_ten.safetensors", digits)
    path = str(tmp_path / name) if "." in name else name
    with pytest.raises(WeightsError, match=named):
        weights.check(Args(weights=path, arch=arch))


def test_every_architecture_builds_for_any_number_of_classes() -> None:
    with torch.device("meta"):
        heads = {name: architectures.build(name, 7).state_dict()["fc.weight"].shape[0] for name in architectures.NAMES}
    assert {"resnet18", "resnet152", "resnext50_32x4d", "wide_resnet50_2", NARROW} <= heads.keys()
    assert set(heads.values()) == {7}


def test_every_resnet_of_torchvision_is_known() -> None:
    families = ("resnet", "resnext", "wide_resnet")
    theirs = [name for name in list_models(module=torchvision.models) if name.startswith(families)]
    assert sorted(architectures.NAMES) == sorted([*theirs, NARROW])


def test_the_narrow_net_is_small_and_takes_small_images() -> None:
    model = architectures.build(NARROW, num_classes=10)
    assert sum(parameter.numel() for parameter in model.parameters()) < 400_000
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_an_architecture_like_no_other_lists_all() -> None:
    with pytest.raises(ConfigError, match=f"known: .*resnet18.*{NARROW}"):
        architectures.check("vgg")


@pytest.mark.parametrize(
    "wrong",
    [
        {"crop_size": 257},
        {"resize_size": 0},
        {"resize_size": 5000},
        {"interpolation": "nearest"},
        {"mean": (0.5, 0.5)},
        {"std": (0.0, 1, 1)},
        {"crop": 224},
    ],
)
def test_a_geometry_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Geometry(**wrong)
