import dataclasses
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from horinsight import (
    QueryMaps,
    create_model,
    image_batch,
    load_result,
    model_mixing_weights,
    query_maps,
    random_queries,
    sample_images,
    save_result,
)
from horinsight.mixers.blocks import MixingBlock
from horinsight.mixing.filter_kernels import filter_kernels
from horinsight.mixing.mixing_results import map_rows
from horinsight.mixing.query_maps import map_convention, maps_of_weights
from horinsight.mixing.query_places import figure_blocks, same_place
from horinsight.models.provenance import model_provenance


def example(model_name: str = "hornet_test", **options) -> tuple[torch.nn.Module, torch.Tensor, QueryMaps]:
    model = create_model(model_name)
    samples = sample_images()
    images = image_batch(model, [samples["chelsea"], samples["rocket"]])
    queries = [[(0, 0), (5, 7)], [(23, 11)]]
    names = ["chelsea", "rocket"]
    return model, images, query_maps(model, images, queries, model_name=model_name, image_names=names, **options)


def test_maps_are_rows_of_the_mixing_weights():
    model, images, result = example()
    weights = model_mixing_weights(model, images)
    first = weights["stages.0.0.gnconv"]
    np.testing.assert_array_equal(result.maps["stages.0.0.gnconv"][1], first.at(5, 7)[0].mean(0))
    np.testing.assert_array_equal(result.maps["stages.0.0.gnconv"][2], first.at(23, 11)[1].mean(0))
    assert result.picture_of_entry.tolist() == [0, 0, 1]
    assert result.block_indices == (1, 2, 3, 4)
    assert max(result.reconstruction_errors) < 1e-5
    assert result.pictures.shape == (2, 96, 96, 3)
    assert result.provenance.trained is False
    assert result.provenance.images == ("chelsea", "rocket")


def test_the_query_stays_at_its_place_on_coarser_maps():
    _, _, result = example()
    assert result.queries["stages.0.0.gnconv"].tolist() == [[0, 0], [5, 7], [23, 11]]
    assert result.queries["stages.3.0.gnconv"].tolist() == [[0, 0], [0, 0], [2, 1]]  # 24x24 → 3x3
    _, _, one = example(blocks=[1])
    assert one.maps.keys() == {"stages.0.0.gnconv"}


def test_provenance_is_given_whole_or_made_of_what_is_said():
    model, images, said = example()
    origin = model_provenance(model, model_name="hornet_test", image_names=["chelsea", "rocket"], seed=5)
    queries = [[(0, 0), (5, 7)], [(23, 11)]]
    given = query_maps(model, images, queries, provenance=origin)
    assert given == example(seed=5)[2]
    assert given == dataclasses.replace(said, provenance=origin)
    with pytest.raises(TypeError, match="either provenance or what it is made of, got both: seed"):
        query_maps(model, images, queries, provenance=origin, seed=0)
    with pytest.raises(TypeError, match="unexpected keyword argument 'names'"):
        query_maps(model, images, queries, names=["chelsea", "rocket"])
    with pytest.raises(ValueError, match="a name for each of 2 images, got 1"):
        query_maps(model, images, queries, provenance=dataclasses.replace(origin, images=("chelsea",)))


@pytest.mark.parametrize("suffix", [".npz", ".json"])
def test_save_and_load(tmp_path, suffix):
    _, _, result = example()
    save_result(result, tmp_path / f"maps{suffix}")
    restored = load_result(QueryMaps, tmp_path / f"maps{suffix}")
    assert restored.provenance == result.provenance
    assert restored.convention == result.convention
    assert restored.image_names == result.image_names
    for name, maps in result.maps.items():
        np.testing.assert_allclose(restored.maps[name], maps, rtol=1e-7)
        np.testing.assert_array_equal(restored.queries[name], result.queries[name])
    np.testing.assert_array_equal(restored.pictures, result.pictures)


@pytest.mark.parametrize("queries", [[[]], [(1, 1)], [[(1, 2, 3)]]])
def test_queries_of_another_form(queries):
    with pytest.raises(ValueError, match=r"expects \[\[\(row, col\)"):
        query_maps(create_model("hornet_test_iso"), torch.randn(1, 3, 96, 96), queries)


def test_wrong_queries():
    model = create_model("hornet_test_iso")
    with pytest.raises(ValueError, match="got 6,0"):
        query_maps(model, torch.randn(1, 3, 96, 96), [[(6, 0)]])
    with pytest.raises(ValueError, match="each of 2 images, got 1"):
        query_maps(model, torch.randn(2, 3, 96, 96), [[(0, 0)]])


