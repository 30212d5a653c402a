"""How far blocks reach: by brute force, from the mixer, the block and the image, in any network."""

from math import dist

import numpy as np
import oracles
import pytest
import timm
import torch
from timm.models.swin_transformer import SwinTransformer
from torch import nn

from horinsight import (
    GnConv,
    Reach,
    create_model,
    influence,
    influence_rollout,
    model_influence,
    named_blocks,
    reach_of,
)

EXACT = 1e-12


def agrees(found: np.ndarray, expected: np.ndarray, relative: float = EXACT) -> None:
    np.testing.assert_allclose(found, expected.reshape(found.shape), rtol=0, atol=relative * expected.max())


class Tiny(nn.Module):
    """A stem of stride 2, two gnConvs (called by keyword, the second block with another tensor), a dict of outputs."""

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.gnconv = nn.GroupNorm(1, 4), GnConv(4, 2, kernel_size=3)

        def forward(self, x, scale):
            return x + self.gnconv(x=self.norm(x)) * scale

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, 2, 1)
        self.first, self.second = self.Scaled(), self.Scaled()

    def forward(self, images):
        z = self.first(self.stem(images), 0.5)
        return {"features": self.second(scale=torch.tensor(2.0), x=z)}


@pytest.fixture(scope="module")
def tiny() -> Tiny:
    torch.manual_seed(1)
    return oracles.large_weights(Tiny().double())


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randn(2, 3, 10, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def test_from_the_image_to_a_block_is_the_whole_jacobian(tiny, images):
    cells = [(2, 3), (0, 0)]
    found = model_influence(tiny, images, scope="image", probes=None, queries=cells)
    assert list(found) == ["first.gnconv", "second.gnconv"]
    expected = {
        "first.gnconv": oracles.influence(lambda x: tiny.first(tiny.stem(x), 0.5), images),
        "second.gnconv": oracles.influence(lambda x: tiny(x)["features"], images),
    }
    for name, reach in found.items():
        rows, columns = zip(*cells, strict=True)
        agrees(reach.influence.maps, expected[name][:, rows, columns])
        assert reach.convention["scope"] == "image"


def test_a_mixer_that_no_block_holds_ends_where_it_ends(images):
    model = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), GnConv(4, 2, kernel_size=3), nn.Flatten(), nn.Linear(120, 2))
    oracles.large_weights(model.double())
    reach = model_influence(model, images, scope="image", queries=[(1, 5)], probes=None)["1"]
    agrees(reach.influence.maps, oracles.influence(model[:2], images)[:, 1:2, 5:])


@pytest.mark.parametrize("explicit", [False, True])
def test_mixers_and_blocks_are_differentiated_where_the_images_bring_them(tiny, images, explicit):
    z = tiny.first(tiny.stem(images), 0.5)
    cells = [(4, 5)]
    mixer = model_influence(tiny, images, blocks=[2], probes=None, queries=cells, explicit=explicit)
    agrees(mixer["second.gnconv"].influence.maps, oracles.influence(tiny.second.gnconv, tiny.second.norm(z))[:, 4:, 5:])
    block = model_influence(tiny, images, blocks=[2], probes=None, queries=cells, scope="block", explicit=explicit)
    expected = oracles.influence(lambda x: tiny.second(x, torch.tensor(2.0)), z)[:, 4:, 5:]
    agrees(block["second.gnconv"].influence.maps, expected)


def test_radii_and_totals_by_brute_force():
    squares = np.random.default_rng(0).exponential(size=(2, 3, 6, 4))
    found = influence(nn.Conv2d(1, 1, 2, stride=2), torch.zeros(2, 1, 6, 4), queries=[(0, 0), (2, 1), (1, 0)])
    object.__setattr__(found, "squares", squares)
    reach = reach_of(found, image_size=(48, 64))
    for image, place in np.ndindex(2, 3):
        row, col = found.queries[place]
        for unit, radii in (((3, 2), reach.radii), ((48, 64), reach.radii_pixels)):
            query = ((row + 0.5) * unit[0] / 3, (col + 0.5) * unit[1] / 2)
            away = {
                (r, c): dist(query, ((r + 0.5) * unit[0] / 6, (c + 0.5) * unit[1] / 4)) for r, c in np.ndindex(6, 4)
            }
            for share, radius in zip((0.5, 0.9, 0.99), radii[image, place], strict=True):
                held = {
                    far: sum(squares[image, place][cell] for cell in away if away[cell] <= far) for far in away.values()
                }
                least = min(far for far in held if held[far] >= share * squares[image, place].sum())
                assert radius == pytest.approx(least, rel=1e-12)
        assert reach.totals[image, place] == pytest.approx(squares[image, place].sum() ** 0.5)
    estimate = reach.estimates["radius_90"]
    assert estimate.value == pytest.approx(reach.radii[..., 1].mean())
    by_picture = reach.radii[..., 1].mean(1)
    assert estimate.standard_error == pytest.approx(by_picture.std(ddof=1) / 2**0.5)


