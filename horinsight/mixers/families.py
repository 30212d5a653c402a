"""The families that come with horinsight: importing this enters them. No module belongs to two of them."""

from horinsight.mixers import (  # noqa: F401
    attention_family,
    branch_attention_family,
    channel_attention_family,
    convolution_family,
    dynamic_convolution_family,
    focal_modulation_family,
    gated_convolution_family,
    global_context_family,
    gnconv_family,
    lambda_family,
    outlook_attention_family,
    pooling_family,
    recurrence_family,
    response_norm_family,
    spatial_gate_family,
    squeeze_excitation_family,
    window_attention_family,
)
