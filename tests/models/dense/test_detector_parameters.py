"""The detectors of Tables 2 and 3: parameters to the printed digits, and the published names with their shapes."""

import json
from math import prod

import pytest
import torchvision
from published_detectors import published_shapes

from horinsight import cascade_mask_rcnn, mask_rcnn, mmdet_state_dict
from horinsight.models.registry import without_weights

ROWS = [  # of Tables 2 and 3, with the parameters in millions that the published configurations have
    (cascade_mask_rcnn, "hornet_tiny_7x7", "fpn", 79.88),
    (cascade_mask_rcnn, "hornet_tiny_gf", "fpn", 80.47),
    (cascade_mask_rcnn, "hornet_small_7x7", "fpn", 106.87),
    (cascade_mask_rcnn, "hornet_small_gf", "fpn", 107.74),
    (cascade_mask_rcnn, "hornet_base_7x7", "fpn", 144.47),
    (cascade_mask_rcnn, "hornet_base_gf", "fpn", 145.63),
    (cascade_mask_rcnn, "hornet_large_7x7", "fpn", 251.49),
    (cascade_mask_rcnn, "hornet_large_gf_img384", "fpn", 258.75),
    (mask_rcnn, "hornet_small_7x7", "fpn", 69.03),
    (mask_rcnn, "hornet_small_7x7", "horfpn_7x7", 67.67),
    (mask_rcnn, "hornet_small_7x7", "horfpn_gf", 68.44),
    (mask_rcnn, "resnet50", "fpn", 44.40),
    (mask_rcnn, "resnet50", "horfpn_7x7", 43.03),
    (mask_rcnn, "resnet50", "horfpn_gf", 43.81),
]


@pytest.mark.parametrize(("build", "backbone", "fpn", "millions"), ROWS, ids=lambda value: str(value)[:24])
def test_parameters_of_the_printed_rows(build, backbone, fpn, millions):
    with without_weights():
        detector = build(backbone, fpn=fpn)
    assert round(sum(weight.numel() for weight in detector.parameters()) / 1e6, 2) == millions


@pytest.mark.parametrize(("build", "fpn"), [(cascade_mask_rcnn, "fpn"), (mask_rcnn, "horfpn_gf")])
def test_published_names_and_shapes_of_a_hornet(build, fpn, reference):
    classifier = json.loads((reference / "state_dict_shapes.json").read_text())["hornet_tiny_gf"]
    backbone = {name: shape for name, shape in classifier.items() if not name.startswith(("head.", "norm."))}
    expected = published_shapes(backbone, (64, 128, 256, 512), cascade=build is cascade_mask_rcnn, fpn=fpn)
    with without_weights():
        found = {
            name: tuple(tensor.shape) for name, tensor in mmdet_state_dict(build("hornet_tiny_gf", fpn=fpn)).items()
        }
    assert found == expected


def test_published_names_and_shapes_of_a_resnet():
    with without_weights():
        backbone = {name: tuple(x.shape) for name, x in torchvision.models.resnet50().state_dict().items()}
        detector = mask_rcnn("resnet50")
    backbone = {name: shape for name, shape in backbone.items() if not name.startswith("fc.")}
    expected = published_shapes(backbone, (256, 512, 1024, 2048), level_norms=False)
    assert {name: tuple(tensor.shape) for name, tensor in mmdet_state_dict(detector).items()} == expected
    weights = [shape for name, shape in expected.items() if not name.endswith(("_mean", "_var", "_tracked"))]
    assert sum(map(prod, weights)) == sum(weight.numel() for weight in detector.parameters())
