"""Converts pixels to network input: resizing and normalisation."""

from hwnas.nets.images import normalise, resize

__all__ = ["normalise", "resize"]
