"""Every search space that tests run over: registered, shipped as YAML, and a mixed one."""

from __future__ import annotations

from functools import cache

from hwnas.core.config import build_model
from hwnas.core.yaml_data import parse_yaml
from hwnas.spaces import REGISTRY, mobile
from hwnas.spaces.load import build_space, shipped_spaces
from hwnas.spaces.space import SearchSpace
from tests.mobile_spaces import NEEDS

__all__ = ["MOBILE_SPACES", "SPACES", "mobile_space", "space"]

MIXED = """
name: mobile
resolutions: [16, 24]
stem: {widths: [8, 12], stride: 1, act: relu}
stages:
  - {widths: [8, 16], depths: [1, 2], kernels: [3, 5], expands: [1, 3.5], stride: 2, act: relu6,
     out_act: swish}
  - {widths: [16, 24], depths: [1, 3], kernels: [3, 7], expands: [2, 4], per_stage: true, stride: 2,
     act: hard_swish, se_ratio: 0.25, project_shortcut: true}
  - widths: [24]
    depths: [2, 3]
    act: relu
    skip_act: relu
    stride: 2
    ops: [{name: skip, kind: skip}, {name: light, kind: dsconv, kernel: 5},
          {name: grouped, expand: 2, groups: 2}, {name: wide, kernel: 7, expand: 6}]
    first_ops: [{name: grouped, expand: 2, groups: 2}, {name: wide, kernel: 7, expand: 6}]
  - {widths: [16, 24], depths: [1, 2], kernels: [0, 2, 3], start_kernels: [0, 2, 5],
     first_kernels: [3], expands: [2, 3], act: relu}
  - widths: [24]
    act: relu6
    ops: [{name: plain, kind: conv, kernel: 1}, {name: even, kind: conv, kernel: 2},
          {name: fused, kind: fused, expand: 2, expand_groups: 2},
          {name: parted, kind: uib, kernel: 3, start_kernel: 2, expand: 3, expand_groups: 4}]
head: {expand: 3, act: swish, feature_widths: [32, 48], feature_bias: true}
"""
"""Every feature of the `mobile` space at once: 16-24 px."""

ALIAS = "nasbench201"  # the same space as nats_topology
SPACES = (
    *(name for name in REGISTRY.names if name not in ("mobile", ALIAS)),
    *shipped_spaces(),
    "mixed",
)


def mobile_space(yaml: str, *, num_classes: int = 10, in_channels: int = 3) -> SearchSpace:
    """The `mobile` space of a YAML text."""
    config = build_model(mobile.Config, parse_yaml(yaml, where="test"), where="test")
    return mobile.build(config, num_classes=num_classes, in_channels=in_channels)


@cache
def space(name: str, *, small: bool = False) -> SearchSpace:
    """A space of `SPACES` with 10 classes; `small`: at resolutions that run in milliseconds."""
    if name == "mixed":
        return mobile_space(MIXED)
    settings: dict[str, object] = dict(NEEDS.get(name, {}))
    if small and name in shipped_spaces():
        settings = {"resolutions": [32]}
    elif small:
        quick = getattr(REGISTRY.load(name), "QUICK", {})
        settings |= {k: list(v) if isinstance(v, tuple) else v for k, v in quick.items()}
    return build_space(name, settings, num_classes=10)


MOBILE_SPACES = tuple(name for name in SPACES if space(name).macro.is_chain)
"""Those whose networks are chains."""
