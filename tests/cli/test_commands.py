import csv
import io
import json
import os
import signal
import subprocess
import time

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from horinsight import create_model, list_models


def one_line(error: str) -> str:
    """The only line of standard error that is not progress."""
    lines = [line for line in error.splitlines() if not line.startswith("[")]
    assert len(lines) == 1, error
    assert "Traceback" not in error
    return lines[0]


def test_models_table_json_and_csv(run):
    status, table, _ = run("models", "hornet_t*")
    assert status == 0
    for name in list_models("hornet_t*"):
        assert name in table
    assert "Weights are random" in table
    status, text, _ = run("models", "hornet_tiny_7x7", "--format", "json")
    (row,) = json.loads(text)["models"]
    assert row == {
        "name": "hornet_tiny_7x7",
        "params": 22409512,
        "macs": 3968389312,
        "orders": [2, 3, 4, 5],
        "num_blocks": 25,
        "input_size": 224,
    }
    _, text, _ = run("models", "hornet_test*", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["name"] for row in rows] == list_models("hornet_test*")


def test_blocks(run):
    status, table, _ = run("blocks", "--model", "hornet_tiny_gf")
    assert status == 0
    assert "stages.2.17.gnconv" in table
    assert "14x14" in table
    _, text, _ = run("blocks", "--model", "hornet_test", "--image-size", "64", "--format", "json")
    content = json.loads(text)
    assert content["blocks"][1] == {
        "index": 2,
        "name": "stages.1.0.gnconv",
        "mixer": "gnconv",
        "class": "GnConv",
        "known": True,
        "order": 3,
        "stride": 1,
        "place": "block",
        "height": 8,
        "width": 8,
    }
    status, table, _ = run("blocks", "--model", "swin_tiny_patch4_window7_224")
    assert status == 0
    assert "window_attention" in table


def test_blocks_of_a_network_that_nobody_listed(run):
    _, text, _ = run("blocks", "--model", "resnet18", "--image-size", "64", "--all", "--format", "json")
    found = {block["name"]: block for block in json.loads(text)["blocks"]}
    assert [block["index"] for block in found.values() if block["index"]] == list(range(1, 14))
    assert (found["conv1"]["place"], found["conv1"]["stride"], found["conv1"]["index"]) == ("stem", 2, None)
    assert (found["layer2.0.conv1"]["place"], found["layer2.0.conv2"]["place"]) == ("downsampling", "block")
    _, table, _ = run("blocks", "--model", "coat_tiny")
    assert "linear_attention *" in table
    assert "its class is in no list" in table
    assert "cpe4.proj#2" in table


def test_ie_goes_on_without_what_cannot_be_measured(run):
    """Four blocks on maps of 16x16 to 2x2: the last one cannot have chains of order 5."""
    options = ("ie", "--model", "hornet_test", "--image-size", 64, "--tuples", 2, "--max-order", 5)
    status, text, _ = run(*options, "--format", "json")
    content = json.loads(text)
    assert (status, content["complete"], len(content["blocks"])) == (0, True, 3)
    assert "needs 6 distinct positions" in content["not_measured"]["stages.3.0.gnconv"]
    assert "left out: block 4 (stages.3.0.gnconv, gnconv): a chain of order 5" in run(*options)[1]


def test_ie_json_is_the_contract(run):
    status, text, error = run("ie", "--model", "hornet_test", "--tuples", 2, "--seed", 3, "--format", "json")
    assert status == 0
    content = json.loads(text)
    assert content["model"] == "hornet_test"
    assert content["weights"]["source"] == "random, seed 3"
    assert content["weights"]["trained"] is False
    assert content["images"][0].startswith("chelsea (sha256 ")
    assert content["convention"]["kind"] == "explicit"
    assert content["seed"] == 3
    assert [block["index"] for block in content["blocks"]] == [1, 2, 3, 4]
    for block, order in zip(content["blocks"], (2, 3, 4, 5), strict=True):
        assert block["mixer"] == "gnconv"
        assert block["declared_order"] == block["location_order"] == block["degree_order"] == order
        assert block["at_least"] is None
        for key in ("effects", "ci_low", "ci_high", "exact_zero", "max_share"):
            assert len(block[key]) == 8
        assert block["exact_zero"] == [False] * (order + 1) + [True] * (7 - order)
        assert block["effects"][order + 1 :] == [0.0] * (7 - order)
        assert block["num_draws"] == 2
    assert error.count("\n") == 4, "progress: a line per block"


