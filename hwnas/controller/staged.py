"""A search in stages: some choices vary, the others have the values of the best arch so far.

MobileNetV4 was searched like this (2404.10518): first the widths with one kind of block, then the
depthwise convolutions of every block. Each stage searches the space restricted to the fixed values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

import numpy as np

from hwnas.controller.result import Candidate, SearchResult
from hwnas.controller.sections import SearchConfig, SearchStage
from hwnas.core.command import command_line
from hwnas.core.errors import UserError, did_you_mean
from hwnas.core.text import in_words
from hwnas.spaces.choice import Value
from hwnas.spaces.space import SearchSpace

__all__ = ["check_stages", "search_in_stages"]

Run = Callable[[SearchSpace, SearchConfig, int], SearchResult]
"""Runs one stage. Arguments: restricted space, settings with the stage's budgets, its number."""


def check_stages(space: SearchSpace, config: SearchConfig) -> None:
    """Checks the patterns and values of the stages against the space, and their budgets.

    Raises:
        UserError: a pattern matches no choice, a choice lacks a value, or a budget is too small.
    """
    for number, stage in enumerate(config.stages):
        for position, pattern in enumerate(stage.free):
            _matching(space, pattern, f"search.stages.{number}.free.{position}")
    if config.held and not config.stages:
        raise UserError(
            "search.held has no effect without stages",
            expected="search.held together with search.stages",
            found="no search.stages",
            where="search.held",
            fix="add search.stages, or remove search.held",
        )
    _first_held(space, config)
    n = len(config.stages)
    for key in ("n_evaluations", "n_predictions"):
        if n > getattr(config, key):
            raise UserError(
                f"the budget is too small for a search in {n} stages",
                expected=f"{key} of at least {n}: 1 for each stage",
                found=f"{key}: {getattr(config, key)}",
                where=f"search.{key}",
                fix=f"raise search.{key}, or remove stages from search.stages",
            )


def search_in_stages(space: SearchSpace, config: SearchConfig, run: Run) -> SearchResult:
    """Runs the stages in order; the result has the best archs of all stages.

    The budgets of `config` are divided by the shares of its stages.
    """
    held = _first_held(space, config)
    results: list[SearchResult] = []
    for number, part in enumerate(_parts(config)):
        stage = config.stages[number]
        fixed = {name: (v,) for name, v in held.items() if not _is_free(name, stage)}
        results.append(run(space.restrict(fixed), part, number))
        held |= space.view(_best(results).arch)
    return _joined(results, config.top_k)


def _parts(config: SearchConfig) -> list[SearchConfig]:
    """The settings of each stage; their budgets are positive and sum to those of `config`."""
    shares = [stage.share for stage in config.stages]
    counts = {
        key: _divided(getattr(config, key), shares) for key in ("n_predictions", "n_evaluations")
    }
    total = sum(shares)
    limit_s = config.max_seconds
    return [
        config.model_copy(
            update={
                **{key: values[number] for key, values in counts.items()},
                "max_seconds": None if limit_s is None else limit_s * share / total,
                "stages": (),
                "held": {},
            }
        )
        for number, share in enumerate(shares)
    ]


def _divided(n: int, shares: Sequence[float]) -> list[int]:
    """Divides n into positive whole numbers, as close to the shares as possible."""
    ends = np.rint(np.cumsum(shares) / sum(shares) * n).astype(int)
    last, found = 0, []
    for position, end in enumerate(ends):
        n_after = len(shares) - position - 1
        found.append(min(max(int(end) - last, 1), n - last - n_after))
        last += found[-1]
    return found


def _first_held(space: SearchSpace, config: SearchConfig) -> dict[str, Value]:
    """The value at which the first stage fixes each choice, by name.

    Raises:
        UserError: a pattern matches no choice, or a choice lacks the value.
    """
    held = {
        choice.name: choice.values[codes[-1]]
        for choice, codes in zip(space.choices, space.allowed, strict=True)
    }
    allowed = {
        choice.name: [choice.values[code] for code in codes]
        for choice, codes in zip(space.choices, space.allowed, strict=True)
    }
    for pattern, value in config.held.items():
        for name in _matching(space, pattern, f"search.held.{pattern}"):
            if value not in allowed[name]:
                raise UserError(
                    f"search.held has a value that the choice {name} lacks",
                    expected=f"one of the values {', '.join(map(str, allowed[name]))}",
                    found=f"the value {in_words(value)}",
                    where=f"search.held.{pattern}",
                )
            held[name] = value
    return held


def _matching(space: SearchSpace, pattern: str, where: str) -> list[str]:
    names = [choice.name for choice in space.choices]
    found = [name for name in names if fnmatchcase(name, pattern)]
    if not found:
        raise UserError(
            f"no choice of the space matches {pattern!r}",
            expected="names of choices; * stands for any text",
            where=where,
            fix=did_you_mean(
                pattern, names, otherwise=f"see `{command_line('space', 'show', space.name)}`"
            ),
        )
    return found


def _is_free(name: str, stage: SearchStage) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in stage.free)


def _best(results: Sequence[SearchResult]) -> Candidate:
    return max((result.winner for result in results), key=lambda candidate: candidate.score)


def _joined(results: Sequence[SearchResult], top_k: int) -> SearchResult:
    """The last result, with the best archs and fronts of all stages."""
    last = results[-1]
    known = {c.arch: c for result in results for c in result.top}
    top = tuple(sorted(known.values(), key=lambda candidate: -candidate.score))[:top_k]
    return replace(
        last,
        winner=top[0],
        top=top,
        fronts={
            key: _front(key, [c for result in results for c in result.fronts[key]])
            for key in last.fronts
        },
        n_generations=sum(result.n_generations for result in results),
        n_proposals=sum(result.n_proposals for result in results),
        n_predictions=sum(result.n_predictions for result in results),
        n_evaluations=sum(result.n_evaluations for result in results),
    )


def _front(key: str, points: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Points that no other point dominates in cost and score, cheapest first."""
    found: list[Candidate] = []
    for point in sorted(points, key=lambda c: (c.costs[key], -c.score)):
        if not found or point.score > found[-1].score:
            found.append(point)
    return tuple(found)
