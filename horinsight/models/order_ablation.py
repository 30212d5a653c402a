"""HorNets of the paper's ablation: other orders in Swin-T's layout (Table 6a), other f in HorNet-T (Table 6c).

Layout of Table 6a: HorNet's blocks, stem and downsampling with Swin-T's depths (2, 2, 6, 2) and width 96 (§3.2: "we
directly follow the number of blocks of Swin"; narrower and deeper comes only with HorNet-T). At 224, in MACs:

| model | parameters | MACs | printed |
|---|---|---|---|
| g1111 | 26.33 M | 4.07 G | 28 M, 4.3 G: not reproduced |
| g2222 | 27.52 M | 4.28 G | 28 M, 4.3 G |
| g3333 | 27.85 M | 4.34 G | 28 M, 4.3 G |
| g4444 | 27.95 M | 4.36 G | 28 M, 4.3 G: FLOPs not reproduced |
| g1234 | 27.86 M | 4.28 G | 28 M, 4.3 G |
| g2345 | 27.95 M | 4.34 G | 28 M, 4.3 G |

The paper prints the same two numbers for all six. Eq. 3.2-3.5 contradict that in any layout with these depths and this
width: from order 1 to order 4 a block gains (2/3)(1 - 4^-3) C² weights and 49 · 7/8 C of f, which is 1.6 M and 0.29 G
here, three times what rounding to 0.1 G hides. Tried: depths (2, 3, 6, 2), where orders 2 to 5 give 4.62 G and more;
(2, 2, 7, 2), where they give 29 M and more; Swin's patch merging and no layer scale, which leave MACs and digits as
they are. With the norms of Table 1's convention g3333 comes to 4.3501 G.
"""

from typing import Any

from timm.models import generate_default_cfgs, register_model

from horinsight.models.hornet import HorNet, built_hornet, classifier_cfg
from horinsight.models.separable_net import SWIN_T

default_cfgs = generate_default_cfgs(
    {
        "g1111": classifier_cfg(),
        "g2222": classifier_cfg(),
        "g3333": classifier_cfg(),
        "g4444": classifier_cfg(),
        "g1234": classifier_cfg(),
        "g2345": classifier_cfg(),
        "gnconv3x3_hornet_t": classifier_cfg(),
        "gnconv_pool_hornet_t": classifier_cfg(),
        "g1234_test": classifier_cfg(input_size=(3, 96, 96), pool_size=(3, 3)),
    }
)


@register_model
def g1111(pretrained: bool = False, **kwargs: Any) -> HorNet:
    """Swin-T with gⁿConvs of order 1 for its attention (Table 6a; this file's docstring: not reproduced)."""
    return built_hornet("g1111", pretrained, kwargs, orders=1, **SWIN_T)


@register_model
def g2222(pretrained: bool = False, **kwargs: Any) -> HorNet:
    """Swin-T with gⁿConvs of order 2 for its attention: 28 M parameters, 4.3 GMACs (Table 6a)."""
    return built_hornet("g2222", pretrained, kwargs, orders=2, **SWIN_T)


@register_model
def g3333(pretrained: bool = False, **kwargs: Any) -> HorNet:
    """Swin-T with gⁿConvs of order 3 for its attention: 28 M parameters, 4.3 GMACs (Table 6a)."""
    return built_hornet("g3333", pretrained, kwargs, orders=3, **SWIN_T)


@register_model
def g4444(pretrained: bool = False, **kwargs: Any) -> HorNet:
    """Swin-T with gⁿConvs of order 4 for its attention: 28 M parameters (Table 6a; its 4.3 G are 4.36 here)."""
    return built_hornet("g4444", pretrained, kwargs, orders=4, **SWIN_T)


@register_model
def g1234(pretrained: bool = False, **kwargs: Any) -> HorNet:
    """Swin-T with gⁿConvs of orders 1, 2, 3, 4 by stage: 28 M parameters, 4.3 GMACs (Table 6a)."""
    return built_hornet("g1234", pretrained, kwargs, orders=(1, 2, 3, 4), **SWIN_T)


@register_model
def g2345(pretrained: bool = False, **kwargs: Any) -> HorNet:
    """Swin-T with gⁿConvs of orders 2, 3, 4, 5 by stage: 28 M parameters, 4.3 GMACs (Table 6a)."""
    return built_hornet("g2345", pretrained, kwargs, orders=(2, 3, 4, 5), **SWIN_T)


@register_model
def gnconv3x3_hornet_t(pretrained: bool = False, **kwargs: Any) -> HorNet:
    """HorNet-T with 3x3 depthwise convolutions as f: 3.9 GMACs (Table 6c)."""
    return built_hornet("gnconv3x3_hornet_t", pretrained, kwargs, base_dim=64, kernel_size=3)


@register_model
def gnconv_pool_hornet_t(pretrained: bool = False, **kwargs: Any) -> HorNet:
    """HorNet-T with 3x3 mean pooling as f: 3.8 GMACs (Table 6c)."""
    return built_hornet("gnconv_pool_hornet_t", pretrained, kwargs, base_dim=64, depthwise="pool", kernel_size=3)


@register_model
def g1234_test(pretrained: bool = False, **kwargs: Any) -> HorNet:
    """A few thousand weights, for tests: one block a stage, orders 1, 2, 3, 4, f pooling."""
    layout: dict[str, Any] = {"base_dim": 8, "depths": (1, 1, 1, 1), "orders": (1, 2, 3, 4), "depthwise": "pool"}
    return built_hornet("g1234_test", pretrained, kwargs, **layout)
