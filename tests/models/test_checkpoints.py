import argparse
import json
import os
import pickle
import re

import pytest
import safetensors.torch
import timm
import torch

from horinsight import CheckpointError, create_model, load_checkpoint, mmpretrain_state_dict
from horinsight.models.misfits import listed
from horinsight.models.origin import weights_origin

NAMES = ["hornet_test", "hornet_test_gf", "hornet_test_iso"]


def model_with_seed(name: str, seed: int) -> torch.nn.Module:
    model = create_model(name, seed=seed)
    with torch.no_grad():  # so that no two tensors are alike: gammas, biases and norms start constant
        for index, parameter in enumerate(model.parameters()):
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1000 * seed + index)))
    return model


def assert_same_weights(a: torch.nn.Module, b: torch.nn.Module) -> None:
    for key, value in a.state_dict().items():
        assert torch.equal(value, b.state_dict()[key]), key


def mmpretrain_names_by_hand(state: dict) -> dict:
    """The rules of mmpretrain, applied with plain string operations."""
    renamed = {}
    for key, value in state.items():
        parts = key.split(".")
        if parts[0] == "head":
            parts = ["head", "fc", *parts[1:]]
        else:
            parts = ["projs" if part == "pws" else part for part in parts]
            if parts[0] == "norm":
                parts[0] = "norm3"
            if parts[-1] in ("gamma1", "gamma2"):
                parts.append("weight")
            parts.insert(0, "backbone")
        renamed[".".join(parts)] = value
    return renamed


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"model": state, "args": argparse.Namespace(lr=4e-3), "epoch": 300},
        lambda state: {"state_dict": {f"module.{k}": v for k, v in state.items()}, "optimizer": {"state": {}}},
        lambda state: {"module": {f"_orig_mod.{k}": v for k, v in state.items()}},
        lambda state: {"state": {"model": {f"module._orig_mod.{k}": v for k, v in state.items()}}},
        lambda state: {f"encoder.{k}": v for k, v in state.items()},
        lambda state: {"state_dict": mmpretrain_names_by_hand(state), "meta": {"epoch": 300}},
        lambda state: {"state_dict": {f"model.{k}": v for k, v in state.items()}},
        lambda state: {"model_state_dict": state, "optimizer_state_dict": {}},
    ],
    ids=["flat", "official", "ddp", "compiled", "nested", "encoder", "mmpretrain", "lightning", "tutorial"],
)
def test_wrappers_and_prefixes(name, wrap, tmp_path):
    source, target = model_with_seed(name, 1), model_with_seed(name, 2)
    torch.save(wrap(source.state_dict()), tmp_path / "weights.pth")
    report = load_checkpoint(target, tmp_path / "weights.pth")
    assert_same_weights(source, target)
    assert sorted(report.loaded) == sorted(source.state_dict())
    assert not report.missing
    assert not report.unexpected


def test_official_to_mmpretrain_and_back_all_640_keys(reference, tmp_path):
    shapes = json.loads((reference / "state_dict_shapes.json").read_text())["hornet_tiny_gf"]
    assert len(shapes) == 640
    generator = torch.Generator().manual_seed(0)
    official = {key: torch.randn(shape, generator=generator) for key, shape in shapes.items()}
    torch.save({"model": official}, tmp_path / "official.pth")
    first, second = timm.create_model("hornet_tiny_gf"), timm.create_model("hornet_tiny_gf")
    load_checkpoint(first, tmp_path / "official.pth")
    theirs = mmpretrain_state_dict(first)
    assert sorted(theirs) == sorted(mmpretrain_names_by_hand(official))
    torch.save({"state_dict": theirs}, tmp_path / "mmpretrain.pth")
    report = load_checkpoint(second, tmp_path / "mmpretrain.pth")
    assert len(report.loaded) == len(report.renamed) == 640
    for key, value in second.state_dict().items():
        assert torch.equal(value, official[key]), key


def test_averaged_weights_only_when_asked_for(tmp_path):
    raw, averaged = model_with_seed("hornet_test", 1), model_with_seed("hornet_test", 2)
    for key in ("model_ema", "state_dict_ema"):
        torch.save({"model": raw.state_dict(), key: averaged.state_dict()}, tmp_path / "both.pth")
        target = create_model("hornet_test")
        assert load_checkpoint(target, tmp_path / "both.pth").source == "model"
        assert_same_weights(target, raw)
        assert load_checkpoint(target, tmp_path / "both.pth", ema=True).source == key
        assert_same_weights(target, averaged)
    torch.save({"model": raw.state_dict()}, tmp_path / "raw.pth")
    with pytest.raises(CheckpointError, match="no averaged weights"):
        load_checkpoint(target, tmp_path / "raw.pth", ema=True)
    torch.save({"model_ema": raw.state_dict()}, tmp_path / "averaged.pth")
    with pytest.raises(CheckpointError, match="ema=True"):
        load_checkpoint(target, tmp_path / "averaged.pth")


