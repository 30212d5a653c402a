"""Tables 1, 2, 3 and 6: every row of the published configurations, and the counter of Tables 2 and 3 by itself."""

import json
from collections import Counter

import pytest
import timm
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from horinsight import cascade_mask_rcnn, dense_count, mask_rcnn, table_counts, upernet
from horinsight.complexity.dense_counted import DETECTIONS, PROPOSALS
from horinsight.complexity.printed_tables import PrintedRow, chosen_rows, printed_rows
from horinsight.complexity.table_counts import row_count
from horinsight.models.registry import without_weights

UPERNET, CASCADE, MASK = "upernet", "cascade_mask_rcnn", "mask_rcnn"
# parameters in millions and 1e9 MACs of the published configurations, computed beside this package
DENSE = {
    (UPERNET, "hornet_tiny_7x7", "fpn"): (52.21, 926.0),
    (UPERNET, "hornet_tiny_gf", "fpn"): (54.63, 924.3),
    (UPERNET, "hornet_small_7x7", "fpn"): (81.18, 1030.5),
    (UPERNET, "hornet_small_gf", "fpn"): (84.81, 1028.0),
    (UPERNET, "hornet_base_7x7", "fpn"): (120.77, 1175.0),
    (UPERNET, "hornet_base_gf", "fpn"): (125.61, 1171.6),
    (UPERNET, "hornet_large_7x7", "fpn"): (231.77, 2472),
    (UPERNET, "hornet_large_gf", "fpn"): (239.03, 2465),
    (CASCADE, "hornet_tiny_7x7", "fpn"): (79.88, 730.3),
    (CASCADE, "hornet_tiny_gf", "fpn"): (80.47, 728.6),
    (CASCADE, "hornet_small_7x7", "fpn"): (106.87, 830.4),
    (CASCADE, "hornet_small_gf", "fpn"): (107.74, 827.9),
    (CASCADE, "hornet_base_7x7", "fpn"): (144.47, 969.3),
    (CASCADE, "hornet_base_gf", "fpn"): (145.63, 966.0),
    (CASCADE, "hornet_large_7x7", "fpn"): (251.49, 1363),
    (CASCADE, "hornet_large_gf", "fpn"): (258.75, 1358),
    (MASK, "hornet_small_7x7", "fpn"): (69.03, 351.6),
    (MASK, "hornet_small_7x7", "horfpn_7x7"): (67.67, 322.6),
    (MASK, "hornet_small_7x7", "horfpn_gf"): (68.44, 321),
    (UPERNET, "hornet_small_7x7", "horfpn_7x7"): (74.28, 577.9),
    (UPERNET, "hornet_small_7x7", "horfpn_gf"): (74.66, 575),
}
# of ResNets' rows convolutions and linear layers alone
RESNET = {
    (MASK, "resnet50", "fpn"): (44.40, 259.3),
    (MASK, "resnet50", "horfpn_7x7"): (43.03, 230.3),
    (MASK, "resnet50", "horfpn_gf"): (43.81, 228.8),
    (UPERNET, "resnet50", "fpn"): (66.50, 946.3),
    (UPERNET, "resnet50", "horfpn_7x7"): (59.59, 493.5),
    (UPERNET, "resnet50", "horfpn_gf"): (59.98, 491.2),
}
ROWS = {(row.framework, row.label, row.fpn): row for row in printed_rows(3) + printed_rows(2)}
CONTRADICTED = {key for key in ROWS if key[1].startswith("resnet") and key[2] != "fpn"}
QUICK = ("hornet_tiny_7x7", "hornet_tiny_gf", "hornet_large_gf", "resnet50")


def named(key: tuple[str, str, str]) -> object:
    return pytest.param(key, id="-".join(key), marks=[] if key[1] in QUICK else pytest.mark.slow)


@pytest.mark.parametrize("key", [named(key) for key in DENSE | RESNET])
def test_rows_of_tables_2_and_3(key):
    count = row_count(ROWS[key])
    params, macs = (DENSE | RESNET)[key]
    assert round(count.params / 1e6, 2) == params
    assert (count.macs_counted if key in DENSE else count.macs) / 1e9 == pytest.approx(macs, rel=1e-3)
    assert count.params_reproduced
    assert count.flops_reproduced == (key not in CONTRADICTED)
    if key not in CONTRADICTED:
        assert abs(count.macs_counted / 1e9 - count.printed_flops_g) < 1


@pytest.mark.parametrize(
    "key",
    [
        (UPERNET, "swin_t", "fpn"),
        (CASCADE, "swin_t", "fpn"),
        (MASK, "swin_s", "horfpn_7x7"),
        (UPERNET, "convnext_t", "fpn"),
    ],
    ids="-".join,
)
def test_rivals_and_swins_own_way_to_count(key):
    count = row_count(ROWS[key])
    assert count.reproduced
    assert abs(count.macs_counted / 1e9 - count.printed_flops_g) < 1
    assert count.convention == ("dense_attention" if key[1:] == ("swin_t", "fpn") else "dense")


NOT_REPRODUCED = {"g1111": (False, False), "g4444": (True, False), "convnext_t": (False, True)}


@pytest.mark.parametrize("row", printed_rows(6), ids=lambda row: f"{row.table}-{row.label}")
def test_rows_of_table_6(row):
    count = row_count(row)
    assert (count.params_reproduced, count.flops_reproduced) == NOT_REPRODUCED.get(row.label, (True, True))


