"""A browser as a device: the protocol with an imitated page, and what a page cannot do."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hwnas.core.config import build_model
from hwnas.core.errors import UserError
from hwnas.core.progress import silent
from hwnas.core.resources import kit_module
from hwnas.core.store import read_jsonl
from hwnas.devices import browser
from hwnas.devices.spec import load_device
from hwnas.interfaces import DeviceSpec, ReachedTransport, Transport, TryingTransport
from hwnas.latency.plan import Plan, write_plan
from hwnas.latency.samples import read_samples
from hwnas.latency.sections import ProfileConfig
from tests.pages import TOKEN, Page, folder_name, free_port, playing, web_cache

DEVICE = DeviceSpec("phone", runtime="litert", provider="cpu", transport="browser")
CONFIG = ProfileConfig(rounds=6, min_rounds=2, hot_samples=4, target_error=0.0)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return web_cache(tmp_path / "cache", monkeypatch)


@pytest.fixture
def port() -> int:
    return free_port()


def plan_in(folder: Path, n: int = 3, **changes: Any) -> Plan:
    models = {f"m{i}": b"model %d" % i for i in range(n)}
    return write_plan(models, DEVICE, folder, CONFIG.model_copy(update=changes), seed=0)


def transport(port: int, **settings: Any) -> Transport:
    given = {"opened_by": "user", "port": port, "wait_s": 20.0, **settings}
    return browser.build(build_model(browser.Config, given, where="test"), DEVICE)


def timed(port: int, plan: Plan, **settings: Any) -> None:
    transport(port, **settings).run_bench(plan.path, plan.results, progress=silent)


class Serving:
    """A kit that serves a plan in a thread, while a test talks to it."""

    def __init__(self, port: int, plan: Plan, **settings: Any) -> None:
        self.problem: BaseException | None = None
        self.thread = threading.Thread(target=self._serve, args=(port, plan, settings), daemon=True)
        self.thread.start()

    def _serve(self, port: int, plan: Plan, settings: dict[str, Any]) -> None:
        try:
            timed(port, plan, **settings)
        except BaseException as error:
            self.problem = error

    def end(self) -> BaseException | None:
        self.thread.join(20)
        assert not self.thread.is_alive()
        return self.problem


def certificate_in(folder: Path) -> tuple[Path, Path]:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate")
    certificate, key = folder / "cert.pem", folder / "key.pem"
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    make += ["-nodes", "-keyout", str(key), "-out", str(certificate), "-days", "2"]
    make += ["-subj", "/CN=here", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(make, check=True, capture_output=True)
    return certificate, key


def turns(plan: Plan) -> list[tuple[int, int]]:
    return [
        (turn[0], turn[1]) for line in read_jsonl(plan.results) for turn in line.get("turns", ())
    ]


def test_a_page_times_a_plan_by_the_protocol_of_the_kit(port: int, tmp_path: Path) -> None:
    """Same rounds, extra turns of the reference, header and file as from a kit on a board."""
    plan = plan_in(tmp_path)
    with playing(Page(port)) as page:
        timed(port, plan)
    samples = read_samples(plan)
    assert {name: t.median_ms for name, t in samples.timings().items()} == pytest.approx(
        {"m0": 0.001, "m1": 0.002, "m2": 0.003}
    )
    assert {name: t.cold_ms for name, t in samples.timings().items()} == pytest.approx(
        {"m0": 0.003, "m1": 0.006, "m2": 0.009}
    )
    assert sorted(turns(plan)) == sorted((r, i) for r in range(6) for i in (-1, 0, 1, 2))
    orders = {tuple(i for r, i in page.taken if r == n) for n in range(6)}
    assert len(orders) > 1, "rounds have different orders"
    header = read_jsonl(plan.results)[0]
    assert header["runtime_version"] == "@litertjs/core 2.5.3 in Imitation 1.0"
    assert header["interrupted_runs"] == "dropped"
    assert header["host"]["cpu"] == "browser (Linux)" and header["host"]["n_cpus"] == 2
    before = plan.results.read_bytes()
    timed(port, plan)  # nothing is missing, so no page is needed
    assert plan.results.read_bytes() == before


def test_the_reference_shows_the_drift_of_a_page(port: int, tmp_path: Path) -> None:
    """A page that slows down by half is corrected, and a warning says so."""
    plan, page = plan_in(tmp_path, n=12, rounds=12), Page(port)
    page.ns = lambda index: 1000 * (index + 1) * (2 if len(page.taken) > 78 else 1)
    with playing(page):
        timed(port, plan)
    samples = read_samples(plan)
    assert any("slower" in text for text in samples.warnings)
    timings = [t.median_ms for t in samples.timings().values()]
    assert [ms / timings[0] for ms in timings] == pytest.approx(range(1, 13), rel=0.01)


def test_results_match_the_schema_of_the_kit(port: int, tmp_path: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((Path(__file__).parents[2] / "export/results.schema.json").read_text())
    plan = plan_in(tmp_path)
    with playing(Page(port)):
        timed(port, plan)
    for line in read_jsonl(plan.results):
        jsonschema.validate(line, schema)


def test_a_page_that_is_closed_half_way_costs_nothing(port: int, tmp_path: Path) -> None:
    """After a reload, another page takes exactly the turns that are missing."""
    plan = plan_in(tmp_path)
    first = Page(port, tab="one", stop_after=3)
    serving = Serving(port, plan)
    first.play()
    assert first.send("bye")[0] == 200
    second = Page(port, tab="two")
    second.play()
    assert serving.end() is None
    found = turns(plan)
    assert len(found) == len(set(found)) == 24
    assert set(first.taken) < set(found) and set(second.taken) < set(found)


def test_a_page_that_becomes_silent_is_reported(
    port: int,
    tmp_path: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With the address to open again, long before the command gives up."""
    kit, plan = kit_module("web_bench"), plan_in(tmp_path)
    assert kit.QUIET_S <= 20 < kit.WAIT_S
    monkeypatch.setattr(kit, "QUIET_S", 0.2)
    monkeypatch.setattr(kit, "LOOK_S", 0.02)
    given = [str(plan.path), "--out", str(plan.results), "--port", str(port)]
    given += ["--runtime", str(tmp_path), "--token", str(cache / "token")]
    serving = threading.Thread(target=kit.main, args=(given,), daemon=True)
    serving.start()
    said, url = "", f"http://127.0.0.1:{port}/{TOKEN}/"

    def hear(text: str) -> None:
        nonlocal said
        for _ in range(1000):
            said += capsys.readouterr().err
            if text in said:
                return
            time.sleep(0.02)
        pytest.fail(f"not said: {text}, but {said}")

    hear(f"bench.py: note: open {url} in the browser, within 600 s; ")
    hear(f"`adb reverse tcp:{port} tcp:{port}`")
    time.sleep(0.3)
    Page(port, tab="one", stop_after=3).play()
    hear(
        f"bring it to the front, or open {url}; the samples are kept, and this command waits 600 s"
    )
    assert said.count("silent") == 1, "nothing is silent before a page was there"
    Page(port, tab="one").play()
    hear("bench.py: note: a page is back")
    serving.join(20)
    assert not serving.is_alive() and len(turns(plan)) == 24


