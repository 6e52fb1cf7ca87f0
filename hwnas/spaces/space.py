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
from hwnas.spaces.choice import Choice, Codes, Value, check_allowed, check_choices
from hwnas.spaces.cost import AnalyticMetric, Precision, cost
from hwnas.spaces.drawing import draw_space, summary
from hwnas.spaces.skeleton import Skeleton

__all__ = ["Codes", "SearchSpace"]


@dataclass(frozen=True)
class SearchSpace:
    """Choices, skeleton, and which codes are still allowed. Random operators take their rng.

    `id` names the coding (what an `Arch` belongs to); `fingerprint` also covers `allowed`, so a
    restricted space has the same id and another fingerprint.

    allowed: per choice its codes in ascending order; `()` allows all.

    Raises:
        UserError: choices that contradict each other or the skeleton, or `allowed` that does not
            fit them; names the choice.
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
        """The canonical `Arch` of one row of codes (inactive choices set to 0)."""
        row = self.normalise(np.asarray(codes, dtype=np.int16)[None])[0]
        return Arch(self.id, tuple(int(code) for code in row))

    def check(self, arch: Arch) -> Arch:
        """Return `arch` if it is a canonical member of this space.

        Raises:
            UserError: it belongs to another space, or a code is out of range, disallowed, or set
                where its choice is inactive; names the choice.
        """
        checks.check_member(self, arch)
        return arch

    def largest(self) -> Arch:
        """The arch whose every choice has its largest allowed value."""
        return self.arch([codes[-1] for codes in self.allowed])

    def smallest(self) -> Arch:
        """The arch whose every choice has its smallest allowed value."""
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
        """int16 [n, d] of a list of archs of this space."""
        return np.asarray([arch.codes for arch in archs], dtype=np.int16).reshape(
            -1, len(self.choices)
        )

    def as_codes(self, archs: NDArray[Any] | Sequence[Arch]) -> Codes:
        """int16 [n, d]: canonical codes of archs, or of rows of codes that come from outside.

        Raises:
            UserError: something that is not an arch of the space.
        """
        if isinstance(archs, (list, tuple)) and all(isinstance(arch, Arch) for arch in archs):
            return self.codes([self.check(arch) for arch in archs])
        return self.normalise(checks.checked_codes(self, archs))

    def keys(self, codes: Codes) -> list[bytes]:
        """One hashable value per row, equal exactly where the rows are equal."""
        rows = np.ascontiguousarray(codes, dtype=np.int16)
        found: list[bytes] = rows.view(f"V{2 * len(self.choices)}").ravel().tolist()
        return found

    def active(self, codes: NDArray[Any]) -> NDArray[np.bool_]:
        """bool [n, d]: which choices of each row matter."""
        result = np.ones(codes.shape, dtype=bool)
        for parent, activates, columns in self._conditions:
            in_parent = np.take(activates, codes[:, parent], mode="clip") & result[:, parent]
            result[:, columns] = in_parent[:, None]
        return result

    @cached_property
    def _conditions(self) -> list[tuple[int, NDArray[np.bool_], slice]]:
        """Parent, which of its codes activate, and neighbouring columns that depend on it alike.

        Columns that every code of a root activates are left out: they are always active.
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
        """A copy whose inactive codes are 0."""
        return np.where(self.active(codes), codes, np.int16(0)).astype(np.int16, copy=False)

    def validate(self, codes: Codes) -> NDArray[np.bool_]:
        """bool [n]: rows that are canonical and use allowed codes only."""
        active = self.active(codes)
        valid = np.ones(len(codes), dtype=bool)
        for column, allowed in enumerate(self.allowed):
            chosen = codes[:, column]
            valid &= np.where(active[:, column], np.isin(chosen, allowed), chosen == 0)
        return valid

    def sample(
        self, n: int, *, seed: int | None = None, rng: np.random.Generator | None = None
    ) -> Codes:
        """n archs, every choice uniform and independent (as OFA 1908.09791 samples): [n, d].

        Raises:
            UserError: not exactly one of `seed` and a generator is given, or n is negative.
        """
        return self.normalise(self._draw(checks.one_generator(seed, rng), checks.checked_count(n)))

    def mutate(self, codes: Codes, rng: np.random.Generator, probability: float = 0.1) -> Codes:
        """Redraw every choice with `probability`; at least one per row is redrawn."""
        redraw = rng.random(codes.shape) < probability
        redraw[np.arange(len(codes)), rng.integers(codes.shape[1], size=len(codes))] = True
        fresh = self._draw(rng, len(codes))
        return self.normalise(np.where(redraw | ~self.active(codes), fresh, codes))

    def crossover(self, first: Codes, second: Codes, rng: np.random.Generator) -> Codes:
        """Uniform crossover of paired rows; choices inactive in one parent come from the other."""
        child = np.where(rng.random(first.shape) < 0.5, second, first)
        active_first, active_second = self.active(first), self.active(second)
        child = np.where(active_first & ~active_second, first, child)
        child = np.where(active_second & ~active_first, second, child)
        neither = ~active_first & ~active_second
        return self.normalise(np.where(neither, self._draw(rng, len(first)), child))

    def _draw(self, rng: np.random.Generator, n: int) -> Codes:
        """Codes of every choice, active or not."""
        columns = [
            np.asarray(allowed, dtype=np.int16)[rng.integers(len(allowed), size=n)]
            for allowed in self.allowed
        ]
        return np.stack(columns, axis=1)

    def encode(self, codes: Codes) -> NDArray[np.float32]:
        """One-hot of the active choices: [n, sum of len(values)]; zeros where inactive."""
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
        """int64 [n]: `macs`, `params`, `weight_bytes` or `peak_memory_bytes` of codes or archs.

        Raises:
            UserError: an unknown metric, or an arch that the space does not allow.
        """
        return cost(self, self.as_codes(archs), metric, precision=precision)

    def __str__(self) -> str:
        return summary(self)

    def _repr_html_(self) -> str:
        return draw_space(self)

    def size(self) -> int:
        """Exact number of distinct archs (choices form a forest; inactive ones count once)."""
        children: dict[int | None, list[int]] = {}
        for column, choice in enumerate(self.choices):
            children.setdefault(choice.parent, []).append(column)

        def count(column: int) -> int:
            total = 0
            for code in self.allowed[column]:
                product = 1
                for child in children.get(column, []):
                    if code in self.choices[child].parent_codes:
                        product *= count(child)
                total += product
            return total

        result = 1
        for column in children[None]:
            result *= count(column)
        return result

    def restrict(self, values: Mapping[str, Sequence[Value]]) -> SearchSpace:
        """The space with the named choices narrowed to the given values.

        Raises:
            UserError: an unknown choice or value, or nothing left of a choice.
        """
        checks.check_restriction(values, where=self.id)
        by_name = {choice.name: column for column, choice in enumerate(self.choices)}
        allowed = list(self.allowed)
        for name, wanted in values.items():
            if name not in by_name:
                raise UserError(f"unknown choice {name!r}", expected=sorted(by_name), where=self.id)
            column = by_name[name]
            known = self.choices[column].values
            kept = tuple(code for code in allowed[column] if known[code] in wanted)
            if not kept or not set(wanted) <= set(known):
                raise UserError(
                    f"cannot restrict {name} to {tuple(wanted)}",
                    expected=f"some of {tuple(known[code] for code in allowed[column])}",
                    where=self.id,
                )
            allowed[column] = kept
        return replace(self, allowed=tuple(allowed))
