"""Tasks of latency transfer: fixed source devices, fixed target devices, one data set each."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["NASFLAT", "PUBLISHED", "SHARED", "Task"]


@dataclass(frozen=True)
class Task:
    """Columns of known devices (`sources`) and of devices that are estimated (`targets`).

    n_source: networks timed on every source; None: all.
    """

    name: str
    space: str
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    n_source: int | None = None

    def missing(self, columns: tuple[str, ...]) -> tuple[str, ...]:
        """Columns of the task that a data set lacks."""
        return tuple(sorted({*self.sources, *self.targets} - set(columns)))


def _task(name: str, space: str, sources: str, targets: str, n_source: int | None = None) -> Task:
    return Task(name, space, tuple(sources.split()), tuple(targets.split()), n_source)


_NVIDIA = ("1080ti", "2080ti", "titan_rtx", "titanx", "titanxp")
_FA = " ".join(f"{gpu}_{batch}" for gpu in _NVIDIA for batch in (1, 32, 64))

# correlation_trainer/device_task_list.py of github.com/abdelfattah-lab/nasflat_latency @82924343
NASFLAT = (
    _task(
        "FD",
        "fbnet",
        "1080ti_1 1080ti_32 1080ti_64 silver_4114 silver_4210r samsung_a50 pixel3 essential_ph_1 "
        "samsung_s7",
        "fpga raspi4 eyeriss",
        800,
    ),
    _task(
        "F1",
        "fbnet",
        "2080ti_1 essential_ph_1 silver_4114 titan_rtx_1 titan_rtx_32",
        "eyeriss fpga raspi4 samsung_a50 samsung_s7",
        800,
    ),
    _task(
        "F2",
        "fbnet",
        "essential_ph_1 gold_6226 gold_6240 pixel3 raspi4",
        "1080ti_1 1080ti_32 2080ti_32 titan_rtx_1 titanxp_1",
        800,
    ),
    _task(
        "F3",
        "fbnet",
        "essential_ph_1 pixel2 pixel3 raspi4 samsung_s7",
        "1080ti_1 1080ti_32 2080ti_1 titan_rtx_1 titan_rtx_32",
        800,
    ),
    _task(
        "F4",
        "fbnet",
        "1080ti_64 2080ti_1 eyeriss gold_6226 gold_6240 raspi4 samsung_s7 silver_4210r titan_rtx_1 "
        "titan_rtx_32",
        "1080ti_1 pixel2 essential_ph_1",
        800,
    ),
    _task("FA", "fbnet", _FA, "gold_6226 essential_ph_1 samsung_s7 pixel2", 800),
    _task(
        "ND",
        "nasbench201",
        "1080ti_1 1080ti_32 1080ti_256 silver_4114 silver_4210r samsung_a50 pixel3 essential_ph_1 "
        "samsung_s7",
        "titan_rtx_256 gold_6226 fpga pixel2 raspi4 eyeriss",
        512,
    ),
)

# Mean Spearman over the targets with 20 timings: HELP, MultiPredict, NASFLAT (2403.02446)
PUBLISHED = {
    "FD": (0.910, 0.960, 0.961),
    "F1": (0.793, 0.756, 0.809),
    "F2": (0.543, 0.567, 0.871),
    "F3": (0.413, 0.434, 0.814),
    "F4": (0.799, 0.763, 0.734),
    "FA": (0.370, 0.450, 0.577),
    "ND": (0.948, 0.930, 0.959),
}

_PHONES = "essential_ph_1 pixel3 samsung_a50 samsung_s7"
_CPUS = "gold_6240 silver_4114 silver_4210r"


def _shared(space: str, large: int, n_source: int) -> tuple[Task, ...]:
    """Five tasks whose columns are all in the published files that this project works with."""

    def gpus(*names: str) -> str:
        return " ".join(f"{name}_{batch}" for name in names for batch in (1, 32, large))

    some = f"1080ti_1 1080ti_32 2080ti_1 titanx_{large} titanxp_1"
    every = gpus("1080ti", "2080ti", "titanx", "titanxp")
    return (
        _task("GPU to phone", space, every, _PHONES, n_source),
        _task("phone to GPU", space, _PHONES, some, n_source),
        _task("CPU to GPU", space, _CPUS, some, n_source),
        _task(
            "few sources",
            space,
            f"silver_4114 titanx_{large}",
            "2080ti_1 gold_6240 pixel3 samsung_a50",
            n_source,
        ),
        _task("one family", space, gpus("titanx", "titanxp"), gpus("1080ti", "2080ti"), n_source),
    )


SHARED = (*_shared("nasbench201", 256, 512), *_shared("fbnet", 64, 800))
