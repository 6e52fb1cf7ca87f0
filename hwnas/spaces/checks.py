"""What a search space refuses of archs and codes; the methods that call this say when."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hwnas.core.errors import UserError
from hwnas.core.rng import rng
from hwnas.spaces.arch import Arch

if TYPE_CHECKING:
    from hwnas.spaces.space import SearchSpace

__all__ = ["check_member", "checked_codes", "one_generator"]


def check_member(space: SearchSpace, arch: Arch) -> None:
    """The arch is of this space, its codes are allowed, and 0 where they are inactive."""
    if arch.space != space.id:
        raise UserError("arch of another space", expected=space.id, found=arch.space)
    if len(arch.codes) != len(space.choices):
        raise UserError(
            "arch has the wrong number of codes",
            expected=len(space.choices),
            found=len(arch.codes),
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


def checked_codes(space: SearchSpace, rows: NDArray[Any]) -> NDArray[np.int16]:
    """Integers [n, d] as codes, if the space allows every row."""
    if rows.ndim != 2 or rows.shape[1] != len(space.choices) or rows.dtype.kind not in "iu":
        raise UserError(
            "not codes of archs",
            expected=f"integers [n, {len(space.choices)}], or a list of Arch",
            found=f"{rows.dtype} {list(rows.shape)}",
            where=space.id,
        )
    codes = rows.astype(np.int16)
    is_valid = (codes == rows).all(axis=1) & space.validate(space.normalise(codes))
    if not is_valid.all():
        raise UserError(
            "archs that the space does not allow",
            expected="rows for which SearchSpace.validate is true",
            found=f"{(~is_valid).sum()} of {len(rows)}, the first at row {is_valid.argmin()}",
            where=space.id,
        )
    return codes


def one_generator(seed: int | None, generator: np.random.Generator | None) -> np.random.Generator:
    """The generator, or that of the seed; exactly one of them is given."""
    if generator is None and seed is not None:
        return rng(seed, "cli/sample")  # named when only the command line had seeds
    if generator is None or seed is not None:
        raise UserError(
            "random archs come from a seed or from a generator",
            expected="sample(n, seed=0) or sample(n, rng=generator)",
            found="neither" if generator is None else "both",
        )
    return generator
