"""An imitation of the page that times models in a browser: it answers at once, with known times."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from hwnas.core.web_runtimes import RUNTIMES, WebRuntime

BROWSER = {
    "browser": "Imitation 1.0",
    "system": "Linux",
    "device": "browser",
    "machine": "x86 64",
    "n_cpus": 2,
}
TOKEN = "a" * 32


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def web_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with a known token, and with empty files in place of every runtime for browsers."""
    monkeypatch.setenv("HWNAS_CACHE", str(folder))
    imitate_runtimes(folder)
    (folder / "web" / "token").write_text(TOKEN)
    return folder / "web"


def imitate_runtimes(cache: Path) -> None:
    """Writes small files in place of every runtime for browsers."""
    for runtime in RUNTIMES.values():
        place = cache / "web" / folder_name(runtime)
        place.mkdir(parents=True)
        for name in runtime.files:
            (place / name).write_text(f"// {name}")


def folder_name(runtime: WebRuntime) -> str:
    main = runtime.packages[0]
    return f"{main.name.removeprefix('@').replace('/', '-')}-{main.version}-{runtime.digest}"


@dataclass
class Page:
    """Plays the page at a port; `ns`: true time of a run by index of the model.

    stop_after: closes after so many messages with turns (None: never), without a farewell.
    trusted: the certificate of the server, which speaks https.
    """

    port: int
    ns: Any = lambda index: 1000 * (index + 1)
    tab: str = "one"
    token: str = TOKEN
    stop_after: int | None = None
    facts: dict[str, Any] = field(default_factory=lambda: dict(BROWSER))
    plan: dict[str, Any] = field(default_factory=dict)
    taken: list[tuple[int, int]] = field(default_factory=list)
    is_closed: bool = False
    trusted: Path | None = None
    refusals: list[tuple[int, str]] = field(default_factory=list)

    def request(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, bytes, dict[str, str]]:
        """Status, content and headers of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        if self.trusted is not None:
            context = ssl.create_default_context(cafile=self.trusted)
            connection = http.client.HTTPSConnection(
                "127.0.0.1", self.port, timeout=20, context=context
            )
        with contextlib.closing(connection):
            connection.request(
                method, path, body, {k.replace("_", "-"): v for k, v in headers.items()}
            )
            answer = connection.getresponse()
            return answer.status, answer.read(), dict(answer.getheaders())

    def send(self, name: str, **message: Any) -> tuple[int, dict[str, Any]]:
        """Status and answer of a message."""
        whole = {"tab": self.tab, "plan_hash": self.plan.get("plan_hash"), **message}
        status, content, _ = self.request(
            "POST", f"/{self.token}/{name}", json.dumps(whole).encode()
        )
        return status, json.loads(content)

    def hello(self) -> tuple[int, dict[str, Any]]:
        """Begins, and waits until somebody answers."""
        for _ in range(400):
            if self.is_closed:
                return 0, {"refused": "closed"}
            with contextlib.suppress(OSError):
                status, answer = self.send("hello", **self.facts)
                if status == 200:
                    self.plan = answer
                return status, answer
            time.sleep(0.025)
        raise AssertionError("nobody serves the page")

    def load(self) -> None:
        """Fetches all models."""
        for n in range(len(self.plan["names"])):
            status, content, _ = self.request("GET", f"/{self.token}/models/{n}")
            assert status == 200 and content
            assert self.send("loaded", n=n + 1)[0] == 200

    def turn(self, order: list[int]) -> list[int]:
        """A turn as the page takes it."""
        number, index = order
        ns = self.ns(index if index >= 0 else self.plan["reference"])
        return [number, index, 3 * ns, *([ns] * self.plan["hot_samples"])]

    def play(self) -> None:
        """Plays the page until the plan is done, or `stop_after`."""
        status, answer = self.hello()
        if status != 200:
            self.refusals.append((status, answer["refused"]))
            return
        self.load()
        message: dict[str, Any] = {"seconds": 0.0, "turns": []}
        while not self.plan["only_try"]:
            if self.stop_after == 0:
                return
            self.stop_after = None if self.stop_after is None else self.stop_after - 1
            status, answer = self.send("turns", **message)
            assert status == 200, answer
            if answer["is_done"]:
                return
            turns = [self.turn(order) for order in answer["orders"]]
            self.taken += [(turn[0], turn[1]) for turn in turns]
            message = {"seconds": 0.0, "turns": turns}


@contextlib.contextmanager
def playing(page: Page) -> Iterator[Page]:
    """Plays a page in a thread, and waits for its end."""
    problems: list[BaseException] = []

    def play() -> None:
        try:
            page.play()
        except BaseException as error:
            problems.append(error)

    thread = threading.Thread(target=play, daemon=True)
    thread.start()
    try:
        yield page
    finally:
        page.is_closed = True
    thread.join(20)
    assert not thread.is_alive() and not problems, problems
