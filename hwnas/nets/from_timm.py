"""Reads timm networks block by block as data for the space `timm`."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import numpy as np
import timm
import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import SelectAdaptivePool2d
from timm.models import EfficientNet, MobileNetV3
from timm.models._efficientnet_blocks import (
    ConvBnAct,
)
from torch import nn

from hwnas.core.errors import UserError, did_you_mean
from hwnas.core.records import dump, load, sparse
from hwnas.nets.timm_blocks import BlockReader, refusal
from hwnas.spaces.published import Conv, Feature, PublishedNetwork, Weights, check_shape

__all__ = ["published_of", "require_timm_name", "timm_network", "to_yaml"]

LIST_MODELS = 'python -c "import timm; print(timm.list_models())"'


def published_of(model: nn.Module) -> PublishedNetwork:
    """A timm model (`EfficientNet` or `MobileNetV3`) as data.

    Raises:
        UserError: the space `timm` does not support a block of the model; names the block.
    """
    if not isinstance(model, (EfficientNet, MobileNetV3)):
        kind = type(model).__name__
        raise refusal("the network", f"a {kind}, not an EfficientNet or MobileNetV3 of timm")
    network = _Reader(model).read()
    check_shape(network)
    data = dump(network, versioned=False)
    return load(PublishedNetwork, data, where=f"timm's {network.name}", versioned=False)


def require_timm_name(name: str) -> None:
    """Refuses a name that is neither a timm model nor weights of one (`name.tag`).

    Raises:
        UserError: timm has no such model; suggests similar names.
    """
    known = [*timm.list_models(), *timm.list_pretrained()]  # the latter with tags of weights
    if name not in known:
        raise UserError(
            f"timm {timm.__version__} has no model {name!r}",
            expected="a name from timm.list_models() or timm.list_pretrained()",
            fix=did_you_mean(name, known, otherwise=f"`{LIST_MODELS}` lists the names"),
        )


def timm_network(name: str, *, seed: int = 0, **settings: Any) -> nn.Module:
    """timm's model with this name, or `name.tag`, with random weights; downloads nothing.

    settings: further arguments of `timm.create_model`, such as `num_classes`.

    Raises:
        UserError: timm has no such model; suggests similar names.
    """
    require_timm_name(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        found: nn.Module = timm.create_model(name, **settings)
    return found


def to_yaml(network: PublishedNetwork) -> str:
    """The YAML file of a network: one line per block, without default values."""
    data = sparse(network)
    lines = [f"name: {network.name}"]
    for key in ("weights", "bn_eps", "padding", "se_act", "se_gate", "stem"):
        if key in data:
            lines.append(f"{key}: {_flow(data[key])}")
    lines.append("stages:")
    for blocks in data["stages"]:
        lines += [f"{'- ' if b == 0 else '  '}- {_flow(block)}" for b, block in enumerate(blocks)]
    lines += [f"{key}: {_flow(data[key])}" for key in ("head", "feature") if key in data]
    assert {*data} <= {"name", "stages", *(field.name for field in fields(PublishedNetwork))}
    return "\n".join(lines) + "\n"


def _flow(value: Any) -> str:
    """One line of YAML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if isinstance(value, float):
        return np.format_float_positional(value, trim="0")  # YAML reads 1e-05 as text
    if isinstance(value, str) and value.replace("_", "").isalnum():
        return value
    return json.dumps(value)


class _Reader(BlockReader):
    """Reads the modules of one model."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def read(self) -> PublishedNetwork:
        model = self.model
        pool, classifier = model.global_pool, model.classifier
        if not isinstance(pool, SelectAdaptivePool2d) or pool.pool_type not in ("avg", "fast"):
            raise refusal("global_pool", str(pool))
        if not isinstance(classifier, nn.Linear) or classifier.bias is None:
            raise refusal("classifier", str(classifier))
        stem = self.conv("conv_stem", model.conv_stem, model.bn1)
        rows = [list(stage) for stage in model.blocks]
        head = self.head(rows)
        stages = tuple(
            tuple(self.block(f"blocks.{s}.{b}", block) for b, block in enumerate(row))
            for s, row in enumerate(rows)
        )
        feature = self.feature() if isinstance(model, MobileNetV3) else None
        if len(self.eps) > 1:
            raise refusal("BN", f"different values of eps: {sorted(self.eps)}")
        if len(self.strided) > 1:
            raise refusal("padding", "symmetric in some layers, as in TensorFlow in others")
        shape: dict[str, Any] = {"bn_eps": self.eps.pop()}
        if True in self.strided:
            shape["padding"] = "tf_same"
        if self.se:
            acts, gates = {act for act, _, _ in self.se}, {gate for _, gate, _ in self.se}
            is_blocks = all(act == of_block for act, _, of_block in self.se)
            if len(gates) > 1 or (len(acts) > 1 and not is_blocks):
                what = "(activation, gate, activation of the block)"
                raise refusal("SE", f"different {what}: {sorted(self.se)}")
            shape["se_act"] = acts.pop() if len(acts) == 1 else "block"
            shape["se_gate"] = gates.pop()
        config = getattr(model, "pretrained_cfg", None) or {}
        name = str(config.get("architecture") or type(model).__name__)
        parts = dict(stem=stem, stages=stages, head=head, feature=feature, **shape)
        return PublishedNetwork(name=name, weights=_weights(config), **parts)

    def head(self, rows: list[list[Any]]) -> Conv | None:
        """The 1x1 convolution before the pooling; in a MobileNetV3 it is the last stage."""
        model = self.model
        if isinstance(model, EfficientNet):
            if isinstance(model.conv_head, nn.Identity):
                return None
            return self.conv("conv_head", model.conv_head, model.bn2)
        if not rows or len(rows[-1]) != 1 or not isinstance(rows[-1][0], ConvBnAct):
            return None
        block = rows.pop()[0]
        where = f"blocks.{len(rows)}.0"
        self.plain(where, block)
        found = self.conv(f"{where}.conv", block.conv, block.bn1)
        if block.has_skip or (found.kernel, found.stride) != (1, 1):
            raise refusal(where, f"a head of kernel {found.kernel}, stride {found.stride}")
        return found

    def feature(self) -> Feature:
        model = self.model
        conv = model.conv_head
        if type(conv) is not nn.Conv2d or conv.kernel_size != (1, 1) or conv.groups != 1:
            raise refusal("conv_head", str(conv))
        if not isinstance(model.norm_head, nn.Identity):
            found = self.conv("conv_head", conv, model.norm_head)
            if not isinstance(model.act2, nn.Identity):
                raise refusal("act2", "a second activation after the BN of conv_head")
            return Feature(out=found.out, act=found.act, bias=False, bn=True)
        act = self.act("act2", model.act2)
        return Feature(out=conv.out_channels, act=act, bias=conv.bias is not None)  # type: ignore[arg-type]


def _weights(config: Any) -> Weights:
    source = config.get("hf_hub_id")
    return Weights(
        px=config.get("input_size", (3, 224, 224))[-1],
        mean=tuple(config.get("mean", IMAGENET_DEFAULT_MEAN)),
        std=tuple(config.get("std", IMAGENET_DEFAULT_STD)),
        crop=config.get("crop_pct", 0.875),
        interpolation=config.get("interpolation", "bicubic"),
        licence=config.get("license") or "",
        home=f"https://huggingface.co/{source}" if source else config.get("url") or "",
    )
