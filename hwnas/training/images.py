"""From pixels to network input: the one resize and the one normalisation."""

from hwnas.nets.images import normalise, resize

__all__ = ["normalise", "resize"]
