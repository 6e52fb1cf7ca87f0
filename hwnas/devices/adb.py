"""Times models on an Android phone over adb, without installing anything and without root."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from hwnas.core.config import BESIDE, StrictModel
from hwnas.core.errors import Invalid, UserError
from hwnas.core.leftover import Leftover
from hwnas.core.progress import Progress
from hwnas.devices.adb_phone import HEAT, MOST_LOST, Phone
from hwnas.devices.benchmark_model import BenchmarkModel
from hwnas.devices.carried import carried_runtime
from hwnas.devices.reach import alone
from hwnas.devices.remote import ConnectionLost, RemoteKit
from hwnas.interfaces import DeviceSpec, Transport

__all__ = ["Config", "build"]

log = logging.getLogger(__name__)

Place = Annotated[str, Field(pattern=r"^[A-Za-z0-9_./][A-Za-z0-9_./-]*$")]  # never an option
OF_TERMUX = "/data/data/com.termux/files/usr/bin/python3"
HEAT_EVERY_S = 5
HOT = "hot"  # file that holds the kit
WATCH = """
rm -f {hot}
while kill -0 "$p" 2>/dev/null; do
  s=$({heat})
  if [ "${{s:-0}}" -gt 0 ]; then echo "$s" > {hot}; else rm -f {hot}; fi
  sleep {every_s}