def test_a_block_on_which_nothing_has_influence_has_no_radius():
    reach = reach_of(influence(lambda x: 0 * x.detach(), torch.zeros(1, 2, 3, 3), queries=[(1, 1)]), image_size=(3, 3))
    assert np.isnan(reach.radii).all()
    assert reach.totals.tolist() == [[0.0]]


def test_windows_end_where_they_end():
    model = SwinTransformer(32, 4, embed_dim=8, depths=(2,), num_heads=(2,), window_size=4, num_classes=0).double()
    oracles.large_weights(model.eval())
    x = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    plain, shifted = model_influence(model, x, queries=[(1, 2)], probes=None).values()
    window = np.zeros((8, 8), dtype=bool)
    window[:4, :4] = True
    assert ((plain.influence.squares[0, 0] > 0) == window).all()
    block = model.layers[0].blocks[0]
    expected = oracles.influence(block._attn, block.norm1(model.patch_embed(x)), channels=2)
    agrees(plain.influence.maps, expected[:, 1, 2])
    assert plain.influence.squares.shape == shifted.influence.squares.shape
    assert not ((shifted.influence.squares[0, 0] > 0) == window).all()


def test_tokens_of_a_transformer():
    model = create_model("test_vit").double()
    x = torch.randn(1, 3, 160, 160, dtype=torch.float64)
    mixer = model_influence(model, x, blocks=[2], queries=[(3, 8)], probes=None)["blocks.1.attn"].influence
    tokens = model.blocks[0](model.norm_pre(model._pos_embed(model.patch_embed(x))))
    expected = influence(model.blocks[1].attn, model.blocks[1].norm1(tokens), queries=[1 + 3 * 10 + 8])
    agrees(mixer.maps, expected.maps[..., 1:])
    field = model_influence(model, x, blocks=[1], queries=[(3, 8)], scope="image", probes=2)["blocks.0.attn"]
    assert field.influence.squares.shape == (1, 1, 160, 160)
    share = field.influence.squares[0, 0, 48:64, 128:144].sum() / field.influence.squares.sum()
    assert share > 0.9, "an untrained transformer sees its own patch above all"
    assert field.radii_pixels[0, 0, 0] < 8 * 2**0.5


def test_a_query_keeps_its_place_on_coarser_maps():
    model, images = create_model("hornet_test"), torch.randn(1, 3, 96, 96)
    found = model_influence(model, images, queries=[(23, 1)], probes=1)
    assert [reach.influence.queries.tolist() for reach in found.values()] == [
        [[23, 1]], [[11, 0]], [[5, 0]], [[2, 0]],
    ]  # fmt: skip
    drawn = model_influence(model, images, blocks=[1], queries=3, probes=1, seed=5)["stages.0.0.gnconv"]
    assert len({tuple(cell) for cell in drawn.influence.queries.tolist()}) == 3
    middle = model_influence(model, images, blocks=[1], probes=1)["stages.0.0.gnconv"]
    assert middle.influence.queries.tolist() == [[12, 12]]
    assert middle.provenance is not None
    assert middle.provenance.model == "hornet_test"


def test_blocks_that_thin_the_map_out():
    model = create_model("seresnet18").double()
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    index = next(block.index for block in named_blocks(model) if block.name == "layer2.0.se")
    reach = model_influence(model, x, blocks=[index], queries=[(3, 4)], scope="block", probes=4)["layer2.0.se"]
    assert reach.influence.squares.shape == (1, 1, 16, 16)
    assert reach.influence.output_shape == (8, 8)


@pytest.mark.parametrize("scope", ["mixer", "block", "image"])
def test_half_precision_is_analysed_in_float32(scope):
    model = create_model("hornet_test_iso")
    images = torch.randn(1, 3, 96, 96).bfloat16()
    narrow = model.bfloat16()
    found = model_influence(narrow, images, blocks=[2], scope=scope, probes=2)
    assert {weight.dtype for weight in narrow.parameters()} == {torch.bfloat16}
    if scope == "image":
        expected = model_influence(narrow.float(), images.float(), blocks=[2], scope=scope, probes=2)
        np.testing.assert_array_equal(
            found["blocks.1.gnconv"].influence.squares, expected["blocks.1.gnconv"].influence.squares
        )
    assert found["blocks.1.gnconv"].influence.convention["dtype"] == "float32"
    assert (found["blocks.1.gnconv"].totals > 0).all()


