"""Checks that images are normalised, and maps padded, as the starting weights expect."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from hwnas.core.errors import UserError
from hwnas.nets.pretrained_list import NETWORKS
from hwnas.pipeline.artifacts import data_of_weights
from hwnas.pipeline.data_checks import known_data
from hwnas.pipeline.project import Project
from hwnas.spaces import timm
from hwnas.spaces.padding import PadMode
from hwnas.spaces.published import published_network
from hwnas.spaces.within import Within
from hwnas.training.photo_config import NORMALISATIONS, MeanStd, fixed_normalisation

__all__ = ["require_vocabulary", "warn_of_normalisation", "warn_of_padding"]

log = logging.getLogger(__name__)

TOLERANCE = 0.05
"""Two normalisations count as equal if mean and std differ by at most this share of the std.

Two random sets of training images of one data set differ by less.
"""


def require_vocabulary(project: Project) -> None:
    """Refuses starting weights of a language model with another vocabulary.

    Every word has a vector of its own, so weights for other words, or in another order, are noise.

    Raises:
        UserError: names the first word that differs.
    """
    given = project.outside.start
    if not isinstance(given, Path) or not project.space.macro.reads_tokens:
        return
    known = data_of_weights(given)
    if known is None:
        return
    then, now = known.class_names, project.source.info.class_names
    if then == now:
        return
    pairs = enumerate(zip(then, now, strict=False))
    first = next((i for i, (one, two) in pairs if one != two), min(len(then), len(now)))
    raise UserError(
        "the starting weights belong to another vocabulary",
        expected=f"the {len(now):,} words of this run: word {first} is {(*now, '')[first]!r}",
        found=f"{len(then):,} words: word {first} is {(*then, '')[first]!r}",
        where="supernet.init",
        fix="train on the same text with the same data.min_count, or without supernet.init",
    )


def warn_of_normalisation(project: Project) -> None:
    """Logs a warning if the starting weights were trained on images with another normalisation.

    There is no warning if one of the two is unknown: weights of unknown source, missing images.
    """
    if project.config.supernet.init is None:
        return
    expected = _of_weights(project)
    used = _of_data(project)
    if expected is None or used is None or _are_close(expected, used):
        return
    names = [name for name, fixed in NORMALISATIONS.items() if _are_close(fixed, expected)]
    can_set = hasattr(project.config.data, "normalise")
    log.warning(
        "supernet.init: the weights were trained on images normalised with %s; the images of this"
        " run are normalised with %s, which lowers the accuracy, especially with little training%s",
        _words(expected),
        _words(used),
        f". Set data.normalise: {names[0]}" if names and can_set else "",
    )


def warn_of_padding(project: Project) -> None:
    """Logs a warning if the starting weights were trained with another padding than the space has.

    Measured with `shipped` on 850 photos of tiny_imagenet50 at 128 px, after training only the
    classifier: 53.8 % with the padding of the weights, 41.7 % with symmetric padding.
    """
    if project.config.supernet.init is None:
        return
    macro, expected = project.space.macro, _padding_of_weights(project)
    if isinstance(macro, Within) and expected not in (None, macro.network.padding):
        log.warning(
            "supernet.init: the weights were trained with the padding %s; the space pads %s, which"
            " lowers the accuracy, especially with little training. Set space.pad_mode: %s",
            expected,
            macro.network.padding,
            expected,
        )


def _padding_of_weights(project: Project) -> PadMode | None:
    """The padding of the network that the starting weights belong to; None if it is unknown.

    It is known for 8-bit networks, and for weights `timm:NAME` of the networks that `hwnas space
    models` lists.
    """
    from hwnas.nets.folded import published_of_folded
    from hwnas.nets.hub import PREFIX
    from hwnas.nets.pretrained_source import source_of

    given = project.outside.start
    assert given is not None
    source = source_of(given)
    if source.folded is not None:
        return published_of_folded(source.folded).padding
    if source.origin is not None and str(given).startswith(PREFIX):
        with suppress(UserError):
            return published_network(source.origin.network.partition(".")[0]).padding
    return None


def _of_weights(project: Project) -> MeanStd | None:
    """Mean and std of the images on which the starting weights were trained.

    They come from the weights, or else from the definition of the network of the space.
    """
    from hwnas.nets.pretrained_layout import has_published_names
    from hwnas.nets.pretrained_source import source_of

    given = project.outside.start
    if given is None:
        return None
    if isinstance(given, Path) and (info := data_of_weights(given)) is not None:
        return info.mean, info.std
    source = source_of(given)
    if source.folded is not None:
        return source.folded.mean, source.folded.std
    if source.origin is not None and source.origin.mean:
        return source.origin.mean, source.origin.std
    known = [network.name for network in NETWORKS]
    if has_published_names(source.tensors) or (source.origin and source.origin.network in known):
        return NORMALISATIONS["imagenet"]
    if isinstance(project.config.space, timm.Config):
        trained = timm.network_of(project.config.space).weights
        return trained.mean, trained.std
    return None


def _of_data(project: Project) -> MeanStd | None:
    """Mean and std of the images of the run; those of training images require loading them."""
    if (fixed := fixed_normalisation(project.config.data)) is not None:
        return fixed
    if known_data(project).awaited:
        return None
    info = project.source.info
    return info.mean, info.std


def _are_close(one: MeanStd, other: MeanStd) -> bool:
    """Whether normalised pixels differ by less than `TOLERANCE` in every channel."""
    (means, stds), (other_means, other_stds) = one, other
    return len(means) == len(other_means) and all(
        abs(mean - other_mean) <= TOLERANCE * std and abs(std - other_std) <= TOLERANCE * std
        for mean, std, other_mean, other_std in zip(means, stds, other_means, other_stds)
    )


def _words(values: MeanStd) -> str:
    def listed(numbers: Sequence[float]) -> str:
        return ", ".join(f"{number:.3g}" for number in numbers)

    return f"mean [{listed(values[0])}] and std [{listed(values[1])}]"