def test_safetensors(tmp_path):
    source, target = model_with_seed("hornet_test_gf", 1), create_model("hornet_test_gf")
    safetensors.torch.save_file(source.state_dict(), tmp_path / "weights.safetensors")
    load_checkpoint(target, tmp_path / "weights.safetensors")
    assert_same_weights(source, target)


def test_a_detector_is_not_mmpretrain_because_of_its_prefix(tmp_path):
    """Official inner names under `backbone.`, output norms norm0..norm3 of its own, a neck, and no head."""
    source, target = model_with_seed("hornet_test", 1), model_with_seed("hornet_test", 2)
    state = {f"backbone.{k}": v for k, v in source.state_dict().items() if not k.startswith(("head", "norm."))}
    state |= {f"backbone.norm{s}.weight": torch.full((8 * 2**s,), 7.0) for s in range(4)}
    state["neck.lateral_convs.0.conv.weight"] = torch.zeros(3)
    torch.save({"state_dict": state}, tmp_path / "detector.pth")
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(target, tmp_path / "detector.pth")
    assert error.value.missing == ("norm.weight", "norm.bias", "head.weight", "head.bias")
    assert "neck.lateral_convs.0.conv.weight" in error.value.unexpected
    kept = target.norm.weight.clone()
    report = load_checkpoint(target, tmp_path / "detector.pth", strict=False)
    assert torch.equal(target.norm.weight, kept), "a detector's norm3 is not the classifier's norm"
    assert report.missing == ("norm.weight", "norm.bias", "head.weight", "head.bias")
    assert torch.equal(target.stages[2][0].gamma1, source.stages[2][0].gamma1)


def test_filters_are_resized_only_on_request(tmp_path):
    source = model_with_seed("hornet_test_gf", 1)
    torch.save({"model": source.state_dict()}, tmp_path / "weights.pth")
    larger = timm.create_model("hornet_test_gf", gf_sizes=(None, None, (12, 7), (6, 4))).eval()
    with pytest.raises(CheckpointError, match=r"resize_filters=True") as error:
        load_checkpoint(larger, tmp_path / "weights.pth")
    assert list(error.value.misshapen) == [f"stages.{s}.0.gnconv.dwconv.complex_weight" for s in (2, 3)]
    report = load_checkpoint(larger, tmp_path / "weights.pth", resize_filters=True)
    assert list(report.resized) == list(error.value.misshapen)
    images = torch.randn(1, 3, 192, 192)  # there the filters of both models have the size (12, 7) and (6, 4)
    torch.testing.assert_close(larger(images), source(images))


def test_nothing_changes_when_something_does_not_fit(tmp_path):
    source, target = model_with_seed("hornet_test", 1), model_with_seed("hornet_test", 2)
    before = {key: value.clone() for key, value in target.state_dict().items()}
    state = source.state_dict()
    del state["stages.1.0.gamma1"]
    state["stages.1.0.gamma3"] = torch.zeros(3)
    state["head.weight"] = torch.zeros(21841, 64)
    state["head.bias"] = torch.zeros(21841)
    torch.save(state, tmp_path / "broken.pth")
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(target, tmp_path / "broken.pth")
    message = str(error.value)
    assert "\n" not in message
    assert "1 missing: stages.1.0.gamma1" in message
    assert "1 unexpected: stages.1.0.gamma3" in message
    assert "head.weight (file 21841x64, model 1000x64)" in message
    assert "num_classes=21841" in message
    assert error.value.misshapen["head.bias"] == ((21841,), (1000,))
    assert all(torch.equal(value, before[key]) for key, value in target.state_dict().items())
    report = load_checkpoint(target, tmp_path / "broken.pth", strict=False)
    assert report.missing == ("stages.1.0.gamma1",)
    assert report.misshapen == ("head.weight", "head.bias")
    assert torch.equal(target.head.weight, before["head.weight"])


def test_a_checkpoint_of_another_model(tmp_path):
    torch.save({"model": timm.create_model("convnext_atto").state_dict()}, tmp_path / "other.pth")
    for strict in (True, False):
        with pytest.raises(CheckpointError, match=r"other.pth \(\d+ tensors\) does not fit this HorNet") as error:
            load_checkpoint(create_model("hornet_test"), tmp_path / "other.pth", strict=strict)
        assert "\n" not in str(error.value)


