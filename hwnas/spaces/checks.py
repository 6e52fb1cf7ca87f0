"""Validation of archs and codes in a search space."""

from __future__ import annotations

from collections.abc import Mapping
from types import NoneType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hwnas.core.errors import UserError
from hwnas.core.rng import rng
from hwnas.spaces.arch import Arch

if TYPE_CHECKING:
    from hwnas.spaces.space import SearchSpace

MAX_ENDS = 100_000
"""Maximum number of classes or image channels. A classifier of this many classes has half a
gigabyte of weights.
"""
MAX_SAMPLED = 10_000_000
"""Maximum number of archs that one call samples."""

__all__ = [
    "check_ends",
    "check_member",
    "check_restriction",
    "checked_codes",
    "checked_count",
    "one_generator",
]


def check_restriction(values: Any, *, where: str) -> None:
    """Checks that a restriction maps names of choices to lists of values."""
    is_mapping = isinstance(values, Mapping)
    if not is_mapping or not all(isinstance(v, (list, tuple)) for v in values.values()):
        raise UserError(
            "cannot read the restriction",
            expected='lists of values by choice, such as {"resolution": [24, 28]}',
            found=repr(values)[:80],
            where=where,
        )


def check_ends(in_channels: Any, num_classes: Any, *, where: str) -> None:
    """Checks that the numbers of channels and classes are integers in [1, `MAX_ENDS`]."""
    for name, n in (("in_channels", in_channels), ("num_classes", num_classes)):
        if not isinstance(n, int) or isinstance(n, bool) or not 1 <= n <= MAX_ENDS:
            expected = f"an integer from 1 to {MAX_ENDS:,}"
            raise UserError(f"invalid {name}", expected=expected, found=repr(n), where=where)


def check_member(space: SearchSpace, arch: Arch) -> None:
    """Checks that the arch belongs to the space, and that its inactive codes are 0."""
    if arch.space != space.id:
        raise UserError(
            "an arch belongs to another space",
            expected=f"an arch of {space.id}",
            found=f"an arch of {arch.space}",
        )
    if len(arch.codes) != len(space.choices):
        raise UserError(
            "an arch has the wrong number of codes",
            expected=f"{len(space.choices)} codes",
            found=f"{len(arch.codes)} codes",
            where=space.id,
        )
    active = space.active(np.asarray(arch.codes, dtype=np.int64)[None])[0]
    for code, choice, allowed, is_active in zip(
        arch.codes, space.choices, space.allowed, active, strict=True
    ):
        if code not in (allowed if is_active else (0,)):
            raise UserError(
                f"arch has an invalid code for {choice.name}",
                expected=f"one of {allowed}" if is_active else "0 (the choice is inactive)",
                found=code,
                where=space.id,
            )
    if space.macro.has_duplicates and space.arch(arch.codes).codes != arch.codes:
        raise UserError(
            "the codes are not the canonical codes of their arch",
            expected=",".join(map(str, space.arch(arch.codes).codes)),
            found=",".join(map(str, arch.codes)),
            where=space.id,
            fix="make archs with SearchSpace.arch(codes)",
        )


def checked_codes(space: SearchSpace, given: Any) -> NDArray[np.int16]:
    """Converts an array or nested lists to codes [n, d], if the space allows every row."""
    try:
        rows = np.asarray(given)
    except ValueError:  # rows of different lengths
        rows = np.asarray(None)
    if rows.ndim != 2 or rows.shape[1] != len(space.choices) or rows.dtype.kind not in "iu":
        raise UserError(
            "not codes of archs",
            expected=f"integers [n, {len(space.choices)}], or a list of Arch",
            found=f"{rows.dtype} {list(rows.shape)}" if rows.ndim else repr(given)[:80],
            where=space.id,
        )
    codes = rows.astype(np.int16)
    is_valid = (codes == rows).all(axis=1) & space.validate(space.normalise(codes))
    if not is_valid.all():
        raise UserError(
            "archs use codes that the space does not allow",
            expected="codes that SearchSpace.validate accepts, in every row",
            found=f"other codes in {(~is_valid).sum()} of {len(rows)} rows, first in row"
            f" {is_valid.argmin()}",
            where=space.id,
        )
    return codes


def one_generator(seed: int | None, generator: Any) -> np.random.Generator:
    """Returns the generator, or one made from the seed; exactly one of them must be given."""
    if not isinstance(generator, (np.random.Generator, NoneType)):
        raise UserError(
            "rng must be a numpy Generator",
            expected="numpy.random.default_rng(0)",
            found=repr(generator),
        )
    if generator is None and seed is not None:
        return rng(seed, "cli/sample")  # old name of the stream
    if generator is None or seed is not None:
        raise UserError(
            "sample() needs one of `seed` and `rng`",
            expected="sample(n, seed=0) or sample(n, rng=generator)",
            found="neither" if generator is None else "both",
        )
    found: np.random.Generator = generator
    return found


def checked_count(n: Any) -> int:
    """Number of requested archs: an integer in [0, `MAX_SAMPLED`]."""
    if not isinstance(n, (int, np.integer)) or not 0 <= n <= MAX_SAMPLED:
        expected = f"an integer from 0 to {MAX_SAMPLED:,}"
        raise UserError("not a valid number of archs", expected=expected, found=repr(n))
    return int(n)