def test_an_interrupted_command_resumes(port: int, tmp_path: Path) -> None:
    """No page for long enough is an error; its samples are kept."""
    plan, first = plan_in(tmp_path), Page(port, stop_after=3)
    serving = Serving(port, plan, wait_s=0.5)
    first.play()
    problem = serving.end()
    assert isinstance(problem, UserError) and "the same command resumes" in str(problem)
    kept = turns(plan)
    assert len(kept) == 8
    with playing(Page(port)) as second:
        timed(port, plan)
    assert not set(second.taken) & set(kept)
    assert len(turns(plan)) == len(set(turns(plan))) == 24


def test_only_one_tab_times(port: int, tmp_path: Path) -> None:
    plan = plan_in(tmp_path)
    serving = Serving(port, plan)
    one, two = Page(port, tab="one"), Page(port, tab="two")
    assert one.hello()[0] == 200
    status, answer = two.hello()
    assert status == 409 and "another tab" in answer["refused"]
    two.plan = one.plan  # it insists
    assert two.send("turns", seconds=0.0, turns=[])[0] == 409
    assert two.send("failed", message="stop")[0] == 409
    assert two.send("bye")[0] == 409
    one.play()
    assert serving.end() is None


def test_a_page_of_another_plan_is_refused(port: int, tmp_path: Path) -> None:
    """For example a tab that was left open."""
    plan = plan_in(tmp_path)
    serving, page = Serving(port, plan), Page(port)
    page.hello()
    page.plan = {**page.plan, "plan_hash": "0" * 16}
    status, answer = page.send("turns", seconds=0.0, turns=[])
    assert status == 409 and "another plan" in answer["refused"]
    assert turns(plan) == []
    page.play()
    assert serving.end() is None


