"""Everything that is measured works inside a detector: its backbone, and the gnConvs of its HorFPN."""

import pytest
import torch

from horinsight import (
    block_map_sizes,
    cascade_mask_rcnn,
    found_mixers,
    mask_rcnn,
    model_influence,
    model_interaction_spectra,
    model_mixing_weights,
    named_blocks,
)
from horinsight.dry_run import dry_run

TINY = {"channels": 16, "box_width": 32, "num_classes": 2, "min_size": 64, "max_size": 96}
SIZE = (64, 96)
STAGES = [f"levels.body.model.stages.{stage}.0.gnconv" for stage in range(4)]
FUSIONS = [f"fpn.layer_blocks.{level}" for level in range(4)]


@pytest.fixture(scope="module")
def detector():
    return mask_rcnn("hornet_test_gf", fpn="horfpn_gf", **TINY).double()


@pytest.fixture(scope="module")
def images():
    return torch.randn(1, 3, *SIZE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_blocks_are_those_of_backbone_and_pyramid(detector):
    blocks = named_blocks(detector.backbone, image_size=SIZE)
    assert [block.name for block in blocks] == STAGES + FUSIONS
    assert {block.mixer for block in blocks} == {"gnconv"}
    mixers = {mixer.path: mixer for mixer in found_mixers(detector.backbone, image_size=SIZE)}
    assert [mixers[name].order for name in STAGES + FUSIONS] == [2, 3, 4, 5, 2, 2, 2, 2]
    sizes = block_map_sizes(detector.backbone, SIZE)
    assert [tuple(sizes[name]) for name in FUSIONS] == [(16, 24), (8, 12), (4, 6), (2, 3)]


def test_the_whole_detector_is_seen_through(images):
    """It takes a batch as any network does; its regions and proposals mix positions as well, behind the backbone."""
    whole = cascade_mask_rcnn("hornet_test_gf", fpn="horfpn_7x7", **TINY)
    blocks = named_blocks(whole, image_size=SIZE)
    inside = [block.name for block in blocks if block.name.startswith("backbone.")]
    assert set(inside) == {f"backbone.{name}" for name in STAGES + FUSIONS}
    assert {block.name.split(".")[0] for block in blocks} == {"backbone", "rpn", "roi_heads"}
    first = [block.index for block in blocks if block.name == f"backbone.{STAGES[1]}"]
    batch = images.float().sigmoid()
    assert next(iter(model_interaction_spectra(whole, batch, blocks=first, num_tuples=2).values())).location_order == 3
    (weights,) = model_mixing_weights(whole, batch, blocks=first).values()
    assert weights.reconstruction_error < 1e-5
    assert not whole.training


def test_orders_of_the_pyramids_gnconvs(detector, images):
    spectra = model_interaction_spectra(detector.backbone, images, blocks=[5, 6, 7], num_tuples=4)
    assert {name: spectrum.location_order for name, spectrum in spectra.items()} == dict.fromkeys(FUSIONS[:3], 2)


def test_mixing_weights_hold_in_every_block(detector, images):
    weights = model_mixing_weights(detector.backbone, images)
    assert list(weights) == STAGES + FUSIONS
    assert max(found.reconstruction_error for found in weights.values()) < 1e-12


def test_the_pyramid_reaches_the_whole_picture(detector, images):
    """Laterals and sums from above hand on what GF blocks saw: the finest level depends on every pixel's place."""
    reaches = model_influence(detector.backbone, images, blocks=[1, 5], scope="image", probes=2)
    seen = {name: int((reach.influence.squares[0, 0] > 0).sum()) for name, reach in reaches.items()}
    assert seen[FUSIONS[0]] == SIZE[0] * SIZE[1]
    assert seen[STAGES[0]] == 28 * 28  # seven cells of four pixels


def test_a_backbone_runs_on_shapes_alone(detector):
    maps = dry_run(detector.backbone, (800, 1280))
    assert [tuple(level.shape[2:]) for level in maps.values()] == [(200, 320), (100, 160), (50, 80), (25, 40), (13, 20)]