class RunsCode:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize(
    ("protocol", "message"),
    [(None, r"refused: it asks for \w+\.system, which"), (2, r"refused: it asks for \S+, which"), (4, "evil.pth")],
)
def test_a_pickle_that_would_run_code_is_refused_and_runs_nothing(tmp_path, protocol, message):
    trap = tmp_path / "it_ran"
    content = {"model": {"head.bias": torch.zeros(3)}, "args": RunsCode(str(trap))}
    if protocol is None:
        torch.save(content, tmp_path / "evil.pth")
    else:
        (tmp_path / "evil.pth").write_bytes(pickle.dumps(content, protocol=protocol))
    with pytest.raises(CheckpointError, match=message) as error:
        load_checkpoint(create_model("hornet_test"), tmp_path / "evil.pth")
    assert "\n" not in str(error.value)
    assert not trap.exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("damage", ["empty", "truncated", "text", "flipped"])
def test_damaged_files(tmp_path, suffix, damage):
    whole = tmp_path / f"whole{suffix}"
    state = create_model("hornet_test_iso").state_dict()
    (safetensors.torch.save_file if suffix == ".safetensors" else torch.save)(state, whole)
    data = whole.read_bytes()
    broken = tmp_path / f"broken{suffix}"
    broken.write_bytes(
        {
            "empty": b"",
            "truncated": data[: len(data) // 2],
            "text": b"hello, I am not a checkpoint\n",
            "flipped": bytes(255 - byte for byte in data[:400]) + data[400:],
        }[damage]
    )
    with pytest.raises(CheckpointError, match=f"broken{re.escape(suffix)} is not a readable checkpoint") as error:
        load_checkpoint(create_model("hornet_test_iso"), broken)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, [1, 2], 7, {"model": {}}])
def test_files_without_weights(tmp_path, content):
    torch.save(content, tmp_path / "nothing.pth")
    with pytest.raises(CheckpointError, match="no weights that horinsight can find"):
        load_checkpoint(create_model("hornet_test"), tmp_path / "nothing.pth")


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="No such checkpoint"):
        load_checkpoint(create_model("hornet_test"), tmp_path / "nowhere.pth")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        load_checkpoint(create_model("hornet_test"), tmp_path)


def test_the_models_dtype_stays(tmp_path):
    source = model_with_seed("hornet_test_iso", 1)
    torch.save(source.state_dict(), tmp_path / "weights.pth")
    target = create_model("hornet_test_iso").to(torch.bfloat16)
    load_checkpoint(target, tmp_path / "weights.pth")
    assert target.head.weight.dtype == torch.bfloat16
    torch.testing.assert_close(target.head.weight, source.head.weight.to(torch.bfloat16))


def test_a_long_list_of_keys_is_shortened_without_loss(reference):
    shapes = json.loads((reference / "state_dict_shapes.json").read_text())
    keys = list(shapes["hornet_small_gf"])
    text = listed(keys)
    assert len(text) < 3000 < len(", ".join(keys))

    def expanded(pattern: str) -> list[str]:
        found = re.search(r"\[([\d,-]+)\]", pattern)
        if not found:
            return [pattern]
        numbers = []
        for run in found[1].split(","):
            first, _, last = run.partition("-")
            numbers += range(int(first), int(last or first) + 1)
        return [key for n in numbers for key in expanded(pattern[: found.start()] + str(n) + pattern[found.end() :])]

    restored = [key for pattern in text.split(", ") for key in expanded(pattern)]
    assert sorted(restored) == sorted(keys)


def test_the_report_reads_well(tmp_path):
    torch.save({"model": create_model("hornet_test").state_dict()}, tmp_path / "w.pth")
    report = load_checkpoint(create_model("hornet_test"), tmp_path / "w.pth")
    assert str(report) == f"w.pth (model): {len(report.loaded)} tensors loaded"


# names that differ while shapes agree in order


def renamed_file(folder, state: dict, name: str = "other.pth"):
    """The state dict under names of another author, who keeps the kinds of tensors and their order."""
    torch.save(
        {f"net.{i}.{key.rpartition('.')[2]}": value for i, (key, value) in enumerate(state.items())}, folder / name
    )
    return folder / name