def test_another_browser_does_not_continue_the_samples(port: int, tmp_path: Path) -> None:
    plan = plan_in(tmp_path)
    serving = Serving(port, plan, wait_s=0.5)
    Page(port, stop_after=3).play()
    serving.end()
    other = Page(port)
    other.facts["browser"] = "Another 7"
    serving = Serving(port, plan)
    other.play()
    assert other.refusals[0][0] == 500
    assert "another runtime version" in str(serving.end())


BAD_TURNS: dict[str, Callable[[list[list[int]]], Any]] = {
    "not asked for": lambda orders: [[5, 0, 1, 1, 1]],
    "another order": lambda orders: [[*order, 9, 9, 9] for order in orders[::-1]],
    "too many": lambda orders: [[*order, 9, 9, 9] for order in [*orders, orders[0]]],
    "too few samples": lambda orders: [[*orders[0], 9, 9]],
    "too many samples": lambda orders: [[*orders[0], *([9] * 6)]],
    "no time": lambda orders: [[*orders[0], 9, 0, 9]],
    "negative": lambda orders: [[*orders[0], 9, -9, 9]],
    "not whole": lambda orders: [[*orders[0], 9, 9.5, 9]],
    "a truth value": lambda orders: [[*orders[0], 9, True, 9]],
    "hours": lambda orders: [[*orders[0], 9, 10**14, 9]],
    "a text": lambda orders: [[*orders[0], "9", 9, 9]],
    "no list": lambda orders: {"0": 1},
    "nothing": lambda orders: None,
}


def test_untrue_turns_are_refused_and_not_written(port: int, tmp_path: Path) -> None:
    plan = plan_in(tmp_path)
    serving, page = Serving(port, plan), Page(port)
    page.hello()
    orders = page.send("turns", seconds=0.0, turns=[])[1]["orders"]
    before = plan.results.read_bytes()
    for name, bad in BAD_TURNS.items():
        status, answer = page.send("turns", seconds=0.0, turns=bad(orders))
        assert status == 400 and answer["refused"], name
    good = [page.turn(order) for order in orders]
    for seconds in (-1.0, 1e9, None, True, "1"):
        assert page.send("turns", seconds=seconds, turns=good)[0] == 400, seconds
    assert plan.results.read_bytes() == before
    page.play()
    assert serving.end() is None


def test_a_stranger_gets_nothing(port: int, tmp_path: Path) -> None:
    """Without the token, from another site, or by another name of this machine."""
    plan = plan_in(tmp_path)
    serving, page = Serving(port, plan), Page(port)
    page.hello()
    ask = page.request
    assert ask("GET", f"/{TOKEN}/bench.html")[0] == 200
    for path in ("/", "/bench.html", f"/{TOKEN[:-1]}b/bench.html", f"/{TOKEN}"):
        assert ask("GET", path)[0] in (403, 404) or path == f"/{TOKEN}", path
    assert ask("GET", f"/{TOKEN}/bench.html", Host=f"evil.example:{port}")[0] == 403
    assert ask("GET", f"/{TOKEN}/bench.html", Host=f"localhost:{port}")[0] == 200
    body = json.dumps({"tab": "x"}).encode()
    assert ask("POST", f"/{TOKEN}/bye", body, Origin="http://evil.example")[0] == 403
    assert ask("POST", f"/{TOKEN}/bye", body, Origin=f"http://127.0.0.1:{port}")[0] == 409
    page.play()
    assert serving.end() is None