def test_random_queries_are_distinct_and_seeded():
    queries = random_queries(3, 10, (4, 5), seed=1)
    assert queries == random_queries(3, 10, (4, 5), seed=1) != random_queries(3, 10, (4, 5), seed=2)
    for chosen in queries:
        assert len(set(chosen)) == 10
        assert all(0 <= row < 4 and 0 <= col < 5 for row, col in chosen)


@pytest.mark.parametrize("size", [(6, 6), (6, 7), (9, 5)])
def test_filter_kernels_are_what_the_layer_computes(size):
    """The kernel convolves (circularly) as the layer's transform does; its transform is the response."""
    layer = timm.create_model("hornet_test_gf").stages[2][0].gnconv.dwconv.double()
    torch.nn.init.normal_(layer.complex_weight)
    found = filter_kernels(layer, size)
    z = torch.randn(1, 30, *size, dtype=torch.float64)
    from horinsight.models.global_local_filter import resized_filter

    weight = torch.view_as_complex(resized_filter(layer.complex_weight, (size[0], size[1] // 2 + 1)).contiguous())
    expected = torch.fft.irfft2(torch.fft.rfft2(z, norm="ortho") * weight, s=size, norm="ortho")[0].detach().numpy()
    kernel = np.fft.ifftshift(found.kernel, axes=(1, 2))
    for c in (0, 17):
        out = sum(
            kernel[c, a, b] * np.roll(z[0, c].numpy(), (a, b), axis=(0, 1))
            for a in range(size[0])
            for b in range(size[1])
        )
        np.testing.assert_allclose(out, expected[c], rtol=1e-9, atol=1e-9)
        response = np.abs(np.fft.fftshift(np.fft.fft2(kernel[c])))
        np.testing.assert_allclose(found.magnitude[c], response, rtol=1e-9, atol=1e-12)


def pooled_windows(fine: int, coarse: int) -> list[list[int]] | None:
    """The fine cells of each coarse cell under a pooling whose stride is a power of two or leads from `fine` to
    `coarse`, with what is left over cut off or padded; None where there is none. Read off pooled one-hot vectors."""
    for stride in (1, 2, 4, 8, 16, 32, fine // coarse, -(-fine // coarse)):
        for ceil in (False, True):
            if stride <= fine or ceil:
                pool = torch.nn.AvgPool1d(stride, ceil_mode=ceil, count_include_pad=False)
                pooled = pool(torch.eye(fine)[:, None])[:, 0].T
                if len(pooled) == coarse:
                    return [row.nonzero().flatten().tolist() for row in pooled]
    return None


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 39))
def test_the_same_place_on_another_map(size, other, q):
    q %= size
    row, col = same_place((q, 0), (size, 1), (other, 1))
    assert col == 0
    windows = pooled_windows(max(size, other), min(size, other))
    if windows is None:  # the cell that holds the centre, exactly
        centre = Fraction(2 * q + 1, 2 * size)
        assert [o for o in range(other) if Fraction(o, other) <= centre < Fraction(o + 1, other)] == [row]
    elif size > other:
        holding = [o for o, window in enumerate(windows) if q in window]
        assert row == (holding[0] if holding else other - 1), "what a stride leaves over belongs to the last cell"
    else:
        assert abs(row - np.mean(windows[q])) <= 0.5, "the middle of its window"
    assert same_place((0, q), (1, size), (1, other)) == (0, row)


def test_figure_blocks_are_spread_evenly():
    sizes = {str(i): (9, 9) for i in range(9)} | {"last": (3, 3)}
    for count in range(2, 9):
        ideal = [1 + Fraction(8 * k, count - 1) for k in range(count)]
        found = figure_blocks(sizes, count=count)
        assert all(abs(block - wanted) <= Fraction(1, 2) for block, wanted in zip(found, ideal, strict=True))
    assert figure_blocks(sizes, count=20) == tuple(range(1, 10)), "as many as there are, none twice"


@pytest.mark.parametrize(("step", "channel"), [(None, None), (0, None), (1, 3)])
def test_steps_and_channels_are_those_that_were_asked_for(step, channel):
    model, images, result = example(blocks=[1, 2], step=step, channel=channel)
    weights = model_mixing_weights(model, images, blocks=[1, 2], step=step)
    name = "stages.1.0.gnconv"
    for entry, (image, (row, col)) in enumerate(zip([0, 0, 1], [(0, 0), (2, 3), (11, 5)], strict=True)):
        h = weights[name].at(row, col)[image]
        np.testing.assert_array_equal(result.maps[name][entry], h.mean(0) if channel is None else h[channel])
    assert result.convention == {
        "weights": "mixing weights h_ij, Eq. 3.8",
        "mean_over": "channels",
        "excluded": "output projection, layer scale",
        "step": "last" if step is None else str(step),
        "channel": "mean" if channel is None else str(channel),
        "value": "what the depthwise operator mixes",
        "held": "what multiplies it: gates, scale",
    }
    errors = [found.reconstruction_error for found in weights.values()]
    assert result.reconstruction_errors == pytest.approx(errors)
    later = maps_of_weights(
        weights,
        [[(0, 0), (5, 7)], [(23, 11)]],
        block_indices=[1, 2],
        pictures=result.pictures,
        image_names=result.image_names,
        channel=channel,
        convention=result.convention,
        provenance=result.provenance,
    )
    for field in dataclasses.fields(QueryMaps):
        np.testing.assert_equal(getattr(later, field.name), getattr(result, field.name))


def test_maps_of_attention_are_means_over_heads():
    model = timm.create_model("test_vit").eval()
    result = query_maps(model, torch.randn(2, 3, 160, 160), [[(1, 2)], []], seed=7)
    assert (result.convention["weights"], result.convention["mean_over"]) == ("attention, Eq. 3.7", "heads")
    assert result.image_names == ("image 1", "image 2")
    assert (result.provenance.seed, result.provenance.model) == (7, "test_vit")
    assert result.picture_of_entry.tolist() == [0]
    mixed = [MixingBlock(1, "a", kind, nn.Identity(), 1) for kind in ("gnconv", "attention")]
    assert map_convention(mixed)["mean_over"] == "channels", "where there are any"


def test_a_channel_that_is_not_there():
    model, images = create_model("hornet_test_iso"), torch.randn(1, 3, 96, 96)
    channels = model_mixing_weights(model, images)["blocks.0.gnconv"].num_channels
    for channel in (-1, channels):
        with pytest.raises(ValueError, match=f"from 0 to {channels - 1}, got {channel}"):
            query_maps(model, images, [[(0, 0)]], channel=channel)
    assert query_maps(model, images, [[(0, 0)]], channel=channels - 1).maps["blocks.0.gnconv"].shape == (1, 6, 6)


def test_rows_of_a_table_are_the_maps():
    _, _, result = example(blocks=[1, 4])
    rows = pd.DataFrame(map_rows(result))
    assert len(rows) == 3 * (24 * 24 + 3 * 3)
    for index, (block, maps) in zip((1, 4), result.maps.items(), strict=True):
        of_block = rows[rows.block == index]
        assert set(of_block.name) == {block}
        assert of_block.h.tolist() == maps.ravel().tolist()
        assert of_block.row.tolist() == [*np.repeat(range(maps.shape[1]), maps.shape[2])] * 3
        assert of_block.col.tolist() == [*range(maps.shape[2])] * 3 * maps.shape[1]
        of_entry = of_block.iloc[:: maps[0].size]
        assert of_entry[["query_row", "query_col"]].values.tolist() == result.queries[block].tolist()
    assert set(rows.image) == {"chelsea", "rocket"}
    assert all(type(row["h"]) is float for row in map_rows(result)), "as JSON writes it"
    first = rows.iloc[0]
    assert (first.model, first.trained, first.step, first.channel) == ("hornet_test", False, "last", "mean")
    bare = next(map_rows(dataclasses.replace(result, provenance=None)))
    assert (bare["model"], bare["trained"]) == (None, None)


def test_blocks_to_show_when_nobody_says():
    """Figure 4's where the network is as deep and of one map; else those of the most frequent map with a picture."""
    assert figure_blocks({str(i): (14, 14) for i in range(12)}) == (1, 3, 5, 7, 8, 12)
    assert figure_blocks({str(i): (14, 14) for i in range(12)}, count=2) == (1, 12)
    assert figure_blocks({str(i): (14, 14) for i in range(11)}) == (1, 3, 5, 7, 9, 11)
    deep = {str(i): (14, 14) for i in range(12)} | {"last": (7, 7)}
    assert figure_blocks(deep) == (1, 3, 5, 8, 10, 12), "one map is smaller: it is not Figure 4's network"
    assert figure_blocks({"a": None, "b": None, "c": None}, count=2) == (1, 2), "no map is known"
    assert figure_blocks({"a": (1, 1), "b": (1, 1), "c": (1, 2)}) == (3,), "one cell is no map"
    assert figure_blocks({"a": (2, 2), "b": (8, 8), "c": None}) == (2,), "the larger of two that are as frequent"
