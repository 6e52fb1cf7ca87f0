"""A network of timm's blocks from its JSON definition; needs only timm."""

import json
from functools import partial
from pathlib import Path
from typing import Any

from timm.layers import BatchNormAct2d, create_act_layer, get_act_layer
from timm.models import EfficientNet, MobileNetV3, load_checkpoint, register_model
from timm.models._efficientnet_blocks import SqueezeExcite
from timm.models._features import FeatureGetterNet

SE = {"gate_layer": "hard_sigmoid", "force_act_layer": "relu"}  # for definitions without these keys


def build(definition: dict[str, Any], **changed: Any) -> Any:
    """Builds the timm model, and sets properties that timm's constructors do not accept."""
    model = {"EfficientNet": EfficientNet, "MobileNetV3": MobileNetV3}[definition["class"]](
        **(json.loads(json.dumps(definition["args"])) | changed),  # a copy: timm removes keys
        act_layer=get_act_layer(definition["stem_act"]),
        norm_layer=partial(BatchNormAct2d, eps=definition["bn_eps"]),
        se_layer=partial(SqueezeExcite, **definition.get("se", SE)),
        round_chs_fn=int,
    )
    model.conv_stem.stride = (definition["stem_stride"],) * 2
    for level in model.feature_info:  # timm assumes that every stem halves the image
        level["reduction"] = level["reduction"] * definition["stem_stride"] // 2
    model.set_submodule(definition["act_at"], create_act_layer(definition["head_act"], True))
    return model


def register(path: Path) -> None:
    """Makes the network that `path` defines available to `timm.create_model`, by its name."""
    definition = json.loads(path.read_text())

    def entry(pretrained: bool = False, features_only: bool = False, **given: Any) -> Any:
        model = build(definition, **{k: v for k, v in given.items() if k in definition["args"]})
        if pretrained:
            load_checkpoint(model, path.with_name("weights.safetensors"))
        if features_only:
            return FeatureGetterNet(model, given.get("out_indices", len(model.feature_info)))
        return model

    entry.__name__ = definition["name"]
    register_model(entry)