def test_no_path_of_a_page_reaches_the_disk(port: int, tmp_path: Path) -> None:
    plan = plan_in(tmp_path)
    (tmp_path / "secret").write_text("secret")
    serving, page = Serving(port, plan), Page(port)
    page.hello()
    for path in (
        *("../secret", "models/../../secret", "models/%2e%2e/secret", "models/99", "models/-1"),
        *("runtime/../../token", "runtime//etc/passwd", "/etc/passwd", "plan.json", "models/m0"),
    ):
        status, content, _ = page.request("GET", f"/{TOKEN}/{path}")
        assert status == 404 and b"secret" not in content, path
    page.play()
    assert serving.end() is None


def test_messages_are_limited(port: int, tmp_path: Path) -> None:
    plan = plan_in(tmp_path)
    serving, page = Serving(port, plan), Page(port)
    page.hello()
    ask = page.request
    assert ask("POST", f"/{TOKEN}/hello", b"x", Content_Length=str(1 << 30))[0] == 413
    assert ask("POST", f"/{TOKEN}/hello", b"x", Content_Length="-1")[0] == 411
    assert ask("POST", f"/{TOKEN}/nonsense", b"{}")[0] == 404
    for body in (b"", b"[]", b"{", b'{"tab": NaN}', b'{"a": 1, "a": 2}', b"[" * 100_000, b"\xff"):
        assert ask("POST", f"/{TOKEN}/hello", body)[0] == 400, body[:20]
    for fact in BROWSER_FACTS:
        status, _ = Page(port, tab=page.tab, facts={**page.facts, fact: ["x"]}).hello()
        assert status == 400, fact
    page.play()
    assert serving.end() is None


BROWSER_FACTS = ("browser", "system", "device", "machine", "n_cpus")


def test_texts_of_a_page_cannot_disturb_a_terminal(port: int, tmp_path: Path) -> None:
    plan, page = plan_in(tmp_path), Page(port)
    page.facts["device"] = "Pixel\x1b[2J\n9" + "x" * 1000
    with playing(page):
        timed(port, plan)
    read_samples(plan)
    cpu = read_jsonl(plan.results)[0]["cpu"]
    assert cpu.startswith("Pixel [2J 9x") and len(cpu) < 100 and cpu.isprintable()


def test_a_problem_in_the_page_is_explained(port: int, tmp_path: Path) -> None:
    plan = plan_in(tmp_path)
    serving, page = Serving(port, plan), Page(port)
    page.hello()
    page.send("failed", message="litert cannot run m0.tflite: \x1b[31mno memory")
    problem = serving.end()
    assert isinstance(problem, UserError)
    assert "in the browser: litert cannot run m0.tflite:  [31mno memory" in str(problem)


def test_answers_isolate_the_page(port: int, tmp_path: Path) -> None:
    """Isolation makes its clock precise; nothing from elsewhere is loaded, and nothing cached."""
    plan = plan_in(tmp_path)
    serving, page = Serving(port, plan), Page(port)
    page.hello()
    _, content, headers = page.request("GET", f"/{TOKEN}/")
    assert b"bench.js" in content
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert headers["Referrer-Policy"] == "no-referrer"
    assert page.request("GET", f"/{TOKEN}/litert.js")[1] == b"// litert.js"
    page.play()
    assert serving.end() is None


def test_models_are_tried_in_the_page(port: int, tmp_path: Path) -> None:
    plan, trying = plan_in(tmp_path), transport(port)
    assert isinstance(trying, TryingTransport)
    with playing(Page(port)) as page:
        trying.try_out(plan.path)
    assert page.plan["only_try"] and not plan.results.exists()


def test_an_address_that_others_reach_needs_a_certificate() -> None:
    with pytest.raises(
        UserError, match=r"`certificate`, or the address 127.0.0.1 .*192.168.1.5 without"
    ):
        transport(0, address="192.168.1.5")
    transport(0, address="192.168.1.5", certificate="cert.pem", key="key.pem")


