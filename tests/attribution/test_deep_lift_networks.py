"""Foreign networks with all their parameters drawn: DeepLIFT is whole to 1e-10, and without our rules it is not."""

from collections.abc import Callable

import pytest
import timm
import torch
import torchvision
from captum.attr import DeepLift
from timm.models.convnext import ConvNeXtBlock
from timm.models.swin_transformer import SwinTransformer
from timm.models.swin_transformer_v2 import SwinTransformerV2
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from horinsight import create_model
from horinsight.attribution.deep_lift_rules import deep_lift_rules

pytestmark = [
    pytest.mark.filterwarnings("ignore:Setting forward, backward hooks"),
    pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients"),
]


def from_timm(name: str, **options: object) -> Callable[[], nn.Module]:
    return lambda: timm.create_model(name, num_classes=7, **options)


def unfused() -> nn.Module:
    model = timm.create_model("test_vit", num_classes=7, img_size=64)
    for part in model.modules():
        if hasattr(part, "fused_attn"):
            part.fused_attn = False
    return model


class Logits(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x).logits


def from_transformers(attention: str) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    config = transformers.ViTConfig(**sizes, image_size=32, patch_size=8, num_labels=5, attn_implementation=attention)
    return Logits(transformers.ViTForImageClassification(config))


class Squeezed(nn.Module):
    """ConvNeXt blocks with squeeze and excitation between them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 4, 4)
        self.blocks = nn.ModuleList(ConvNeXtBlock(16, ls_init_value=0.5) for _ in range(2))
        self.gates = nn.ModuleList(timm.layers.SEModule(16, rd_channels=4) for _ in range(2))
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block, gate in zip(self.blocks, self.gates, strict=True):
            x = gate(block(x))
        return self.head(x.mean((2, 3)))


SWIN = {"img_size": 32, "patch_size": 2, "embed_dim": 16, "depths": (2, 2), "num_heads": (2, 4), "num_classes": 5}
NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "hornet_test": (lambda: create_model("hornet_test"), 64),
    "hornet_test_gf": (lambda: create_model("hornet_test_gf"), 64),
    "vit": (from_timm("test_vit", img_size=64), 64),
    "vit, attention written out": (unfused, 64),
    "vit with a pooling query and registers": (from_timm("test_vit3", img_size=64), 64),
    "swin": (lambda: SwinTransformer(**SWIN, window_size=4), 32),
    "swin v2, cosine attention": (lambda: SwinTransformerV2(**SWIN, window_size=4), 32),
    "convnext": (from_timm("test_convnext"), 64),
    "convnext v2, response norms": (from_timm("test_convnext2"), 64),
    "convnext with squeeze and excitation": (Squeezed, 32),
    "efficientnet": (from_timm("test_efficientnet"), 64),
    "efficientnet with group norms": (from_timm("test_efficientnet_gn"), 64),
    "resnet": (from_timm("test_resnet"), 64),
    "nfnet, standardised weights": (from_timm("test_nfnet"), 64),
    "mambaout": (from_timm("test_mambaout"), 64),
    "xcit, normalised channels": (from_timm("xcit_nano_12_p16_224", depth=2, img_size=64), 64),
    "eva, rotary positions": (from_timm("eva02_tiny_patch14_224", depth=2, img_size=56), 56),
    "volo, outlook attention": (from_timm("volo_d1_224", img_size=64), 64),
    "skresnet": (from_timm("skresnet18"), 32),
    "lambda layers": (from_timm("lambda_resnet26t"), 64),
    "torchvision's vit": (lambda: torchvision.models.VisionTransformer(32, 8, 2, 4, 32, 64, num_classes=5), 32),
    "torchvision's swin": (
        lambda: torchvision.models.SwinTransformer([2, 2], 16, [2, 2], [2, 4], [4, 4], num_classes=5),
        32,
    ),
    "transformers' vit": (lambda: from_transformers("sdpa"), 32),
}


def prepared(build: Callable[[], nn.Module]) -> nn.Module:
    """In double precision, with what starts at 0 or as good as shut drawn."""
    torch.manual_seed(0)
    model = build().eval().double()
    for name, parameter in model.named_parameters():
        if not parameter.any() or "gamma" in name:
            nn.init.normal_(parameter, mean=0.0 if name.endswith("bias") else 0.3, std=0.2)
    return model


def pair(size: int) -> tuple[Tensor, Tensor]:
    x, x_0 = torch.randn(2, 2, 3, size, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return x, 0.3 * x_0


def explained(model: nn.Module, x: Tensor, x_0: Tensor) -> Tensor:
    return DeepLift(model).attribute(x, x_0, target=3).detach()


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_explained_whole_and_without_rules_it_is_not(name):
    build, size = NETWORKS[name]
    model = prepared(build)
    x, x_0 = pair(size)
    with torch.no_grad():
        whole = (model(x) - model(x_0))[:, 3]
    plain = explained(model, x, x_0).sum((1, 2, 3))
    assert ((plain - whole).abs() > 1e-3 * whole.abs()).any()
    with deep_lift_rules(model):
        found = explained(model, x, x_0).sum((1, 2, 3))
    assert ((found - whole).abs() <= 1e-10 * whole.abs()).all()


class InItsOwnPrecision(TorchFunctionMode):
    """Softmax in the precision of what enters it, also where a network asks for another one."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") == "softmax":
            kwargs = {**kwargs, "dtype": None}
        return func(*args, **kwargs)


class Unrounded(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        with InItsOwnPrecision():
            return self.model(x)


@pytest.mark.parametrize(("wrapper", "tolerance"), [(nn.Sequential, 1e-5), (Unrounded, 1e-10)])
def test_attention_that_rounds_to_single_precision_is_whole_up_to_that(wrapper, tolerance):
    """transformers' eager attention computes its softmax so, also in a model in double precision."""
    model = prepared(lambda: wrapper(from_transformers("eager")))
    x, x_0 = pair(32)
    with torch.no_grad():
        whole = (model(x) - model(x_0))[:, 3]
    with deep_lift_rules(model):
        found = explained(model, x, x_0).sum((1, 2, 3))
    assert ((found - whole).abs() <= tolerance * whole.abs()).all()


def test_the_same_network_is_explained_alike_however_its_attention_is_computed():
    fused, written = prepared(NETWORKS["vit"][0]), prepared(unfused)
    written.load_state_dict(fused.state_dict())
    x, x_0 = pair(64)
    with deep_lift_rules(fused), deep_lift_rules(written):
        torch.testing.assert_close(explained(fused, x, x_0), explained(written, x, x_0), rtol=1e-9, atol=1e-14)
