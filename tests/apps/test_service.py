"""What is behind the pages: the gate, the start, pictures, the state of a session."""

import html
import io
import json
import re
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import NAN_WEIGHTS
from PIL import Image
from streamlit.testing.v1 import AppTest

import horinsight
from horinsight.data.images import sample_image
from horinsight.interaction.spectrum_options import SpectrumOptions
from horinsight.viewer.service.attributed import (
    CURVES,
    MAPS,
    Explained,
    attribute,
    curve_runs,
    follow,
    model_runs,
    shown_map,
)
from horinsight.viewer.service.block_spectra import STORE, Measurement, Store, measure, reference_orders
from horinsight.viewer.service.gate import BusyError, Gate
from horinsight.viewer.service.mixed import default_blocks, mixed
from horinsight.viewer.service.model_pool import ModelKey, shared_model
from horinsight.viewer.service.pictures import Source, prepared
from horinsight.viewer.service.settings import MODELS, Settings, checkpoint_files, checkpoint_path, parsed

VIEWER = str(Path(__file__).parents[2] / "apps" / "viewer.py")
DIGITS = ModelKey("hornet_digits_iso")


def test_the_gate_lets_two_in_and_tells_the_others():
    gate = Gate(2, wait_seconds=0.05)
    with gate.slot() as first, gate.slot() as second:
        assert {first, second} == {0, 1}
        with pytest.raises(BusyError, match="try again"), gate.slot():
            pass
    with pytest.raises(KeyError), gate.slot():
        raise KeyError("whatever happens inside")
    with gate.slot(), gate.slot():
        pass


def test_something_long_leaves_a_slot_for_what_is_short():
    gate = Gate(2, wait_seconds=0.05)
    with gate.long_slot():
        with pytest.raises(BusyError), gate.long_slot():
            pass
        with gate.slot():
            pass


def test_nobody_sees_what_another_visitor_calls_the_same_picture():
    stream = io.BytesIO()
    Image.new("RGB", (32, 32), "teal").save(stream, "PNG")
    for name in ("mine.png", "yours.png"):
        source = Source.of_upload(name, stream.getvalue())
        found = mixed(source, DIGITS, (1,), None)
        assert found.picture.name == name
        assert found.picture.id == source.id
        assert all(label.startswith(name.removesuffix(".png")) for label in found.provenance.images)


