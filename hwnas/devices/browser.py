"""A web browser, on this machine or on a phone: a page times the models with WebAssembly."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from hwnas.core.config import BESIDE, StrictModel
from hwnas.core.env import cache_folder
from hwnas.core.errors import Invalid, UserError
from hwnas.core.progress import Progress, silent
from hwnas.core.resources import resource
from hwnas.core.web_runtimes import RUNTIMES, fetch_runtime, runtime_folder
from hwnas.devices.kit import run_kit
from hwnas.interfaces import DeviceSpec, Transport

__all__ = ["Config", "build"]

CHROMIUMS = "chromium", "chromium-browser", "google-chrome", "google-chrome-stable"
USUAL_PORT = 8421
LOOPBACK = "127.0.0.1", "localhost"


class Config(StrictModel):
    """Which browser opens the page, and where the page is served."""

    name: Literal["browser"] = "browser"
    opened_by: Literal["hwnas", "user"] = Field(
        "hwnas",
        description="`hwnas`: starts a Chromium without a window; `user`: prints the address of the"
        " page and waits for any browser, for example that of a phone.",
    )
    browser: str | None = Field(
        None, description="Chromium's executable; default: the first on the PATH."
    )
    address: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]*$")] = Field(
        "127.0.0.1", description="IPv4 address or host name at which this machine serves the page."
    )
    port: Annotated[int | None, Field(ge=0, le=65535)] = Field(
        None,
        description="Port of the page; 0: any free port. Default: 8421 if the user opens the page,"
        " else any.",
    )
    certificate: Annotated[str | None, BESIDE] = Field(
        None,
        description="PEM file of a certificate for https, relative to the file of the device."
        " Required if other machines can reach `address`.",
    )
    key: Annotated[str | None, BESIDE] = Field(
        None, description="PEM file of the certificate's private key."
    )
    wait_s: Annotated[float, Field(gt=0, le=1e6)] = Field(
        600.0, description="Maximum time to wait for a page to connect, in seconds."
    )

    @model_validator(mode="after")
    def _check(self) -> Config:
        if self.key is not None and self.certificate is None:
            raise Invalid("`certificate`, because `key` is given", "no `certificate`")
        if self.address not in LOOPBACK and self.certificate is None:
            raise Invalid(
                "`certificate`, or the address 127.0.0.1 (for a phone with `adb reverse`), because"
                " other machines can reach any other address",
                f"the address {self.address} without `certificate`",
            )
        return self


def build(config: Config, device: DeviceSpec) -> Transport:
    """The transport to a browser, with the kit's server (export/web_bench.py) in a subprocess."""
    return _Browser(config, device)


@dataclass(frozen=True)
class _Browser:
    config: Config
    device: DeviceSpec

    def run_bench(self, plan: Path, results: Path, *, progress: Progress) -> None:
        """See `Transport.run_bench`."""
        self._run_kit([str(plan), "--out", str(results)], progress, where=plan)

    def try_out(self, plan: Path) -> None:
        """See `TryingTransport.try_out`."""
        self._run_kit([str(plan), "--try"], silent, where=self.device.name)

    def check(self) -> None:
        """See `ReachedTransport.check`: there is a browser, and the files of the runtime."""
        runtime_folder(self.device.runtime)
        self._executable()

    def fetch(self) -> None:
        """See `FetchingTransport.fetch`."""
        fetch_runtime(self.device.runtime)

    def _run_kit(self, arguments: list[str], progress: Progress, *, where: object) -> None:
        config, folder = self.config, runtime_folder(self.device.runtime)
        options = ["--runtime", str(folder), "--version", RUNTIMES[self.device.runtime].version]
        usual = USUAL_PORT if config.opened_by == "user" else 0
        port = usual if config.port is None else config.port
        options += ["--host", config.address, "--port", str(port)]
        options += ["--wait-s", str(config.wait_s), "--token", str(_token_file())]
        for name in ("certificate", "key"):
            if (path := getattr(config, name)) is not None:
                options += [f"--{name}", path]
        if (browser := self._executable()) is not None:
            options += ["--browser", browser]
        run_kit(
            [sys.executable, str(resource("export", "web_bench.py")), *arguments, *options],
            environment={},
            progress=progress,
            where=where,
        )

    def _executable(self) -> str | None:
        """The browser to start; None if the user opens the page.

        Raises:
            UserError: no browser is installed.
        """
        if self.config.opened_by == "user":
            return None
        wanted = CHROMIUMS if self.config.browser is None else (self.config.browser,)
        found = next(filter(None, map(shutil.which, wanted)), None)
        if found is None:
            raise UserError(
                "no browser to start",
                expected=f"one of {', '.join(wanted)} on the PATH",
                where=f"device {self.device.name}",
                fix="install chromium, name it as `browser` in the file of the device, or set"
                " `opened_by: user` there and open the page yourself",
            )
        return os.path.abspath(found)


def _token_file() -> Path:
    """File of the secret part of the page's address; it never changes, so open pages stay valid."""
    folder = cache_folder() / "web"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / "token"