def test_ie_table_announces_untrained_weights(run):
    status, table, _ = run("ie", "--model", "hornet_test_iso", "--tuples", 2, "--images", "coffee", "rocket")
    assert status == 0
    assert "UNTRAINED" in table
    assert "coffee (sha256" in table
    assert "rocket (sha256" in table
    line = next(line for line in table.splitlines() if "blocks.1.gnconv" in line).split()
    assert line[:6] == ["2", "blocks.1.gnconv", "gnconv", "3", "3", "3"]
    assert line[-2:] == ["0", "0"]


def test_ie_csv_has_a_line_per_block_and_order(run, tmp_path):
    path = tmp_path / "result.csv"
    status, out, error = run("ie", "--model", "hornet_test_iso", "--tuples", 2, "--output", path, "--max-order", 4)
    assert (status, out) == (0, "")
    assert f"written: {path}" in error
    rows = list(csv.DictReader(path.open()))
    assert len(rows) == 3 * 5
    assert rows[4]["k"] == "4"
    assert rows[4]["exact_zero"] == "True"
    assert float(rows[4]["effect"]) == 0.0
    assert rows[0]["trained"] == "False"


def test_ie_an_open_order_is_null_with_at_least(run):
    status, text, _ = run("ie", "--model", "hornet_test_iso", "--max-order", 2, "--tuples", 2, "--format", "json")
    assert status == 0
    block = json.loads(text)["blocks"][0]
    assert block["location_order"] is None
    assert block["at_least"] == 2
    _, table, _ = run("ie", "--model", "hornet_test_iso", "--max-order", 2, "--tuples", 2)
    assert "≥2" in table
    _, text, _ = run(
        "ie", "--model", "hornet_test_gf", "--blocks", "3", "--functional", "--tuples", 2, "--format", "json"
    )
    content = json.loads(text)
    assert content["convention"]["kind"] == "functional"
    assert content["blocks"][0]["location_order"] is None, "the norms of GF give every order"


def test_ie_with_checkpoints(run, tmp_path):
    weights = create_model("hornet_test_iso", seed=5).state_dict()
    torch.save({"model": weights, "model_ema": weights}, tmp_path / "w.pth")
    safetensors.torch.save_file(weights, tmp_path / "w.safetensors")
    common = ("ie", "--model", "hornet_test_iso", "--tuples", 2, "--format", "json")
    results = []
    for options in (
        ("--checkpoint", tmp_path / "w.pth"),
        ("--checkpoint", tmp_path / "w.pth", "--ema"),
        ("--checkpoint", tmp_path / "w.safetensors"),
    ):
        status, text, _ = run(*common, *options)
        assert status == 0
        results.append(json.loads(text))
        assert results[-1]["weights"]["trained"] is True
    assert results[1]["weights"]["source"] == "checkpoint w.pth, model_ema"
    assert results[0]["blocks"] == results[1]["blocks"] == results[2]["blocks"]
    assert len({result["weights"]["sha256"] for result in results}) == 1
    _, table, _ = run(*common[:-2], "--checkpoint", tmp_path / "w.pth")
    assert "UNTRAINED" not in table
    assert "checkpoint w.pth" in table


