"""timm's names of what torchvision builds alike: vision transformers. Its ResNets' are the same."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

_PARTS = (
    (re.compile(r"^cls_token$"), "class_token"),
    (re.compile(r"^pos_embed$"), "encoder.pos_embedding"),
    (re.compile(r"^patch_embed\.proj\."), "conv_proj."),
    (re.compile(r"^blocks\.(\d+)\.norm([12])\."), r"encoder.layers.encoder_layer_\1.ln_\2."),
    (re.compile(r"^blocks\.(\d+)\.attn\.qkv\."),
     r"encoder.layers.encoder_layer_\1.self_attention.in_proj_"),
    (re.compile(r"^blocks\.(\d+)\.attn\.proj\."),
     r"encoder.layers.encoder_layer_\1.self_attention.out_proj."),
    (re.compile(r"^blocks\.(\d+)\.mlp\.fc1\."), r"encoder.layers.encoder_layer_\1.mlp.0."),
    (re.compile(r"^blocks\.(\d+)\.mlp\.fc2\."), r"encoder.layers.encoder_layer_\1.mlp.3."),
    (re.compile(r"^norm\."), "encoder.ln."),
    (re.compile(r"^head\."), "heads.head."),
)  # fmt: skip
_SIZES = {768: "vit_b", 1024: "vit_l", 1280: "vit_h"}
"""torchvision's vision transformers by the width of their tokens, each with timm's heads."""


def vision_transformer_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """Return timm's vision transformer by torchvision's names; None: they are of another network.

    Both normalise first, with biases, epsilon 1e-6 and an exact GELU, and answer at the class
    token. What timm's has more, such as layer scales or registers, keeps its name and has no place.
    """
    if not {"cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight"} <= set(
        tensors
    ):
        return None
    named = {}
    for name, tensor in tensors.items():
        for pattern, new in _PARTS:
            name = pattern.sub(new, name)
        named[name] = tensor
    return named


def of_vision_transformer(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the torchvision name that a patch's size and a token's width leave."""
    patches = tensors.get("conv_proj.weight")
    if patches is None or patches.ndim != 4 or patches.shape[0] not in _SIZES:
        return []
    name = f"{_SIZES[patches.shape[0]]}_{patches.shape[2]}"
    return [name] if name in ("vit_b_16", "vit_b_32", "vit_l_16", "vit_l_32", "vit_h_14") else []
