"""Arch samplers: select the archs of a training step, one file each."""

from hwnas.core.registry import Registry
from hwnas.interfaces import SamplerModule

__all__ = ["REGISTRY"]

REGISTRY = Registry[SamplerModule](
    kind="sampler", package="hwnas.training.samplers", contract=SamplerModule
)