class Normalised(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model((x - 0.5) / 0.25)


@pytest.mark.parametrize("scope", ["mixer", "image"])
def test_wrappers(tiny, images, scope):
    options = {"scope": scope, "blocks": [2], "queries": [(2, 2)], "probes": None}
    plain = model_influence(tiny, images, **options)["second.gnconv"].influence.squares
    for wrapped, path in ((nn.DataParallel(tiny), "module"), (torch.compile(tiny), "_orig_mod")):
        found = model_influence(wrapped, images, **options)[f"{path}.second.gnconv"].influence.squares
        np.testing.assert_allclose(found, plain, rtol=1e-12)
    normalised = model_influence(Normalised(tiny), 0.25 * images + 0.5, **options)["model.second.gnconv"]
    times = 16 if scope == "image" else 1  # of the derivative by pictures that were not normalised, squared
    np.testing.assert_allclose(normalised.influence.squares, times * plain, rtol=1e-9)


def test_the_network_is_given_back_as_it_was(tiny, images):
    model = nn.Sequential(tiny, nn.Identity()).train()
    before = {name: dict(part._forward_hooks) for name, part in model.named_modules()}
    with pytest.raises(ValueError, match="blocks 1 to 2, got 3"):
        model_influence(model, images, blocks=[3], scope="image")
    with pytest.raises(ValueError, match=r"row and a column on this 5x6 map, got \(5, 0\)"):
        model_influence(model, images, queries=[(5, 0)], scope="image")
    seen = []
    model_influence(model, images, scope="image", probes=1, on_block=lambda block, reach: seen.append((block, reach)))
    assert [block.index for block, _ in seen] == [1, 2]
    assert all(isinstance(reach, Reach) for _, reach in seen)
    assert all(part.training for part in model.modules())
    assert {name: dict(part._forward_hooks) for name, part in model.named_modules()} == before


class Pair(nn.Module):
    """A residual block that puts out two things."""

    def __init__(self) -> None:
        super().__init__()
        self.gnconv = GnConv(3, 1, kernel_size=3)

    def forward(self, x):
        return x + self.gnconv(x), x


class Unpacked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pair = Pair()

    def forward(self, x):
        return self.pair(x)[0].mean((2, 3))


def test_what_has_no_map_is_one_line(images):
    images = images.float()
    for scope in ("mixer", "block", "image"):  # a tuple that comes out is read at its map
        assert model_influence(Unpacked(), images, probes=1, scope=scope)["pair.gnconv"].radii.shape == (2, 1, 3)
    with pytest.raises(ValueError, match="no block in which positions of an image are mixed"):
        model_influence(nn.Sequential(nn.Flatten(), nn.Linear(360, 4)), images)
    with pytest.raises(ValueError, match="scope expects one of mixer, block, image, got 'stage'"):
        model_influence(Unpacked(), images, scope="stage")
    with pytest.raises(ValueError, match="queries expects at least 1, got 0"):
        model_influence(Unpacked(), images, queries=0)
    vit = timm.create_model("test_vit", img_size=None, dynamic_img_size=True)
    with pytest.raises(TypeError, match="one tensor"):
        model_influence(vit, [images])


def shares_of(influences: np.ndarray) -> np.ndarray:
    """Rows divided by their sums, (B, N, M)."""
    B, H, W = influences.shape[:3]
    rows = influences.reshape(B, H * W, -1)
    return rows / rows.sum(-1, keepdims=True)


def test_rollout_is_the_product_of_the_blocks_jacobians(tiny, images):
    rollout = influence_rollout(tiny, images, probes=None)
    entry = tiny.stem(images)
    first = shares_of(oracles.influence(lambda z: tiny.first(z, 0.5), entry))
    second = shares_of(oracles.influence(lambda z: tiny.second(z, torch.tensor(2.0)), tiny.first(entry, 0.5)))
    agrees(rollout.weights, second @ first)
    assert rollout.out_size == rollout.in_size == (5, 6)
    assert rollout.branch_shares["second.gnconv"] == pytest.approx(
        1 - np.mean([np.diag(image) for image in second]), rel=1e-9
    )
    assert "influence" in rollout.convention["mixing"]
    one = influence_rollout(tiny, images, blocks=[2], probes=None)
    agrees(one.weights, second)


def test_rollout_goes_through_strides_inside_blocks_and_between_them():
    """Blocks of seresnet18 take strides themselves, hornet_test's stand between downsampling layers."""
    for name, size, blocks, sizes in (
        ("seresnet18", 64, [3, 4, 5], ((16, 16), (4, 4))),
        ("hornet_test", 64, [2, 3, 4], ((8, 8), (2, 2))),
    ):
        model = create_model(name)
        if name == "seresnet18":  # the gates of these blocks
            gates = [block.index for block in named_blocks(model) if block.mixer == "squeeze_excitation"]
            blocks = [gates[index - 1] for index in blocks]
        rollout = influence_rollout(model, torch.randn(2, 3, size, size), blocks=blocks, probes=1)
        assert (rollout.in_size, rollout.out_size) == sizes
        np.testing.assert_allclose(rollout.weights.sum(-1), 1, rtol=1e-9)


class Twice(nn.Module):
    """A residual block with two mixers."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = GnConv(3, 1, kernel_size=3), GnConv(3, 1, kernel_size=3)

    def forward(self, x):
        return x + self.two(self.one(x))


def test_a_block_with_two_mixers_counts_once():
    model = nn.Sequential(oracles.large_weights(Twice().double()), nn.Identity())
    x = torch.randn(1, 3, 5, 5, dtype=torch.float64)
    assert [block.name for block in named_blocks(model)] == ["0.one", "0.two"]
    agrees(influence_rollout(model, x, probes=None).weights, shares_of(oracles.influence(model[0], x)))