def test_checkpoints_of_other_heads_and_resolutions(run, tmp_path):
    torch.save(create_model("hornet_test_gf", num_classes=3).state_dict(), tmp_path / "three.pth")
    larger = create_model("hornet_test_gf", gf_sizes=(None, None, (12, 7), (6, 4)))
    torch.save(larger.state_dict(), tmp_path / "larger.pth")
    common = ("ie", "--model", "hornet_test_gf", "--blocks", "3", "--tuples", 1, "--format", "json", "--checkpoint")
    status, _, error = run(*common, tmp_path / "three.pth")
    assert status == 2
    assert "--num-classes 3" in one_line(error)
    status, text, _ = run(*common, tmp_path / "three.pth", "--num-classes", 3)
    assert status == 0
    assert json.loads(text)["weights"]["trained"] is True
    status, _, error = run(*common, tmp_path / "larger.pth")
    assert status == 2
    assert "--resize-filters" in one_line(error)
    status, text, _ = run(*common, tmp_path / "larger.pth", "--resize-filters")
    assert status == 0
    assert json.loads(text)["weights"]["source"] == "checkpoint larger.pth, the file itself, 2 filters resized"


def test_checkpoints_of_other_names(run, tmp_path):
    state = create_model("hornet_test", seed=5).state_dict()
    torch.save({f"net.{i}.{key.rpartition('.')[2]}": v for i, (key, v) in enumerate(state.items())}, tmp_path / "o.pth")
    common = ("ie", "--model", "hornet_test", "--blocks", "1", "--tuples", 1, "--format", "json")
    status, _, error = run(*common, "--checkpoint", tmp_path / "o.pth")
    assert status == 2
    assert "--rename-in-order" in one_line(error)
    assert len(one_line(error)) < 600
    status, text, _ = run(*common, "--checkpoint", tmp_path / "o.pth", "--rename-in-order", "--seed", 3)
    assert status == 0
    assert json.loads(text)["weights"]["source"].endswith(f"{len(state)} tensors renamed in order")
    status, _, error = run(*common, "--rename-in-order")
    assert status == 2
    assert "give --checkpoint FILE too" in one_line(error)


def test_what_comes_trained_stays_trained(run):
    """With the classes that it has anyway, and with a seed, which is then of the draws alone."""
    common = ("ie", "--model", "hornet_digits_iso", "--blocks", "1", "--tuples", 1, "--format", "json", "--seed", 3)
    status, text, _ = run(*common, "--num-classes", 10)
    assert status == 0
    assert json.loads(text)["weights"]["trained"] is True
    _, text, _ = run(*common, "--num-classes", 9)
    assert json.loads(text)["weights"]["source"] == "random, seed 3"