def test_the_gate_bounds_what_runs_at_once():
    gate, running, most = Gate(2, wait_seconds=10), [], []

    def work() -> None:
        with gate.slot() as slot:
            running.append(slot)
            most.append(sorted(running))
            time.sleep(0.005)
            running.remove(slot)

    threads = [threading.Thread(target=work) for _ in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 30
    assert all(len(set(slots)) == len(slots) <= 2 for slots in most), "a replica is never used twice at once"


def test_replicas_share_their_weights_and_not_their_hooks():
    first, second = shared_model(DIGITS).replicas
    for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert a.data_ptr() == b.data_ptr()
    assert not {id(module) for module in first.modules()} & {id(module) for module in second.modules()}
    with horinsight.capture({"block": first.blocks[0]}) as calls, torch.inference_mode():
        second(torch.zeros(1, 3, 56, 56))
    assert not calls["block"]


def test_two_sessions_at_once_get_what_each_alone_would():
    sources = [Source(f"digit_{digit}") for digit in range(10)]
    found: dict[str, np.ndarray] = {}

    def visit(source: Source) -> None:
        maps = mixed(source, DIGITS, (1, 13), None).maps((5, 6))
        found[source.name] = np.stack([values[0] for values in maps.maps.values()])

    threads = [threading.Thread(target=visit, args=(source,)) for source in sources]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    model = horinsight.create_model(DIGITS.name)
    for source in sources:
        batch = horinsight.image_batch(model, [sample_image(source.name)])
        alone = horinsight.query_maps(model, batch, [[(5, 6)]], blocks=[1, 13])
        expected = np.stack([values[0] for values in alone.maps.values()])
        np.testing.assert_allclose(found[source.name], expected, rtol=1e-4, atol=1e-6 * np.abs(expected).max())


def test_settings(tmp_path):
    assert parsed([]) == Settings(MODELS, None)
    given = parsed(["--checkpoints", str(tmp_path), "--models", "test_vit"])
    assert given.checkpoints == tmp_path
    assert given.models[-1] == "test_vit"
    with pytest.raises(ValueError, match="expects a folder"):
        parsed(["--checkpoints", str(tmp_path / "nowhere")])
    with pytest.raises(ValueError, match="neither horinsight nor timm has hornet_huge"):
        parsed(["--models", "hornet_huge"])
    with pytest.raises(ValueError, match="expects --checkpoints DIR"):
        parsed(["--checkpoints"])
    assert parsed(["--memory", "1.5"]).memory == 1.5
    for memory in ("0", "nan", "inf", "-1"):
        with pytest.raises(ValueError, match="expects gigabytes above 0"):
            parsed(["--memory", memory])


def test_checkpoints_come_from_the_folder_alone(checkpoints):
    assert checkpoint_files(None) == []
    assert checkpoint_files(checkpoints) == [NAN_WEIGHTS, "digits_seed5.pth", "evil.pth", "huge.pth", "wrong.pth"]
    assert checkpoint_path(checkpoints, "wrong.pth") == checkpoints.resolve() / "wrong.pth"
    for name in ("../secret.pth", "link.pth", str(checkpoints / "wrong.pth"), "", "."):
        with pytest.raises(ValueError, match="No checkpoint of that name"):
            checkpoint_path(checkpoints, name)


def test_pictures_are_prepared_as_the_package_does():
    source = Source("chelsea")
    picture = prepared(source, DIGITS)
    model = horinsight.create_model(DIGITS.name)
    assert torch.equal(picture.batch, horinsight.image_batch(model, [sample_image("chelsea")]))
    assert picture.label.startswith("chelsea (sha256 ")
    assert picture.src.startswith("data:image/jpeg;base64,")
    content = (Path(horinsight.__file__).parent / "__init__.py").read_bytes()
    with pytest.raises(ValueError, match=r"code.png is not a picture that horinsight reads \(PNG, JPEG, WEBP, BMP\)"):
        prepared(Source.of_upload("code.png", content), DIGITS)


def test_formats_that_the_page_does_not_offer_are_refused(tmp_path):
    Image.new("RGB", (20, 20)).save(tmp_path / "picture.tiff")
    with pytest.raises(ValueError, match="not a picture"):
        prepared(Source.of_upload("picture.png", (tmp_path / "picture.tiff").read_bytes()), DIGITS)


def test_default_blocks():
    assert default_blocks(shared_model(DIGITS)) == horinsight.FIGURE_4_BLOCKS
    assert default_blocks(shared_model(ModelKey("hornet_test"))) == (1,)


def test_finished_blocks_are_kept():
    measurement = Measurement(DIGITS, "digit_1", SpectrumOptions(num_tuples=2))
    measure(measurement, 3, Source("digit_1"))
    spectrum = STORE.get(measurement, 3)
    assert spectrum.location_order == 5
    assert spectrum.provenance.model == "hornet_digits_iso"
    measure(measurement, 3, Source("digit_1"))
    assert STORE.get(measurement, 3) is spectrum
    impossible = Measurement(ModelKey("hornet_test"), "digit_1", SpectrumOptions(num_tuples=2, max_order=12))
    measure(impossible, 4, Source("digit_1"))
    assert "distinct positions" in STORE.get(impossible, 4)
    small = Store(kept=2)
    for index in range(3):
        small.put(measurement, index, "x")
    assert [small.get(measurement, index) for index in range(3)] == [None, "x", "x"]


def test_the_order_ladder_as_reference():
    blocks = list(shared_model(ModelKey("hornet_test")).blocks)
    orders = {name: order for order, name in reference_orders(blocks)}
    assert orders == {
        "convolution 7x7": 0,
        "squeeze-and-excitation": 1,
        "self-attention, g2Conv": 2,
        "g3Conv": 3,
        "g4Conv": 4,
        "g5Conv": 5,
    }


def visit(**address: str) -> AppTest:
    at = AppTest.from_file(VIEWER, default_timeout=60)
    for name, value in address.items():
        at.query_params[name] = value
    at.run()
    assert not at.exception, [one.value for one in at.exception]
    return at


def sent(at: AppTest, key: str) -> dict:
    """What Python sent a component."""
    return json.loads(at.get_by_key(key).proto.json)


def click(at: AppTest, key: str, **cell: object) -> AppTest:
    """Send what a component would."""
    states = at._tree.get_widget_states()
    states.widgets.add(id=at.get_by_key(key).proto.id, json_value=json.dumps({"cell": cell}))
    at._run(states)
    assert not at.exception, [one.value for one in at.exception]
    return at


def turn_to(at: AppTest, title: str) -> AppTest:
    """Choose a page, which `AppTest.switch_page` can do for those in files of their own alone."""
    at._page_hash = next(key for key, page in at._registered_pages.items() if page["page_name"] == title)
    return at


def test_the_maps_on_the_page_are_those_of_the_package():
    at = visit(row="4", col="9", image="digit_8")
    data = sent(at, "gallery")
    model = horinsight.create_model(DIGITS.name)
    batch = horinsight.image_batch(model, [sample_image("digit_8")])
    expected = horinsight.query_maps(model, batch, [[(4, 9)]], blocks=horinsight.FIGURE_4_BLOCKS)
    assert [panel["name"] for panel in data["panels"]] == list(expected.maps)
    for panel, values in zip(data["panels"], expected.maps.values(), strict=True):
        shown = np.array([0.0 if value is None else value for value in panel["values"]]).reshape(14, 14)
        np.testing.assert_allclose(shown, values[0], rtol=1e-4, atol=1e-5 * np.abs(values).max())
        assert panel["high"] == pytest.approx(np.abs(values).max(), rel=1e-5)
        assert panel["query"] == [4, 9]
    prediction = " ".join(one.value if hasattr(one, "value") else "" for one in at.get("html"))
    assert "Prediction" in prediction or at.get("html")


def test_clicks_and_what_no_browser_would_send():
    at = visit()
    click(at, "picker", row=3, col=11)
    assert (at.session_state["row"], at.session_state["col"]) == (3, 11)
    click(at, "gallery", panel=2, row=4, col=4)
    assert (at.session_state["row"], at.session_state["col"]) == (4, 4)
    click(at, "picker", row=300, col=-4)
    assert (at.session_state["row"], at.session_state["col"]) == (13, 0)
    for nonsense in ({"row": "x", "col": 1}, {}, {"row": None, "col": None}, {"row": 1.5, "col": 2}):
        click(at, "picker", **nonsense)
        assert (at.session_state["row"], at.session_state["col"]) == (13, 0)
    click(at, "gallery", panel=-7, row=1, col=1)
    click(at, "gallery", panel="x", row=1, col=1)


def test_every_page_and_back():
    at = visit(row="2", col="3")
    for page in ("Interaction spectra", "Cost", "Compare", "Mixing weights"):
        turn_to(at, page).run()
        assert not at.exception, page
    assert (at.session_state["row"], at.session_state["col"]) == (2, 3)


def test_the_query_stays_at_its_place_when_the_map_changes():
    at = visit(model="hornet_tiny_7x7", row="3", col="10")
    assert sent(at, "picker")["rows"] == 14
    at.multiselect(key="blocks").set_value([1, 9]).run()
    data = sent(at, "picker")
    assert (data["rows"], data["row"], data["col"]) == (56, 14, 42)
    assert sent(at, "gallery")["panels"][1]["query"] == [3, 10]


def test_a_link_that_asks_for_what_is_not_here():
    at = visit(model="hornet_huge", image="digit_2")
    assert told(at, "warning") == [
        "The link asks for model 'hornet_huge', which this viewer does not have: the default is shown instead."
    ]
    assert not told(visit(model="hornet_s_iso", image="coffee"), "warning")


def test_busy_is_said(monkeypatch):
    import horinsight.viewer.service.gate as module

    monkeypatch.setattr(module.GATE, "wait_seconds", 0.01)
    with module.GATE.slot(), module.GATE.slot():
        at = visit(image="motorcycle")
    assert any("busy" in words for words in told(at, "warning"))
    assert at.get_by_key("try_again") is not None
    at.run()
    assert not told(at, "warning")
    assert at.get_by_key("gallery") is not None


# attribution


def attributed(**address: str) -> AppTest:
    at = turn_to(visit(**address), "Attribution").run(timeout=120)
    assert not at.exception, [one.value for one in at.exception]
    return at


def said(at: AppTest) -> str:
    ours = [one.value for kind in (at.markdown, at.caption, at.info) for one in kind]
    return " ".join(ours + [html.unescape(one.proto.body) for one in at.get("html")])


def told(at: AppTest, kind: str) -> list[str]:
    """Messages of a kind."""
    pattern = rf'<div class="told {kind}"[^>]*>(.*?)</div>'
    return [html.unescape(words) for one in at.get("html") for words in re.findall(pattern, one.proto.body)]


def test_a_class_is_attributed_and_its_maps_are_followed():
    at = attributed()
    text = said(at)
    assert "explained: the logit" in text
    assert "of class 3" in text
    for name in ("saliency", "deep lift", "mixing rollout"):
        assert f"<b>{name}</b>" in text
    assert "One picture proves nothing" in text
    explained = Explained(DIGITS, "digit_3", "black", None, None, 13)
    model = horinsight.create_model("hornet_digits_iso")
    images = horinsight.image_batch(model, [sample_image("digit_3")])
    expected = horinsight.prediction_attribution(model, images, methods=["saliency"])
    np.testing.assert_allclose(
        shown_map(MAPS.get((explained, "saliency")), "saliency"), expected.maps["saliency"][0], rtol=1e-4, atol=1e-7
    )
    curves = CURVES.get((explained, ("saliency", "deep_lift", "mixing_rollout")))
    assert curves.methods == ("saliency", "deep_lift", "mixing_rollout")
    assert curves.provenance.images[0].startswith("digit_3")
    at.multiselect(key="methods_class").set_value(["input_x_gradient"]).run(timeout=60)
    assert "<b>input x gradient</b>" in said(at)


def test_a_position_is_attributed_and_moves_with_a_click():
    at = attributed(explain="Position", at_block="4", row="2", col="3", methods_position="saliency")
    assert "residual block 4" in said(at)
    assert MAPS.get((Explained(DIGITS, "digit_3", "black", 4, (2, 3), 4), "saliency")) is not None
    click(at, "attribution_picker", row=5, col=6)
    assert MAPS.get((Explained(DIGITS, "digit_3", "black", 4, (5, 6), 4), "saliency")) is not None


def test_a_method_that_cannot_run_says_why_beside_the_others():
    at = attributed(methods_class="guided_backprop", baseline="mean")
    assert any("ReLU" in words for words in told(at, "error"))
    at.multiselect(key="methods_class").set_value(["guided_backprop", "grad_cam"]).run(timeout=60)
    assert any("ReLU" in words for words in told(at, "error"))
    assert "<b>grad cam</b>" in said(at)


def test_what_takes_long_waits_until_it_is_asked_for():
    at = attributed(methods_class="occlusion", baseline="blur")
    assert "Press Ask" in said(at)
    explained = Explained(DIGITS, "digit_3", "blur", None, None, 13)
    assert MAPS.get((explained, "occlusion")) is None
    next(button for button in at.button if button.key == "ask").click().run(timeout=120)
    assert MAPS.get((explained, "occlusion")) is not None
    assert "One picture proves nothing" in said(at)


def test_a_link_that_asks_for_nonsense_gets_the_defaults():
    at = attributed(explain="Nothing", baseline="purple", at_block="9999", methods_class="<script>", row="-5")
    assert "<b>saliency</b>" in said(at)
    assert told(at, "warning") == [
        "The link asks for row '-5', explain 'Nothing', methods_class '<script>', baseline 'purple', at_block '9999', "
        "which this viewer does not have: the default is shown instead."
    ]


def test_the_price_that_is_said_is_what_is_paid():
    shared = shared_model(DIGITS)
    explained = Explained(DIGITS, "digit_5", "mean", None, None, 13)
    names = ["occlusion", "feature_ablation", "kernel_shap", "integrated_gradients"]
    runs: list[int] = []
    hooks = [one.register_forward_pre_hook(lambda _, given: runs.append(len(given[0]))) for one in shared.replicas]
    try:
        for name in names:
            runs.clear()
            attribute(explained, name, Source("digit_5"))
            assert model_runs(name) <= sum(runs) <= 1.3 * model_runs(name) + 5, name
        runs.clear()
        follow(explained, names, Source("digit_5"))
        assert curve_runs(len(names)) / 1.5 <= sum(runs) <= 1.5 * curve_runs(len(names))
    finally:
        for hook in hooks:
            hook.remove()


def test_a_model_without_classes_has_positions(monkeypatch):
    for one in shared_model(DIGITS).replicas:
        monkeypatch.setattr(one, "num_classes", 0)
    at = attributed()
    assert "no classes: choose Position" in said(at)
    assert "explained: the logit" not in said(at)
    at = attributed(explain="Position", at_block="3", methods_position="input_x_gradient")
    assert "residual block 3" in said(at)
    assert "<b>input x gradient</b>" in said(at)


def test_slow_methods_say_their_price_and_quick_ones_their_colours():
    at = attributed(methods_class="shapley_value_sampling", baseline="mean")
    assert "shapley value sampling about 1225, their curves about 112" in said(at)
    at = attributed(methods_class="influence_rollout", baseline="mean")
    assert "derivatives of every block for each of 4 draws" in said(at)
    at = attributed(image="digit_8")
    assert not [button for button in at.button if button.key in {"ask", "stop_asking"}], "all is finished"
    assert "Red speaks for" in said(at)