def test_with_a_certificate_the_page_uses_https(port: int, tmp_path: Path) -> None:
    certificate, key = certificate_in(tmp_path)
    plan = plan_in(tmp_path / "plan")
    with playing(Page(port, trusted=certificate)):
        timed(port, plan, certificate=str(certificate), key=str(key))
    assert len(turns(plan)) == 24
    with pytest.raises(UserError, match="no certificate"):
        timed(port, plan_in(tmp_path / "b"), certificate=str(certificate), key=str(tmp_path))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"provider": "gpu"}, "no gpu"),
        ({"threads": 4}, "one thread"),
    ],
)
def test_plans_that_no_page_runs_are_refused(
    port: int, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    device = DeviceSpec(**{**DEVICE.__dict__, **changes})
    plan = write_plan({"m": b"m"}, device, tmp_path, CONFIG, seed=0)
    with pytest.raises(UserError, match=said):
        timed(port, plan)


def test_a_missing_runtime_names_the_way_to_it(cache: Path) -> None:
    from hwnas.core.web_runtimes import RUNTIMES

    reached = transport(0)
    assert isinstance(reached, ReachedTransport)
    reached.check()
    folder = cache / folder_name(RUNTIMES["litert"])
    folder.rename(folder.with_name("away"))
    with pytest.raises(UserError, match="--fetch") as caught:
        reached.check()
    assert "npm pack @litertjs/core@2.5.3 @litertjs/wasm-utils@2.5.3" in str(caught.value)


def test_a_missing_browser_names_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.devnull)
    reached = transport(0, opened_by="hwnas")
    assert isinstance(reached, ReachedTransport)
    with pytest.raises(UserError, match="opened_by: user"):
        reached.check()


def test_a_browser_that_ends_is_reported(port: int, tmp_path: Path) -> None:
    script = tmp_path / "browser"
    script.write_text("#!/bin/sh\necho no display >&2\nexit 3\n")
    script.chmod(0o755)
    with pytest.raises(UserError, match="status 3: no display"):
        timed(port, plan_in(tmp_path / "plan"), opened_by="hwnas", browser=str(script))