def test_images_from_files_and_sizes(run, tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    status, text, _ = run(
        "ie", "--model", "hornet_test", "--images", tmp_path / "a.png", "chelsea", "--images", "rocket",
        "--image-size", 128, "--tuples", 1, "--format", "json",
    )  # fmt: skip
    assert status == 0
    content = json.loads(text)
    assert [image.split(" (")[0] for image in content["images"]] == [str(tmp_path / "a.png"), "chelsea", "rocket"]
    assert content["blocks"][0]["num_draws"] == 3


def bad_inputs(folder) -> dict[str, tuple[tuple, str]]:
    (folder / "text.jpg").write_text("this is not a picture")
    (folder / "other.json").write_text('{"model": 3}')
    (folder / "empty").mkdir(exist_ok=True)
    Image.new("RGB", (1, 1)).save(folder / "tiny.png")
    Image.new("1", (20000, 20000)).save(folder / "bomb.png")
    Image.new("RGB", (90, 90), "grey").save(folder / "flat.png")
    state = create_model("hornet_test").state_dict()
    torch.save({**state, "downsample_layers.0.0.bias": torch.full((8,), torch.nan)}, folder / "nan.pth")
    torch.save({"model": create_model("hornet_test_iso").state_dict()}, folder / "other.pth")
    (folder / "cut.pth").write_bytes((folder / "other.pth").read_bytes()[:5000])
    ie = ("ie", "--model", "hornet_test")
    return {
        "unknown model": (("ie", "--model", "hornet_tinny_gf"), "did you mean hornet_tiny_gf"),
        "unknown model of blocks": (("blocks", "--model", "hornett_test"), "did you mean hornet_test"),
        "no such file": ((*ie, "--images", folder / "no.png"), "No such image"),
        "text called jpg": ((*ie, "--images", folder / "text.jpg"), "not a picture"),
        "bomb": ((*ie, "--images", folder / "bomb.png"), "24 megapixels"),
        "1x1": ((*ie, "--images", folder / "tiny.png"), "1x1 pixels"),
        "blocks 99": ((*ie, "--blocks", "99"), "blocks 1 to 4, got 99"),
        "blocks x": ((*ie, "--blocks", "x"), "such as 1,3-5, got 'x'"),
        "empty blocks": ((*ie, "--blocks", ""), "such as 1,3-5"),
        "reversed blocks": ((*ie, "--blocks", "3-1"), "such as 1,3-5, got '3-1'"),
        "huge blocks": ((*ie, "--blocks", "1-99999999999"), "got '1-99999999999'"),
        "max order": ((*ie, "--max-order", "-1"), "-1"),
        "max order too high for the map": ((*ie, "--max-order", "9", "--blocks", "4"), "needs 10 distinct positions"),
        "tuples": ((*ie, "--tuples", "0"), "0"),
        "tuples text": ((*ie, "--tuples", "many"), "'many'"),
        "format": ((*ie, "--format", "xml"), "'xml'"),
        "unwritable output": ((*ie, "--output", folder / "no" / "where.json"), "does not exist"),
        "output is a folder": ((*ie, "--output", folder), "is a folder"),
        "wrong checkpoint": ((*ie, "--checkpoint", folder / "other.pth"), "does not fit this HorNet"),
        "cut checkpoint": ((*ie, "--checkpoint", folder / "cut.pth"), "not a readable checkpoint"),
        "no checkpoint": ((*ie, "--checkpoint", folder / "no.pth"), "No such checkpoint"),
        "ema alone": ((*ie, "--ema"), "--checkpoint"),
        "no model": (("train", "--data", "digits", "--output", "run"), "--model"),
        "unknown option": ((*ie, "--colour"), "--colour"),
        "unknown command": (("interactions",), "interactions"),
        "image size": ((*ie, "--image-size", "16"), "at least 32"),
        "image size 0": ((*ie, "--image-size", "0"), "--image-size"),
        "image size of blocks": (("blocks", "--model", "hornet_test", "--image-size", "-5"), "--image-size"),
        "plot suffix": ((*ie, "--plot", folder / "a.jpg"), ".pdf"),
        "plot folder": ((*ie, "--plot", folder / "none" / "a.png"), "does not exist"),
        "resume alone": ((*ie, "--resume"), "--output FILE.json"),
        "resume csv": ((*ie, "--resume", "--output", folder / "a.csv"), "--output FILE.json"),
        "resume of something else": ((*ie, "--resume", "--output", folder / "other.json"), "is not a report"),
        "folder without images": ((*ie, "--images", folder / "empty"), "No images in the folder"),
        "nonlinear": ((*ie, "--nonlinear", "Swish9"), "not in the operator: Swish9"),
        "functional and nonlinear": ((*ie, "--functional", "--nonlinear", "GnConv"), "leave one of them out"),
        "scope": ((*ie, "--scope", "network"), "--scope"),
        "models pattern": (("models", "nothing_*"), "no model of horinsight or timm matches"),
        "too many models": (("models", "resnet*"), "narrow it"),
        "flat picture": ((*ie, "--images", folder / "flat.png"), "got a constant x"),
        "nan weights": ((*ie, "--checkpoint", folder / "nan.pth"), "NaN"),
        "image size of swin": (
            ("blocks", "--model", "swin_tiny_patch4_window7_224", "--image-size", "256"),
            "does not take images of 256x256",
        ),
        "tag": (("blocks", "--model", "hornet_test.foo_in1k"), "use 'hornet_test'"),
        "seed": ((*ie, "--seed", "99999999999999999999999"), "--seed"),
        "empty image": ((*ie, "--images", ""), "empty"),
        "suffix": ((*ie, "--output", folder / "x.png"), "expected .json, .csv, or .txt"),
        "suffix and format": ((*ie, "--output", folder / "x.json", "--format", "csv"), "expected .json"),
    }


@pytest.mark.parametrize("case", [
    "unknown model", "unknown model of blocks", "no such file", "text called jpg", "bomb", "1x1", "blocks 99",
    "blocks x", "empty blocks", "reversed blocks", "huge blocks", "max order", "max order too high for the map",
    "tuples", "tuples text", "format", "unwritable output", "output is a folder", "wrong checkpoint",
    "cut checkpoint", "no checkpoint", "ema alone", "no model", "unknown option", "unknown command", "image size",
    "image size 0", "image size of blocks", "plot suffix", "plot folder", "resume alone", "resume csv",
    "resume of something else", "folder without images", "nonlinear", "functional and nonlinear", "scope",
        "models pattern", "too many models",
    "flat picture", "nan weights", "image size of swin", "tag", "seed", "empty image", "suffix", "suffix and format",
])  # fmt: skip
def test_bad_input_is_one_line_and_status_2(run, tmp_path, case):
    arguments, message = bad_inputs(tmp_path)[case]
    status, out, error = run(*arguments)
    assert status == 2
    assert out == ""
    assert message in one_line(error)


def test_every_bad_input_is_tested(tmp_path):
    marker = next(m for m in test_bad_input_is_one_line_and_status_2.pytestmark if m.name == "parametrize")
    assert sorted(marker.args[1]) == sorted(bad_inputs(tmp_path))


@pytest.mark.parametrize("command", [(), ("models",), ("blocks",), ("ie",)])
def test_help_is_for_newcomers(run, command):
    status, text, _ = run(*command, "--help")
    assert status == 0
    assert "Usage: horinsight" in text
    assert len(text.splitlines()) > 8


def test_no_arguments_shows_the_help(run):
    status, _, error = run()
    assert status == 2
    assert "Commands:" in error


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_finished_and_resume_goes_on(horinsight_script, run, tmp_path):
    output = tmp_path / "out.json"
    options = ["ie", "--model", "hornet_s_iso", "--tuples", "2000", "--max-order", "5", "--output", str(output)]
    process = subprocess.Popen(
        [horinsight_script, *options],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored in what a shell runs in background
    )
    for number in (1, 2):
        assert process.stderr.readline().startswith(f"[{number}/13]")
    process.send_signal(signal.SIGINT)
    start = time.monotonic()
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error.splitlines()[-1] == "horinsight: interrupted"
    assert "of 13 blocks are kept in" in error
    assert "Traceback" not in error
    assert time.monotonic() - start < 30
    assert os.listdir(tmp_path) == ["out.json"]
    kept = json.loads(output.read_text())
    assert kept["complete"] is False
    finished = len(kept["blocks"])
    assert 2 <= finished < 13

    status, _, error = run(*options, "--seed", "1", "--resume")
    assert status == 2
    assert "was made with weights" in one_line(error)
    status, _, error = run(*options[:6], "4", *options[7:], "--resume")
    assert status == 2
    assert "was made with tuples 2000" in one_line(error) or "max_order" in one_line(error)
    assert json.loads(output.read_text()) == kept, "nothing is lost"

    status, _, error = run(*options, "--resume")
    assert status == 0
    assert error.splitlines()[0].startswith(f"[{finished + 1}/13]")
    resumed = json.loads(output.read_text())
    assert resumed["complete"] is True
    assert resumed["blocks"][:finished] == kept["blocks"]
    whole = tmp_path / "whole.json"
    assert run(*options[:-1], whole)[0] == 0
    assert json.loads(whole.read_text())["blocks"] == resumed["blocks"], "as if it had never been interrupted"


def test_resume_of_what_is_not_there_or_complete(run, tmp_path):
    output = tmp_path / "out.json"
    options = ("ie", "--model", "hornet_test_iso", "--tuples", 2, "--output", output, "--resume")
    assert run(*options)[0] == 0
    first = json.loads(output.read_text())
    status, _, error = run(*options)
    assert status == 0
    assert "[1/" not in error, "nothing was left to do"
    assert json.loads(output.read_text()) == first


def test_ie_measures_other_mixers_and_whole_blocks(run, tmp_path):
    plot = tmp_path / "spectra.png"
    options = ("ie", "--model", "seresnet18", "--image-size", 64, "--tuples", 2, "--blocks", "3,6", "--format", "json")
    status, text, error = run(*options, "--plot", plot)
    assert status == 0
    assert f"written: {plot}" in error
    assert Image.open(plot).size[0] > 600
    content = json.loads(text)
    assert content["convention"]["scope"] == "mixer"
    assert "norm scales of 0 set to 1" in content["weights"]["source"]
    for block in content["blocks"]:
        assert (block["mixer"], block["declared_order"], block["location_order"]) == ("squeeze_excitation", 1, 1)
        assert block["unlisted"] == []
    whole = json.loads(run(*options, "--scope", "block")[1])
    assert whole["convention"]["scope"] == "block"
    assert "BatchNorm2d" in whole["convention"]["declared"]
    assert [block["location_order"] for block in whole["blocks"]] == [1, 1]
    functional = json.loads(run(*options, "--functional")[1])
    assert [(b["location_order"], b["at_least"]) for b in functional["blocks"]] == [(None, 3), (None, 3)]
    assert functional["convention"]["kinks"] == "Relu"


def test_ie_on_a_folder_of_photographs(run, tmp_path):
    for seed in range(8):
        noise = np.random.default_rng(seed).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{seed}.png")
    (tmp_path / "notes.txt").write_text("not a picture")
    status, text, _ = run("ie", "--model", "hornet_test_iso", "--images", tmp_path, "--tuples", 1, "--format", "json")
    assert status == 0
    content = json.loads(text)
    assert len(content["images"]) == 8
    assert content["convention"]["interval"].startswith("95 % at these images")
    assert {block["target"] for block in content["blocks"]} == {"these images"}
    assert all(len(block["like_low"]) == len(block["effects"]) for block in content["blocks"]), "of eight images"
    assert content["blocks"][0]["num_draws"] == 8


@pytest.mark.slow
def test_a_closed_pipe_is_no_error(horinsight_script):
    done = subprocess.run(
        f"{horinsight_script} blocks --model hornet_test | head -n 1",
        shell=True,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.startswith("hornet_test, 4 blocks")
    assert done.stdout.count("\n") == 1
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "orders"),
    [
        ("hornet_s_iso", [5] * 13),
        ("hornet_tiny_7x7", [2] * 2 + [3] * 3 + [4] * 18 + [5] * 2),
        ("hornet_tiny_gf", [2] * 2 + [3] * 3 + [4] * 18 + [5] * 2),
    ],
)
def test_the_main_job_on_a_photograph(run, model, orders):
    status, text, _ = run("ie", "--model", model, "--images", "astronaut", "--tuples", 2, "--format", "json")
    assert status == 0
    blocks = json.loads(text)["blocks"]
    assert [block["location_order"] for block in blocks] == orders
    assert [block["degree_order"] for block in blocks] == orders
    for block, order in zip(blocks, orders, strict=True):
        assert block["exact_zero"] == [False] * (order + 1) + [True] * (7 - order)


def test_the_trained_model_is_the_default(run):
    status, text, _ = run("ie", "--blocks", "13", "--tuples", "2", "--format", "json")
    assert status == 0
    content = json.loads(text)
    assert content["model"] == "hornet_digits_iso"
    assert content["weights"]["trained"] is True
    assert content["images"][0].startswith("digit_3")
    status, text, _ = run("blocks")
    assert status == 0
    assert text.count("gnconv") >= 13
