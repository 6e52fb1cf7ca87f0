"""Compares the winners of all devices by their latency on every device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from hwnas.controller.result import Candidate
from hwnas.core.records import STRICT, dump
from hwnas.measure.drift import can_judge
from hwnas.spaces.arch import Arch

__all__ = ["WinnerMatrix", "winner_matrix"]


class TimedNetwork(Protocol):
    """One network on one device, timed together with the others; see `outcomes.NetworkResult`."""

    @property
    def device(self) -> str: ...
    @property
    def arch(self) -> Arch: ...
    @property
    def forecast_ms(self) -> float: ...
    @property
    def measured_ms(self) -> float | None: ...
    @property
    def repeat_noise(self) -> float: ...
    @property
    def pace(self) -> float | None: ...


@dataclass(frozen=True)
class WinnerMatrix:
    """The winner of every device on every device. All fields have the order of `devices`.

    arch: key of each winner; equal keys are one network.
    score: score of each winner in the search; higher is better.
    found_by: device whose search found each winner.
    forecast_ms[d][w]: estimated latency of winner w on device d.
    measured_ms[d][w]: latency of winner w on device d, at the speed of the table of d. All winners
        are timed in one interleaved run.
    repeat_noise[d]: relative difference of two halves of that run.
    judged[d]: whether the pace of device d was close enough to 1 to judge.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    devices: tuple[str, ...]
    arch: tuple[str, ...]
    score: tuple[float, ...]
    found_by: tuple[str, ...]
    forecast_ms: tuple[tuple[float, ...], ...]
    measured_ms: tuple[tuple[float, ...], ...]
    repeat_noise: tuple[float, ...]
    judged: tuple[bool, ...]

    def rivals(self, device: int) -> tuple[int, ...]:
        """Winners of other devices that are better here: clearly faster, with a higher score.

        Empty if the device cannot be judged.
        """
        own_ms = self.measured_ms[device][device] * (1 - self.repeat_noise[device])
        return tuple(
            other
            for other in range(len(self.devices))
            if self.judged[device]
            and self.measured_ms[device][other] < own_ms
            and self.score[other] > self.score[device]
        )

    @property
    def same(self) -> tuple[tuple[str, ...], ...]:
        """Devices with the same winner, in groups of two or more."""
        groups: dict[str, list[str]] = {}
        for device, arch in zip(self.devices, self.arch, strict=True):
            groups.setdefault(arch, []).append(device)
        return tuple(tuple(group) for group in groups.values() if len(group) > 1)

    def notes(self) -> tuple[str, ...]:
        """Conclusions from the matrix, in sentences."""
        found = [f"the winners on {_and(group)} are the same network" for group in self.same]
        for device, (name, by) in enumerate(zip(self.devices, self.found_by, strict=True)):
            if by != name:
                found.append(
                    f"the winner on {name} was found by the search for {by}: on {name}, its latency"
                    f" estimate is lower, and its score higher, than those of the search for {name}"
                )
            if not self.judged[device]:
                found.append(
                    f"winners on {name} are not compared: its speed differs from its table"
                )
            found += [self._told(device, other) for other in self.rivals(device)]
        if all(self.judged) and not any(map(self.rivals, range(len(self.devices)))):
            found.append(
                "on no device is a winner of another device both faster (by more than the repeat"
                " noise) and of higher score than the device's own winner"
            )
        return tuple(found)

    def summary(self) -> dict[str, Any]:
        """JSON values, including the sentences."""
        return dump(self, versioned=False) | {"notes": list(self.notes())}

    def _told(self, device: int, other: int) -> str:
        name, rival = self.devices[device], self.devices[other]
        return (
            f"on {name}, the winner of {rival} is faster than its own winner"
            f" ({self.measured_ms[device][other]:.4g} ms, own"
            f" {self.measured_ms[device][device]:.4g} ms, repeat noise"
            f" {self.repeat_noise[device]:.1%}) and has a higher score"
            f" ({self.score[other]:.4f}, own {self.score[device]:.4f}): consider this network for"
            f" {name}"
        )


def winner_matrix(
    rows: Sequence[TimedNetwork],
    winners: Mapping[str, Candidate],
    found_by: Mapping[str, str | None],
) -> WinnerMatrix | None:
    """The matrix of the winners; None if there are fewer than two timed devices with a winner.

    rows: every winner on every device. Devices without timings are left out.
    winners: maps a device to its winner.
    found_by: maps a device to the device whose search found its winner; None: its own search.
    """
    by_place = {(row.device, row.arch): row for row in rows if row.measured_ms is not None}
    winners = {name: one for name, one in winners.items() if (name, one.arch) in by_place}
    if len(winners) < 2:
        return None
    archs = [candidate.arch for candidate in winners.values()]
    table = [[by_place[device, arch] for arch in archs] for device in winners]
    return WinnerMatrix(
        devices=tuple(winners),
        arch=tuple(arch.key for arch in archs),
        score=tuple(candidate.score for candidate in winners.values()),
        found_by=tuple(found_by.get(device) or device for device in winners),
        forecast_ms=tuple(tuple(row.forecast_ms for row in line) for line in table),
        measured_ms=tuple(tuple(row.measured_ms or 0.0 for row in line) for line in table),
        repeat_noise=tuple(line[0].repeat_noise for line in table),
        judged=tuple(can_judge(line[0].pace) for line in table),
    )


def _and(names: Sequence[str]) -> str:
    return ", ".join(names[:-1]) + f" and {names[-1]}"
