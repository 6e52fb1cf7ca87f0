"""Arch samplers: which archs a training step runs, one file each."""

from hwnas.core.registry import Registry

__all__ = ["REGISTRY"]

REGISTRY = Registry(kind="sampler", package="hwnas.training.samplers")