def test_a_port_that_is_taken_is_reported(port: int, tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        with pytest.raises(UserError, match="`port` or `address` under `transport`"):
            timed(port, plan_in(tmp_path))


def test_the_shipped_device_is_a_browser() -> None:
    device = load_device("browser")
    assert (device.runtime, device.provider, device.transport) == ("litert", "cpu", "browser")


def test_the_token_is_random_and_private(cache: Path, port: int, tmp_path: Path) -> None:
    (cache / "token").unlink()
    serving = Serving(port, plan_in(tmp_path), wait_s=0.3)
    serving.end()
    token = (cache / "token").read_text()
    assert len(token) >= 32 and (cache / "token").stat().st_mode & 0o077 == 0
    (cache / "token").write_text("../..")
    serving = Serving(port, plan_in(tmp_path), wait_s=0.3)
    assert "delete it" in str(serving.end())


@pytest.mark.parametrize("content", [b"\xff" * 40, "é".encode() * 40, b"", b"a\n" * 40])
def test_a_file_without_a_token_is_named(
    content: bytes, cache: Path, port: int, tmp_path: Path
) -> None:
    (cache / "token").write_bytes(content)
    with pytest.raises(UserError, match=r"web_bench.py: .*token; delete it"):
        timed(port, plan_in(tmp_path), wait_s=0.3)


def test_bad_certificates_are_named(port: int, tmp_path: Path) -> None:
    plan, (certificate, key) = plan_in(tmp_path / "plan"), certificate_in(tmp_path)
    (tmp_path / "garbage.pem").write_bytes(b"\xff\0" * 99)
    for given in (
        {"certificate": tmp_path / "missing.pem", "key": key},
        {"certificate": tmp_path / "garbage.pem", "key": key},
        {"certificate": key, "key": certificate},
        {"certificate": certificate},
    ):
        with pytest.raises(UserError, match="no certificate with its key") as caught:
            timed(port, plan, wait_s=0.3, **{name: str(path) for name, path in given.items()})
        assert str(given["certificate"]) in str(caught.value)
    with pytest.raises(UserError, match="expected `certificate`, because `key` is given"):
        transport(port, key=str(key))


@pytest.mark.parametrize("address", ["", "-x", "::1", "a b", "[::1]"])
def test_an_address_is_one_of_a_machine(address: str) -> None:
    with pytest.raises(UserError, match="address"):
        transport(0, address=address, certificate="cert.pem", key="key.pem")


@pytest.mark.parametrize("address", ["0.0.0.0", "0", "a..b"])
def test_an_address_that_no_page_has_is_refused(address: str, port: int, tmp_path: Path) -> None:
    certificate, key = certificate_in(tmp_path)
    given = {"address": address, "certificate": str(certificate), "key": str(key), "wait_s": 0.3}
    with pytest.raises(UserError, match=r"web_bench.py: (no page has|cannot serve)"):
        timed(port, plan_in(tmp_path / "plan"), **given)


@pytest.mark.parametrize(
    ("port", "is_safe", "own"),
    [
        (443, True, ("laptop.local", "laptop.local:443", "Laptop.local", "localhost")),
        (80, False, ("laptop.local", "127.0.0.1")),
        (8421, False, ("laptop.local:8421", "LOCALHOST:8421")),
    ],
)
def test_own_names_are_those_that_browsers_send(
    port: int, is_safe: bool, own: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In small letters, and without the usual port."""
    module = kit_module("web_server")
    monkeypatch.setattr(module.ThreadingHTTPServer, "__init__", lambda *_: None)
    monkeypatch.setattr(module.Server, "server_address", ("10.0.0.2", port), raising=False)
    monkeypatch.setattr(module.Server, "socket", None, raising=False)
    context = SimpleNamespace(wrap_socket=lambda plain, **_: plain) if is_safe else None
    server = module.Server("Laptop.local", port, TOKEN, {}, {}, context)
    for host in ("evil.example", f"evil.example:{port}", "laptop.local:1", "", *own):
        page = SimpleNamespace(server=server, headers={"Host": host}, path=f"/{TOKEN}/x")
        if host in own:
            assert module.Handler._route(page) == "x", host
        else:
            with pytest.raises(module.Refused):
                module.Handler._route(page)


@pytest.mark.parametrize("option", ["--port=99999", "--port=-1", "--wait-s=nan", "--wait-s=-1"])
def test_numbers_of_the_kit_are_checked(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["plan.json", "--out", str(tmp_path / "r"), "--runtime", str(tmp_path), option]
    with pytest.raises(SystemExit):
        kit_module("web_bench").main(given)
    assert "--port is 0 to 65535" in capsys.readouterr().err


def test_a_page_that_asks_on_adds_nothing(port: int, tmp_path: Path) -> None:
    plan, page = plan_in(tmp_path), Page(port)
    serving = Serving(port, plan)
    page.play()
    before = plan.results.read_bytes()
    for _ in range(20):
        assert page.send("turns", seconds=0.0, turns=[]) == (200, {"is_done": True, "orders": []})
    assert serving.end() is None and plan.results.read_bytes() == before


def test_a_page_in_the_background_is_reported(port: int, tmp_path: Path) -> None:
    plan, page, notes = plan_in(tmp_path), Page(port), []
    reported = threading.Event()

    def progress(done: int, total: int, note: str = "") -> None:
        notes.append(note)
        reported.set()

    def play() -> None:
        page.hello()
        page.send("alive")
        reported.wait(20)
        page.play()

    thread = threading.Thread(target=play, daemon=True)
    thread.start()
    transport(port).run_bench(plan.path, plan.results, progress=progress)
    thread.join(20)
    assert notes[0] == "waiting for the page to come to the front"


def test_a_browser_that_still_writes_hides_no_problem(
    port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process of the browser that outlives it can make its folder impossible to remove."""

    def refuse(*_: object, **options: bool) -> None:
        assert options["ignore_errors"]

    kit = kit_module("web_bench")
    monkeypatch.setattr(kit.shutil, "rmtree", refuse)
    monkeypatch.setattr(kit.tempfile, "tempdir", str(tmp_path))
    given = [str(plan_in(tmp_path / "plan").path), "--out", str(tmp_path / "r"), "--port", "0"]
    given += ["--runtime", str(tmp_path), "--browser", shutil.which("false") or "", "--wait-s", "9"]
    assert kit.main(given) == 1
