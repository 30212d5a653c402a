"""Parts of networks: each counted once, equal neighbours together."""

import pytest

from horinsight.complexity.counted import count_macs
from horinsight.complexity.parts import cost_parts
from horinsight.models.registry import model_without_weights


@pytest.mark.parametrize("name", ["hornet_test", "deit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "resnet18"])
def test_every_multiplication_is_in_one_part(name):
    model = model_without_weights(name)
    count = count_macs(model, 224)
    parts = cost_parts(model, count)
    names = [path for part in parts for path in part.names]
    assert len(set(names)) == len(names)
    assert sum(part.total for part in parts) == count.macs
    for part in parts:
        for path in part.names:
            assert sum(count.by_module[path].get(key, 0) for key in part.by_column) == part.macs


def test_equal_blocks_are_one_part_and_stages_are_none():
    model = model_without_weights("swin_tiny_patch4_window7_224")
    parts = {part.label: part for part in cost_parts(model, count_macs(model, 224))}
    assert "layers.2.blocks.0 to 5, x 6" in parts
    # of one block on 14 x 14 positions with 384 channels: 12 C^2 in linear layers, windows of 49 in attention
    assert parts["layers.2.blocks.0 to 5, x 6"].macs == 196 * (12 * 384**2 + 2 * 49 * 384)