done
rm -f {hot}
"""


def _text(serial: object) -> object:
    if isinstance(serial, (int, float)):
        raise Invalid("a serial number in quotes", f"the number {serial}")
    return serial


Serial = Annotated[
    str,
    Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.:() -]*$"),  # never an option
    BeforeValidator(_text),
]


class Config(StrictModel):
    """Which phone, and how its models are timed. Tested only with a simulated adb.

    The device kit or the official benchmark_model times the models. The kit uses a Python that is
    on the phone, or a folder with Python and the runtime, which is copied to the phone once.
    """

    name: Literal["adb"] = "adb"
    serial: Serial | None = Field(
        None,
        description="Serial number from `adb devices`; required if several devices are connected.",
    )
    folder: Place = Field(
        "/data/local/tmp/hwnas-kit", description="Folder on the phone for models, kit and results."
    )
    wait_s: Annotated[float, Field(ge=0, le=1e6)] = Field(
        120.0,
        description="Maximum time to wait for the phone, also after a lost connection, in seconds.",
    )
    cool_down_s: Annotated[float, Field(ge=0, le=1e6)] = Field(
        600.0,
        description="Maximum total time to wait, in seconds, while Android reports that the phone"
        " throttles; then timing continues.",
    )
    runner: Literal["kit", "benchmark_model"] = Field(
        "kit",
        description="What times the models: the device kit, or the binary benchmark_model of"
        " TensorFlow or LiteRT.",
    )
    binary: Annotated[str | None, BESIDE] = Field(
        None,
        description="Path of benchmark_model on this machine, relative to the file of the device.",
    )
    binary_on_phone: Place | None = Field(
        None, description="Path of a benchmark_model that is already on the phone."
    )
    python: str | None = Field(
        None,
        description="Python interpreter on the phone, for which the runtime is installed. Default:"
        " a Python that hwnas copies to the phone or, with `as_root`, the Python of Termux.",
    )
    as_root: bool = Field(
        False, description="Run commands with `su -c`, to use the Python of Termux."
    )
    before: str = Field(
        "",
        description="Shell command to run on the phone before the Python interpreter, in the same"
        " shell; not for the runner benchmark_model.",
    )

    @model_validator(mode="after")
    def _check(self) -> Config:
        n_binaries = (self.binary is not None) + (self.binary_on_phone is not None)
        if n_binaries != (self.runner == "benchmark_model"):
            known = "`binary` (a file on this machine) and `binary_on_phone`"
            if self.runner != "benchmark_model":
                raise Invalid(
                    "neither `binary` nor `binary_on_phone`",
                    "`binary`" if self.binary is not None else "`binary_on_phone`",
                    key=f"runner {self.runner}",
                )
            given = "both" if n_binaries else "neither"
            raise Invalid(f"one of {known}", given, key="runner benchmark_model")
        return self


def build(config: Config, device: DeviceSpec) -> Transport:
    """The transport to the phone; it connects when it is first used.

    Raises:
        UserError: hwnas has no folder with the runtime of the device, or benchmark_model does not
            support the device.
    """
    phone = Phone(config.serial, config.as_root)
    if config.runner == "benchmark_model":
        return BenchmarkModel(
            phone,
            device,
            config.folder,
            binary=None if config.binary is None else Path(config.binary),
            binary_on_phone=config.binary_on_phone,
            wait_s=config.wait_s,
            cool_down_s=config.cool_down_s,
        )
    is_carried = config.python is None and not config.as_root
    kit = RemoteKit(
        phone,
        device,
        config.folder,
        config.python or OF_TERMUX,
        config.before,
        carried=carried_runtime("arm64", device.runtime) if is_carried else None,
    )
    return _AdbKit(config, phone, kit)


@dataclass(frozen=True)
class _AdbKit:
    """The device kit on a phone: on its fast processors, while it is cool, over a cable."""

    config: Config
    phone: Phone
    kit: RemoteKit

    def run_bench(self, plan: Path, results: Path, *, progress: Progress) -> None:
        """See `Transport.run_bench`. Waits for the phone if the cable is pulled, then goes on."""
        with self._alone() as same:
            same._run_alone(plan, results, progress)

    def _run_alone(self, plan: Path, results: Path, progress: Progress) -> None:
        n_lost = 0
        while True:
            watched = _Watched(progress)
            try:
                self._placed().run_bench(plan, results, progress=watched)
                return
            except UserError as error:
                if not isinstance(error, ConnectionLost) and self.phone.is_there():
                    raise
                n_lost = 0 if watched.has_timed else n_lost + 1
                if self.config.wait_s == 0 or n_lost == MOST_LOST:
                    raise
                log.warning("lost the connection to %s; the samples are kept", self.phone.where)
                try:
                    self.phone.wait(self.config.wait_s)
                except UserError as gone:
                    raise error from gone

    def try_out(self, plan: Path) -> None:
        """See `TryingTransport.try_out`."""
        with self._alone() as same:
            same._placed().try_out(plan)

    def check(self) -> None:
        """See `ReachedTransport.check`."""
        self.kit.check_here()
        self.phone.wait(self.config.wait_s)
        self.kit.check()

    def fetch(self) -> None:
        """See `FetchingTransport.fetch`."""
        self.kit.fetch()

    def leftovers(self, home: Mapping[str, int]) -> list[Leftover]:
        """See `CleaningTransport.leftovers`."""
        self.phone.wait(self.config.wait_s)
        return self.kit.leftovers(home)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[_AdbKit]:
        """This kit, bound to the serial number of the phone: it never switches to another phone."""
        self.kit.check_here()  # before the phone is waited for
        phone = self.phone.wait(self.config.wait_s)
        with alone(phone):
            yield replace(self, phone=phone, kit=replace(self.kit, reach=phone))

    def _placed(self) -> RemoteKit:
        """The kit on the fast processors, with a shell beside it that watches the heat."""
        mask = self.phone.fast_mask(self.kit.device.threads)
        kit = replace(self.kit, prefix=f"taskset {mask}" if mask else "")
        if self.config.cool_down_s == 0:
            return kit
        beside = WATCH.format(heat=HEAT, hot=HOT, every_s=HEAT_EVERY_S)
        options = f"--hold {HOT} --hold-s {self.config.cool_down_s:g}"
        return replace(kit, beside=beside, options=options)


class _Watched:
    """A Progress that knows whether timing has begun."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self.has_timed = progress, False

    def __call__(self, done: int, total: int, note: str = "") -> None:
        self.has_timed |= note == "timing"
        self._progress(done, total, note)