@pytest.mark.parametrize("name", [*NAMES, "convnext_atto"])
def test_other_names_in_the_same_order(name, tmp_path):
    source, target = model_with_seed(name, 1), model_with_seed(name, 2)
    path = renamed_file(tmp_path, source.state_dict())
    count = len(source.state_dict())
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(target, path)
    text = str(error.value)
    first = list(source.state_dict())[:3]
    assert len(text) < 600
    assert "\n" not in text
    assert f"{count} missing: {', '.join(first)} and {count - 3} more" in text
    assert f"{count} unexpected: net.0.weight, net.1.bias, " in text
    assert "agree in order" in text
    assert "rename_in_order=True (--rename-in-order)" in text
    assert len(error.value.missing) == len(error.value.unexpected) == count
    report = load_checkpoint(target, path, rename_in_order=True)
    assert_same_weights(source, target)
    assert list(report.renamed.values()) == list(source.state_dict())
    assert weights_origin(target).source.endswith(f"{count} tensors renamed in order")


def test_some_names_in_order(tmp_path):
    """Only what no name matches is matched by its order."""
    source, target = model_with_seed("hornet_test", 1), model_with_seed("hornet_test", 2)
    state = {key.replace("stages.1.", "second."): value for key, value in source.state_dict().items()}
    torch.save(state, tmp_path / "some.pth")
    report = load_checkpoint(target, tmp_path / "some.pth", rename_in_order=True)
    assert_same_weights(source, target)
    assert all(key == name.replace("stages.1.", "second.") for key, name in report.renamed.items())
    assert len(load_checkpoint(target, tmp_path / "some.pth", rename_in_order=True).renamed) == len(report.renamed)


def swapped(items: list) -> list:
    """A norm's weight and bias, of one shape: only their names tell which is which."""
    return [*items[:2], items[3], items[2], *items[4:]]


AMBIGUOUS = {
    "one fewer": (lambda items: items[:-1], r"103 of its tensors and 104 of the model's match by no name"),
    "one more": (lambda items: [*items, ("more.bias", torch.zeros(2))], "105 of its tensors and 104"),
    "another shape": (
        lambda items: [*items[:5], (items[5][0], torch.zeros(99)), *items[6:]],
        r"tensor 6 of those left is net.5.\w+ \(99\), where the model has downsample",
    ),
    "a bias before its weight": (swapped, r"tensor 3 of those left is net.3.bias \(8\), where the model has "),
    "names without a kind": (
        lambda items: [(f"t{i}", value) for i, (_, value) in enumerate(items)],
        "tensor 1 of those left is t0 ",
    ),
}


@pytest.mark.parametrize("kind", AMBIGUOUS)
def test_an_order_that_tells_nothing_is_refused(kind, tmp_path):
    source, target = model_with_seed("hornet_test", 1), model_with_seed("hornet_test", 2)
    before = {key: value.clone() for key, value in target.state_dict().items()}
    items = [(f"net.{i}.{k.rpartition('.')[2]}", v) for i, (k, v) in enumerate(source.state_dict().items())]
    change, text = AMBIGUOUS[kind]
    torch.save(dict(change(items)), tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=f"other.pth cannot be renamed in order: {text}") as error:
        load_checkpoint(target, tmp_path / "other.pth", rename_in_order=True)
    assert len(str(error.value)) < 600
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(target, tmp_path / "other.pth")
    assert "agree in order" not in str(error.value)
    assert all(torch.equal(value, before[key]) for key, value in target.state_dict().items())


def test_safetensors_have_no_order(tmp_path):
    state = {f"net.{k}": v for k, v in model_with_seed("hornet_test", 1).state_dict().items()}
    safetensors.torch.save_file({k.replace("stages", "parts"): v for k, v in state.items()}, tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match="keeps its tensors sorted"):
        load_checkpoint(create_model("hornet_test"), tmp_path / "w.safetensors", rename_in_order=True)


def test_every_message_is_short(tmp_path):
    long = "x" * 250
    files = {
        f"{long[:240]}.pth": {f"{long}{i}.weight": torch.zeros(1) for i in range(500)},
        "keys.pth": {f"{long}{i}": 1 for i in range(500)},
        "tiny.pth": timm.create_model("hornet_tiny_gf").state_dict(),
        "numbers.pth": {i: torch.zeros(1) for i in range(500)},
    }
    target = timm.create_model("hornet_small_7x7")
    for name, content in files.items():
        torch.save(content, tmp_path / name)
        for options in ({}, {"rename_in_order": True}, {"ema": True}):
            with pytest.raises(CheckpointError) as error:
                load_checkpoint(target, tmp_path / name, **options)
            assert len(str(error.value)) < 600, str(error.value)
            assert "\n" not in str(error.value)
