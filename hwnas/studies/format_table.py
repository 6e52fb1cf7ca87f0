"""Measures all exported formats of the winners on the files as they ship, in one table.

Accuracy, time and delegated operators are measured with the file itself, in its own runtime. All
files run in another process, because a runtime may crash.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np

from hwnas.core.decimals import rounded
from hwnas.core.errors import CheckFailed, UserError, first_line
from hwnas.core.progress import Parts, Progress, silent
from hwnas.core.stats import accuracy_text
from hwnas.exporters.apart import Apart, Runner
from hwnas.exporters.every import not_installed
from hwnas.exporters.parity import compare, is_kept, torch_logits
from hwnas.interfaces import Images
from hwnas.pipeline.exports import exports_of, file_of, formats_for, winning_archs
from hwnas.pipeline.format_time import measured_weight
from hwnas.pipeline.outcomes import Exported
from hwnas.pipeline.project import Project
from hwnas.pipeline.winners import load_network
from hwnas.spaces.arch import Arch
from hwnas.spaces.lowering import resolution

__all__ = ["N_IMAGES", "QUIET", "ROUNDS", "FormatRow", "format_table", "spread_of"]

N_IMAGES = 500
"""Largest number of test images for accuracy and parity."""

ROUNDS, RUNS, TURN_MS = 15, 8, 40.0  # of timing by turns: runs in a turn, unless it takes longer
QUIET = 0.05
"""Largest spread of times between rounds (`spread_of`) that is expected of an idle machine."""


@dataclass(frozen=True)
class FormatRow:
    """One format of one network.

    ok: whether the file keeps the promise of its format on the test images; None: unknown.
    mb: size of the files in megabytes.
    top1: accuracy of the file on `n_images` test images, in [0, 1].
    parity: largest difference from torch, relative to the largest logit; `tolerance` is accepted.
    agreement: share of images with the same class as in torch; at least `least` is accepted.
    ms: time of one image; median over rounds of the fastest run of a turn.
    spread: interquartile range over the rounds / ms.
    delegated: share of the operators that the accelerated backend runs.
    notes: why values are missing.
    """

    arch: str
    format: str
    file: str | None = None
    ok: bool | None = None
    mb: float | None = None
    top1: float | None = None
    n_images: int = 0
    parity: float | None = None
    tolerance: float | None = None
    agreement: float | None = None
    least: float | None = None
    ms: float | None = None
    spread: float | None = None
    delegated: float | None = None
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "arch": self.arch,
            "format": self.format,
            "file": self.file,
            "ok": self.ok,
            "mb": rounded(self.mb, 3),
            "top1": rounded(self.top1, 4),
            "n_images": self.n_images,
            "parity": None if self.parity is None else float(f"{self.parity:.2e}"),
            "tolerance": self.tolerance,
            "agreement": rounded(self.agreement, 4),
            "least_agreement": self.least,
            "ms": rounded(self.ms, 4),
            "spread": rounded(self.spread, 4),
            "delegated": rounded(self.delegated, 4),
            "notes": list(self.notes),
        }

    def shown(self) -> dict[str, str]:
        """The row of a table for people: `-` where a value is missing, and the reason."""
        ok = {True: "yes", False: "NO", None: "-"}[self.ok]
        return {
            "format": self.format,
            "ok": ok,
            "MB": _text(self.mb, "{:.3f}"),
            "top-1": accuracy_text(self.top1, self.n_images) or "-",
            "parity": _text(self.parity, "{:.1e}") + _text(self.agreement, ", {:.1%} agree", ""),
            "accepted": _text(self.tolerance, "{:.0e}") + _text(self.least, ", {:.1%}", ""),
            "ms here": _text(self.ms, "{:.4f}"),
            "share delegated": _text(self.delegated, "{:.0%}"),
            "note": "; ".join(self.notes),
        }


def _text(value: float | None, pattern: str, missing: str = "-") -> str:
    return missing if value is None else pattern.format(value)


@dataclass
class _File:
    """A file while it is measured."""

    arch: Arch
    exported: Exported
    name: str
    facts: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    opened: Apart | None = None

    def row(self) -> FormatRow:
        file = (*self.exported.files, None)[0]
        return FormatRow(self.arch.key, self.name, file, notes=tuple(self.notes), **self.facts)


def format_table(project: Project, progress: Progress = silent) -> list[FormatRow]:
    """Measures every file of the winners; formats that are not installed are rows with the reason.

    progress: counts files, then rounds of timing.
    """
    files = list(_files(project))
    parts = Parts(
        progress, [*(measured_weight(one.exported.model.format) for one in files), ROUNDS]
    )
    with Runner(threads=project.config.threads) as runner:
        references: dict[Arch, tuple[Images, Any, Images]] = {}
        for number, one in enumerate(files):
            parts.part(number)(0, 1, one.name)
            if one.arch not in references:
                references[one.arch] = _reference(project, one.arch)
            _examine(project, one, references[one.arch], runner)
        last = parts.part(len(files), "timing the files in turn")
        _time(files, {arch: found[0] for arch, found in references.items()}, last)
    rows = [one.row() for one in files]
    winners = dict.fromkeys(one.arch.key for one in files)
    return rows + [
        FormatRow(key, name, notes=(reason,))
        for key in winners
        for name, reason in not_installed().items()
    ]


def spread_of(rows: Sequence[FormatRow]) -> float | None:
    """How much the times of a file vary between rounds: the median over files; None: not timed."""
    known = [row.spread for row in rows if row.spread is not None]
    return median(known) if known else None


def _files(project: Project) -> Iterator[_File]:
    names = {one.path: one.shown for one in formats_for(project, is_winner=True)}
    for arch in sorted(winning_archs(project), key=lambda arch: arch.key):
        found = exports_of(project, arch)
        formats = list(dict.fromkeys(one.model.format for one in found))
        for exported in sorted(found, key=lambda one: formats.index(one.model.format)):
            path = exported.model.path
            yield _File(arch, exported, names.get(path, names.get(exported.model.format, path)))


def _reference(project: Project, arch: Arch) -> tuple[Images, Any, Images]:
    """Test images, their labels, and the logits of torch."""
    x, labels = project.images("test", resolution(project.space, arch), N_IMAGES)
    return x, labels, torch_logits(load_network(project, arch), x)


def _examine(
    project: Project, one: _File, reference: tuple[Images, Any, Images], runner: Runner
) -> None:
    """Opens a file and runs the test images."""
    model, (x, labels, expected) = one.exported.model, reference
    if not one.exported.files:
        one.facts["ok"] = False
        one.notes.append(one.exported.failure)
        return
    path = file_of(project, one.arch, one.exported)
    one.facts["mb"] = sum(path.with_name(n).stat().st_size for n in one.exported.files) / 1e6
    try:
        opened = runner.open(model.format, path)
        logits = opened.model.logits(x)
        found = compare(expected, logits, rounding=model.torch_rounding)
    except (UserError, CheckFailed) as error:
        one.facts["ok"] = None if _is_absent(error) else False
        one.notes.append(_reason(error))
        return
    one.opened = opened
    one.facts |= {
        "ok": is_kept(model, found),
        "top1": float((logits.argmax(1) == labels).mean()),
        "n_images": len(x),
        "parity": found.relative,
        "tolerance": model.parity_tolerance,
        "agreement": found.top1_agreement,
        "least": model.min_agreement,
        "delegated": opened.model.delegated,
    }
    if opened.model.untimed:
        one.notes.append(opened.model.untimed)


def _is_absent(error: Exception) -> bool:
    from hwnas.exporters.opened import CannotRunHere

    return isinstance(error, CannotRunHere)


def _reason(error: UserError | CheckFailed) -> str:
    found = str(error.found or "").strip().splitlines()
    return first_line(error) + (f": {found[0][:160]}" if found else "")


def _time(files: list[_File], images: Mapping[Arch, Images], progress: Progress) -> None:
    """Times one image in every file, all files in turn, several times."""
    timed = [one for one in files if one.opened is not None and not one.opened.model.untimed]
    fastest: dict[int, list[float]] = {i: [] for i in range(len(timed))}
    for number in range(ROUNDS + 1):  # the first round warms up
        for i in list(fastest):
            one = timed[i]
            batch = one.exported.model.batch or 1
            x = np.ascontiguousarray(
                np.resize(images[one.arch][:1], (batch, *images[one.arch].shape[1:]))
            )
            n = RUNS if not fastest[i] else max(1, min(RUNS, int(TURN_MS / fastest[i][-1])))
            assert one.opened is not None
            try:
                best = min(one.opened.times(x, n)) / batch
            except (UserError, CheckFailed) as error:
                one.notes.append(f"not timed: {_reason(error)}")
                del fastest[i]  # each further run could take as long as its limit
                continue
            if number:
                fastest[i].append(best)
        progress(number, ROUNDS)
    for i, times in fastest.items():
        timed[i].facts["ms"] = ms = median(times)
        low, high = np.quantile(times, (0.25, 0.75))
        timed[i].facts["spread"] = float(high - low) / ms
