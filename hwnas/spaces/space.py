"""A search space: its choices as data, and vectorised operators on arrays of codes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwnas.core.errors import UserError
from hwnas.core.records import sparse
from hwnas.core.store import content_hash
from hwnas.spaces import checks
from hwnas.spaces.arch import Arch
from hwnas.spaces.choice import Choice, Codes, Value, check_allowed, check_choices, count_archs
from hwnas.spaces.cost import AnalyticMetric, Precision, cost
from hwnas.spaces.drawing import draw_space, summary
from hwnas.spaces.skeleton import Skeleton

__all__ = ["Codes", "SearchSpace"]


@dataclass(frozen=True)
class SearchSpace:
    """A skeleton with its choices, and the allowed codes. Random methods take a generator.

    An `Arch` belongs to the spaces with its `id`; `fingerprint` also depends on `allowed`.

    allowed: the allowed codes of each choice in ascending order; `()` allows all codes.

    Raises:
        UserError: the choices contradict each other or the skeleton, or `allowed` does not fit
            them; names the choice.
    """

    name: str
    macro: Skeleton
    allowed: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        where = f"space {self.name}"
        checks.check_ends(self.macro.in_channels, self.macro.num_classes, where=where)
        check_choices(self.choices, self.macro.resolutions, where=where)
        if self.allowed:
            check_allowed(self.choices, self.allowed, where=where)
        else:
            everything = tuple(tuple(range(len(choice.values))) for choice in self.choices)
            object.__setattr__(self, "allowed", everything)

    # --- identity -----------------------------------------------------------------------------

    @cached_property
    def choices(self) -> tuple[Choice, ...]:
        """The decisions, one per column of codes."""
        return self.macro.choices()

    @cached_property
    def id(self) -> str:
        """Name and hash of the skeleton, e.g. `mobilenet_tiny-1f2e3d4c`."""
        return f"{self.name}-{content_hash(sparse(self.macro), digits=8)}"

    @cached_property
    def fingerprint(self) -> str:
        """Hash of skeleton and allowed codes."""
        return content_hash([sparse(self.macro), [list(codes) for codes in self.allowed]])

    # --- single archs -------------------------------------------------------------------------

    def arch(self, codes: Any) -> Arch:
        """The canonical `Arch` of one row of codes (inactive choices are set to 0)."""
        try:
            row = self.normalise(np.asarray(codes, dtype=np.int16)[None])[0]
        except OverflowError as error:
            raise UserError("not codes of an arch", found=str(error), where=self.id) from error
        return Arch(self.id, tuple(int(code) for code in row))

    def check(self, arch: Arch) -> Arch:
        """Returns `arch` if it is a canonical member of this space.

        Raises:
            UserError: the arch belongs to another space, or a code is out of range, disallowed, or
                nonzero although its choice is inactive; names the choice.
        """
        checks.check_member(self, arch)
        return arch

    def largest(self) -> Arch:
        """The arch with the largest allowed value of every choice."""
        return self.arch([codes[-1] for codes in self.allowed])

    def smallest(self) -> Arch:
        """The arch with the smallest allowed value of every choice."""
        return self.arch([codes[0] for codes in self.allowed])

    def view(self, arch: Arch) -> dict[str, Value]:
        """Active choices by name with their values, e.g. `{"stage0.depth": 2, ...}`."""
        active = self.active(np.asarray(arch.codes)[None])[0]
        return {
            choice.name: choice.values[code]
            for choice, code, is_active in zip(self.choices, arch.codes, active, strict=True)
            if is_active
        }

    # --- arrays of codes ----------------------------------------------------------------------

    def codes(self, archs: list[Arch]) -> Codes:
        """Codes int16 [n, d] of a list of archs of this space."""
        return np.asarray([arch.codes for arch in archs], dtype=np.int16).reshape(
            -1, len(self.choices)
        )

    def as_codes(self, archs: NDArray[Any] | Sequence[Arch]) -> Codes:
        """Canonical codes int16 [n, d] of archs, or of rows of codes, which it checks.

        Raises:
            UserError: an item is not an arch of the space.
        """
        if isinstance(archs, (list, tuple)) and all(isinstance(arch, Arch) for arch in archs):
            return self.codes([self.check(arch) for arch in archs])
        return self.normalise(checks.checked_codes(self, archs))

    def keys(self, codes: Codes) -> list[bytes]:
        """One hashable value per row; two are equal exactly if their rows are equal."""
        rows = np.ascontiguousarray(codes, dtype=np.int16)
        found: list[bytes] = rows.view(f"V{2 * len(self.choices)}").ravel().tolist()
        return found

    def active(self, codes: NDArray[Any]) -> NDArray[np.bool_]:
        """Which choices of each row are active: bool [n, d]."""
        result = np.ones(codes.shape, dtype=bool)
        for parent, activates, columns in self._conditions:
            in_parent = np.take(activates, codes[:, parent], mode="clip") & result[:, parent]
            result[:, columns] = in_parent[:, None]
        return result

    @cached_property
    def _conditions(self) -> list[tuple[int, NDArray[np.bool_], slice]]:
        """Conditions of choices: parent, its activating codes, and the columns with this condition.

        Columns that every code of a root activates are left out, because they are always active.
        """
        found: list[tuple[int, NDArray[np.bool_], slice]] = []
        for column, choice in enumerate(self.choices):
            if choice.parent is None:
                continue
            activates = np.zeros(len(self.choices[choice.parent].values), dtype=bool)
            activates[list(choice.parent_codes)] = True
            if activates.all() and self.choices[choice.parent].parent is None:
                continue
            begin = column
            if found:
                parent, codes, columns = found[-1]
                is_alike = parent == choice.parent and np.array_equal(codes, activates)
                if is_alike and columns.stop == column:
                    begin = found.pop()[2].start
            found.append((choice.parent, activates, slice(begin, column + 1)))
        return found

    def normalise(self, codes: Codes) -> Codes:
        """A copy in which inactive codes are 0, and equal archs have equal codes."""
        active = np.where(self.active(codes), codes, np.int16(0)).astype(np.int16, copy=False)
        return self.macro.canonical(active) if self.macro.has_duplicates else active

    def validate(self, codes: Codes) -> NDArray[np.bool_]:
        """Which rows are canonical and use only allowed codes: bool [n]."""
        active = self.active(codes)
        valid = np.ones(len(codes), dtype=bool)
        for column, allowed in enumerate(self.allowed):
            chosen = codes[:, column]
            valid &= np.where(active[:, column], np.isin(chosen, allowed), chosen == 0)
        if self.macro.has_duplicates:
            valid[valid] = (self.macro.canonical(codes[valid]) == codes[valid]).all(axis=1)
        return valid

    def sample(
        self, n: int, *, seed: int | None = None, rng: np.random.Generator | None = None
    ) -> Codes:
        """n archs [n, d]; every choice is uniform and independent, as in OFA (1908.09791).

        Raises:
            UserError: both or none of `seed` and a generator are given, or n is negative.
        """
        stream, count = checks.one_generator(seed, rng), checks.checked_count(n)
        return self._members(self._draw(stream, count), stream)

    def mutate(self, codes: Codes, rng: np.random.Generator, probability: float = 0.1) -> Codes:
        """Redraws every choice with `probability`, and at least one choice per row."""
        redraw = rng.random(codes.shape) < probability
        redraw[np.arange(len(codes)), rng.integers(codes.shape[1], size=len(codes))] = True
        fresh = self._draw(rng, len(codes))
        return self._members(np.where(redraw | ~self.active(codes), fresh, codes), rng)

    def crossover(self, first: Codes, second: Codes, rng: np.random.Generator) -> Codes:
        """Uniform crossover of paired rows.

        A choice that is inactive in one parent comes from the other.
        """
        child = np.where(rng.random(first.shape) < 0.5, second, first)
        active_first, active_second = self.active(first), self.active(second)
        child = np.where(active_first & ~active_second, first, child)
        child = np.where(active_second & ~active_first, second, child)
        neither = ~active_first & ~active_second
        return self._members(np.where(neither, self._draw(rng, len(first)), child), rng)

    def _members(self, codes: Codes, rng: np.random.Generator) -> Codes:
        """Canonical codes. A restriction can exclude the canonical codes of an arch that it allows;
        such rows are replaced by random archs.
        """
        found = self.normalise(codes)
        if self.macro.has_duplicates:
            outside = ~self.validate(found)
            if outside.any():
                found[outside] = rng.choice(self.listed, int(outside.sum()))
        return found

    @cached_property
    def listed(self) -> Codes:
        """All archs [n, d], if several codes can describe one arch (`Skeleton.has_duplicates`)."""
        codes = self.macro.listed()
        found: Codes = codes[self.validate(codes)]
        return found

    def _draw(self, rng: np.random.Generator, n: int) -> Codes:
        """Random codes of every choice, active or not."""
        columns = [
            np.asarray(allowed, dtype=np.int16)[rng.integers(len(allowed), size=n)]
            for allowed in self.allowed
        ]
        return np.stack(columns, axis=1)

    def encode(self, codes: Codes) -> NDArray[np.float32]:
        """One-hot of the active choices: [n, sum of len(values)]; inactive choices are zeros."""
        widths = [len(choice.values) for choice in self.choices]
        first = np.cumsum([0, *widths])
        encoded = np.zeros((len(codes), first[-1]), dtype=np.float32)
        encoded[np.arange(len(codes))[:, None], first[:-1] + codes] = self.active(codes)
        return encoded

    def decode(self, encoded: NDArray[np.float32]) -> Codes:
        """Inverse of `encode`."""
        ends = np.cumsum([len(choice.values) for choice in self.choices])
        parts = np.split(encoded, ends[:-1], axis=1)
        return np.stack([part.argmax(axis=1) for part in parts], axis=1).astype(np.int16)

    # --- the space as a whole -----------------------------------------------------------------

    def cost(
        self,
        archs: Codes | Sequence[Arch],
        metric: AnalyticMetric,
        *,
        precision: Precision = "fp32",
    ) -> NDArray[np.int64]:
        """Cost of codes or archs, int64 [n].

        metric: `macs`, `params`, `weight_bytes` or `peak_memory_bytes`.

        Raises:
            UserError: unknown metric, or an arch that the space does not allow.
        """
        return cost(self, self.as_codes(archs), metric, precision=precision)

    def __str__(self) -> str:
        return summary(self)

    def _repr_html_(self) -> str:
        return draw_space(self)

    def size(self) -> int:
        """Exact number of distinct archs; an inactive choice counts as having one value."""
        if self.macro.has_duplicates:
            return len(self.listed)
        return count_archs(self.choices, self.allowed)

    def restrict(self, values: Mapping[str, Sequence[Value]]) -> SearchSpace:
        """The space with the named choices restricted to the given values.

        Raises:
            UserError: unknown choice or value, or a choice without any value left.
        """
        checks.check_restriction(values, where=self.id)
        by_name = {choice.name: column for column, choice in enumerate(self.choices)}
        names, allowed = f"one of {', '.join(by_name)}", list(self.allowed)
        for name, wanted in values.items():
            if name not in by_name:
                raise UserError(f"unknown choice {name!r}", expected=names, where=self.id)
            column = by_name[name]
            known = self.choices[column].values
            kept = tuple(code for code in allowed[column] if known[code] in wanted)
            if not kept or not set(wanted) <= set(known):
                raise UserError(
                    f"cannot restrict {name} to {tuple(wanted)}",
                    expected=f"values among {tuple(known[code] for code in allowed[column])}",
                    where=self.id,
                )
            allowed[column] = kept
        return replace(self, allowed=tuple(allowed))