def test_rows_are_the_papers(reference):
    paper = json.loads((reference / "paper_tables.json").read_text())
    assert len(printed_rows(1)) == len(paper["table1"]["hornet"] + paper["table1"]["baselines"])
    assert len(printed_rows(2)) == 2 * len(paper["table2"]["rows"]) == 34
    assert len(printed_rows(3)) == 2 * len(paper["table3"]["rows"]) == 24
    assert len(printed_rows(6)) == sum(map(len, paper["table6"].values())) == 20
    assert all(timm.is_model(row.model) for table in (1, 2, 3, 6) for row in printed_rows(table))
    sizes = {row.image_size for row in printed_rows(2) if row.framework == UPERNET and row.label != "convnext_xl"}
    assert sizes == {
        tuple(paper["table2"]["upernet_input"]["in1k"][::-1]),
        tuple(paper["table2"]["upernet_input"]["in22k"][::-1]),
    }
    assert {row.image_size for row in printed_rows(2) if row.framework == CASCADE} == {(800, 1280)}
    by_key = {(row["backbone"], row["neck"]): row for row in paper["table3"]["rows"]}
    for row in printed_rows(3):
        assert row.flops_g == by_key[row.label, row.fpn][f"{row.framework}_flops_g"]
        assert row.params_m == by_key[row.label, row.fpn][f"{row.framework}_params_m"]


def tiny_upernet(backbone: str, **options) -> nn.Module:
    with without_weights():
        return upernet(backbone, num_classes=5, channels=16, auxiliary_channels=8, **options)


@pytest.mark.parametrize(
    ("backbone", "options"),
    [("hornet_test_gf", {"horfpn": "gf"}), ("resnet10t", {}), ("swin_tiny_patch4_window7_224", {})],
)
def test_a_segmenters_macs_are_torchs(backbone, options):
    model = tiny_upernet(backbone, **options)
    seen = Counter()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.ReLU):
            module.register_forward_hook(lambda m, args, out: seen.update({type(m): out.numel()}))
        elif isinstance(module, nn.Conv2d) and module.bias is not None:
            module.register_forward_hook(lambda m, args, out: seen.update({nn.Conv2d: out.numel()}))
    count = dense_count(model, (64, 96))
    norms, relus, biases = (seen[kind] for kind in (nn.BatchNorm2d, nn.ReLU, nn.Conv2d))
    with FlopCounterMode(display=False) as operators, torch.no_grad():
        model(torch.empty(1, 3, 64, 96, device="meta"))
    assert 2 * (count.macs + count.attention) == operators.get_total_flops()
    assert bool(count.attention) == ("swin" in backbone)
    assert (count.batch_norms, count.relus, count.biases) == (norms, relus, biases)
    assert count.macs_counted == count.macs + biases + 2 * norms + relus
    assert any(key.startswith("auxiliary_head") for key, _ in model.named_parameters())
    assert count.params == sum(weight.numel() for weight in model.parameters())


@pytest.mark.parametrize(("build", "stages"), [(mask_rcnn, 1), (cascade_mask_rcnn, 3)])
def test_a_detectors_heads_term_by_term(build, stages):
    c, width, classes = 16, 32, 3
    with without_weights():
        detector = build("hornet_test", channels=c, box_width=width, num_classes=classes)
    whole, pyramid = dense_count(detector, (96, 128)), dense_count(detector.backbone, (96, 128))
    cells = sum(24 * 32 // 4**level for level in range(4)) + 2 * 2
    proposals = cells * (9 * c * c + 3 * c + 12 * c)
    first = 49 * c * width + width * (1 + classes) + width * 4 * classes
    box = first + (4 * 49 * 9 * c * c if stages == 3 else width * width)
    mask = 4 * 196 * 9 * c * c + 784 * c * c + 784 * c * classes
    expected = pyramid.macs + proposals + stages * (PROPOSALS * box + DETECTIONS * mask)
    assert whole.macs == expected
    assert (whole.regions, pyramid.regions) == ((1000, 100), (0, 0))
    assert whole.batch_norms == (3 * PROPOSALS * 4 * 49 * c if stages == 3 else 0)


def test_horfpn_saves_the_same_on_every_backbone():
    """Why the ResNets' rows cannot all be right."""
    saved = set()
    for backbone in ("hornet_test", "resnet18"):
        plain, other = (dense_count(tiny_upernet(backbone, horfpn=f), (64, 96)) for f in (None, "conv"))
        saved.add((plain.macs_counted - other.macs_counted, plain.params - other.params))
    assert len(saved) == 1
    printed = {
        label: ROWS[UPERNET, label, "fpn"].flops_g - ROWS[UPERNET, label, "horfpn_7x7"].flops_g
        for label in ("resnet50", "resnet101", "hornet_small_7x7")
    }
    assert printed == {"resnet50": 448, "resnet101": 448, "hornet_small_7x7": 453}


def test_counting_changes_nothing():
    model = tiny_upernet("hornet_test").train()
    dense_count(model, (64, 64))
    assert model.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_bad_input():
    with pytest.raises(ValueError, match="tables 1, 2, 3 and 6, got 7"):
        table_counts(7)
    with pytest.raises(ValueError, match="Table 3 has no row of 'hornet_test': it has resnet50, "):
        table_counts(3, model="hornet_test")
    with pytest.raises(ValueError, match="without weights, got a Conv2d with some"):
        dense_count(nn.Conv2d(3, 4, 3), (32, 32))
    with pytest.raises(ValueError, match="images of at least 32 pixels a side, got 8x8"):
        dense_count(tiny_upernet("hornet_test"), (8, 8))
    with pytest.raises(TypeError, match="two whole numbers, got 32"):
        dense_count(tiny_upernet("hornet_test"), 32)
    assert [row.fpn for row in chosen_rows(3, "swin_small_patch4_window7_224")] == [
        "fpn",
        "horfpn_7x7",
        "horfpn_gf",
    ] * 2
    assert isinstance(chosen_rows(1, None)[0], PrintedRow)
