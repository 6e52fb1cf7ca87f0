"""examples/serve on loopback: answers, batching, limits, load, slow senders, an end in order."""

from __future__ import annotations

import asyncio
import http.client
import importlib.util
import io
import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.bundles import LOGITS, colour_bundle, colour_images, run_kit

pytest.importorskip("fastapi", reason="pip install 'hwnas[serve]'")
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "serve"
SERVE = EXAMPLE / "serve.py"
N = 6
LIMITS = ("--max-bytes", "20000", "--max-pixels", "10000", "--idle-s", "1", "--upload-s", "2")


def module(name: str) -> ModuleType:
    """A module of the example, in this process."""
    path = list(sys.path)
    sys.path.insert(0, str(EXAMPLE))
    try:
        return importlib.import_module(name)
    finally:
        sys.path[:] = path


load = module("load")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("serve") / "winner"
    colour_bundle(folder)
    return folder


@contextmanager
def server(bundle: Path, *arguments: str) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    command = [sys.executable, str(SERVE), "--bundle", str(bundle), "--port", "0", *arguments]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd="/"
    )
    try:
        assert process.stdout is not None and process.stderr is not None
        line = process.stdout.readline()
        assert line.startswith("serving "), process.stderr.read()
        yield int(line.rpartition(":")[2]), process
    finally:
        process.kill()
        process.communicate(timeout=60)


@pytest.fixture(scope="module")
def port(bundle: Path) -> Iterator[int]:
    """Of a server with narrow limits, which nothing that these tests do may end."""
    with server(bundle, "--max-wait-ms", "0", *LIMITS) as (port, process):
        yield port
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0 and "Traceback" not in err, err


def request(
    port: int, method: str, path: str, body: Any = None, type: str = load.TYPE
) -> tuple[int, Any]:
    """Status and answer, JSON read."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, body, {"Content-Type": type} if body else {})
        response = connection.getresponse()
        text = response.read()
        is_json = response.headers["Content-Type"] == "application/json"
        return response.status, json.loads(text) if is_json else text.decode()
    finally:
        connection.close()


def classify(port: int, image: bytes, query: str = "") -> tuple[int, Any]:
    return request(port, "POST", f"/classify{query}", load.body_of(image))


def ppm(pixels: np.ndarray) -> bytes:
    return b"P6 %d %d 255\n" % pixels.shape[1::-1] + pixels.tobytes()


RED = ppm(colour_images(1)[0][0])


def png(width: int, height: int) -> bytes:
    stream = io.BytesIO()
    Image.new("1", (width, height)).save(stream, "PNG")
    return stream.getvalue()


def test_images_that_arrive_together_run_together_and_are_answered_as_by_the_kit(bundle: Path):
    images, labels = colour_images(N)
    # The first image waits long for others; the batch is full, and runs, when all N are there.
    with server(bundle, "--max-batch", str(N), "--max-wait-ms", "60000") as (port, process):
        status, health = request(port, "GET", "/health")
        assert status == 200 and health["status"] == "ok" and health["images"] == 0
        assert health["bundle"] == "winner" and health["model"] == "models/fp32.onnx"
        with ThreadPoolExecutor(N) as pool:
            answers = list(pool.map(lambda image: classify(port, ppm(image), "?top=1"), images))
        assert [status for status, _ in answers] == [200] * N
        _, health = request(port, "GET", "/health")
        assert (health["images"], health["batches"], health["largest_batch"]) == (N, 1, N)
        status, metrics = request(port, "GET", "/metrics")
        assert status == 200
        for line in (
            f'hwnas_requests_total{{status="200"}} {N}',
            f"hwnas_largest_batch {N}",
            "hwnas_requests_in_flight 0",
            f"hwnas_request_seconds_count {N}",
            "hwnas_model_seconds_count 1",
        ):
            assert line in metrics.splitlines()
        # One that waits for others is answered when the server ends.
        with ThreadPoolExecutor(1) as pool:
            last = pool.submit(classify, port, RED)
            wait_for(lambda: request(port, "GET", "/health")[1]["requests"] == 1)
            process.send_signal(signal.SIGTERM)
            assert last.result()[0] == 200
        assert process.wait(timeout=60) == 0
    found = [answer["classes"][0] for _, answer in answers]
    assert [one["name"] for one in found] == [("red", "green", "blue")[label] for label in labels]
    said = run_kit(bundle, "ort_run.py", *sorted((bundle / "samples").iterdir()), "--top", "1")
    expected = [line.rpartition(": ")[2] for line in said.stdout.splitlines()]
    assert [f"{one['name']} {one['probability']:.1%}" for one in found] == expected


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("image", "status", "word"),
    [
        (b"P6 9 9", 400, "cannot read"),
        (b"", 400, "cannot read"),
        (ppm(np.zeros((3, 5, 3), np.uint8))[:-1], 400, "cannot read"),
        (b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'shape': (99999999, 99999)}", 400, "cannot read"),
        (png(101, 100), 413, "10100 pixels"),
        (png(30000, 30000)[:10000], 413, "pixels"),
        (bytes(20001), 413, "at most 20000 bytes"),
        (bytes(40000), 413, "at most 20000 bytes"),
    ],
    ids=["cut head", "empty", "cut", "cut npy", "pixels", "bomb", "bytes", "more bytes"],
)
def test_an_image_that_is_refused(port: int, image: bytes, status: int, word: str):
    found, answer = classify(port, image)
    assert found == status and word in answer["error"]
    found, answer = classify(port, RED)
    assert found == 200 and len(answer["classes"]) == 3
    assert sum(one["probability"] for one in answer["classes"]) == pytest.approx(1)


def test_requests_that_are_refused(port: int):
    form = load.body_of(RED)
    cases = [
        ("GET", "/", None, load.TYPE, 404),
        ("GET", "/classify", None, load.TYPE, 405),
        ("POST", "/elsewhere", form, load.TYPE, 404),
        ("POST", "/classify?top=0", form, load.TYPE, 422),
        ("POST", "/classify?top=%C2%B2", form, load.TYPE, 422),
        ("POST", f"/classify?top={'9' * 5000}", form, load.TYPE, 422),
        ("POST", "/classify", RED, "image/x-portable-pixmap", 400),
        ("POST", "/classify", form, "multipart/form-data", 400),
        ("POST", "/classify", form.replace(b'"image"; ', b'"other"; '), load.TYPE, 400),
        ("POST", "/classify", form.replace(b'; filename="image"', b""), load.TYPE, 400),
        ("POST", "/classify", load.HEAD + form, load.TYPE, 400),  # two files
        ("POST", "/classify", form[: len(form) // 2], load.TYPE, 400),
    ]
    for method, path, body, type, expected in cases:
        status, answer = request(port, method, path, body, type)
        assert status == expected, (path[:30], body, answer)
    chunks = iter([form[:200], *[bytes(10000)] * 5])  # no length is told
    assert request(port, "POST", "/classify", chunks)[0] == 413
    for length in ("²", "9" * 5000, "-1"):
        with socket.create_connection(("127.0.0.1", port), timeout=60) as raw:
            head = f"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n"
            raw.sendall(head.encode())
            assert b" 4" in raw.recv(100)[:13]
    assert classify(port, RED)[0] == 200


@pytest.mark.parametrize("kind", ["length", "chunks", "no image"])
def test_a_client_that_sends_everything_first_gets_the_answer(port: int, kind: str):
    """More than the buffers of the connection hold: a server that closes at once resets it."""
    megabytes = iter([load.HEAD, *[bytes(1_000_000)] * 30])
    body = {"length": load.body_of(bytes(30_000_000)), "chunks": megabytes}.get(kind, megabytes)
    type = "image/png" if kind == "no image" else load.TYPE
    status, answer = request(port, "POST", "/classify", body, type)
    assert status == (400 if kind == "no image" else 413) and answer["error"]
    assert classify(port, RED)[0] == 200


def test_a_refused_upload_without_end_is_cut_off(port: int):
    """The answer comes at once; what is read after it has a limit."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as raw:
        head = f"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: {load.TYPE}\r\n"
        raw.sendall(f"{head}Content-Length: 99999999999\r\n\r\n".encode())
        assert raw.recv(100).startswith(b"HTTP/1.1 413 ")
        with pytest.raises(OSError):
            for _ in range(1000):
                raw.sendall(bytes(1_000_000))


def begun(port: int, path: str = "/classify") -> socket.socket:
    """A connection that has sent the beginning of an upload."""
    raw = socket.create_connection(("127.0.0.1", port), timeout=60)
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {load.TYPE}\r\n"
    raw.sendall(f"{head}Content-Length: 9999\r\n\r\n".encode() + load.HEAD)
    return raw


def test_a_hundred_clients_beside_slow_senders_and_broken_images(port: int, bundle: Path):
    images = [ppm(image) for image in colour_images(N)[0]]
    found = load.run_load("127.0.0.1", port, images, clients=100, requests=3, slow=10, broken=5)
    assert found["statuses"] == {"200": 300, "400": 15} and found["reset"] == 0
    assert found["ms"]["p50"] <= found["ms"]["p90"] <= found["ms"]["p99"]
    wait_for(lambda: request(port, "GET", "/health")[1]["requests"] == 0)  # the slow ones are gone
    assert 'status="500"' not in request(port, "GET", "/metrics")[1]


def test_silent_and_slow_senders_are_told_and_hold_up_nobody(port: int):
    with begun(port) as silent, begun(port) as slow:
        assert classify(port, RED)[0] == 200
        for _ in range(40):  # never silent for a second, but two are over
            time.sleep(0.1)
            try:
                slow.sendall(b"P")
            except OSError:
                break
        assert b" 408 " in silent.recv(100)
        assert b" 408 " in slow.recv(100)


def test_more_than_may_be_under_way_is_told_to_come_again_and_an_end_waits_for_no_sender(
    bundle: Path,
):
    with (
        server(bundle, "--max-requests", "1", "--idle-s", "600", "--upload-s", "600") as (
            port,
            process,
        ),
        begun(port) as raw,
    ):
        wait_for(lambda: request(port, "GET", "/health")[1]["requests"] == 1)
        status, answer = classify(port, RED)
        assert status == 503 and "too many" in answer["error"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
        assert b" 503 " in raw.recv(100)


def test_a_run_that_fails_is_told_to_its_clients_and_ends_nothing():
    async def work() -> None:
        calls = []

        def predict(x: np.ndarray) -> np.ndarray:
            calls.append(len(x))
            if not x.all():
                raise ValueError("a zero")
            return x[:, 0]

        batches = module("batching").Batches(predict, max_batch=2, max_wait_s=0)
        running = asyncio.create_task(batches.run())
        gone = asyncio.create_task(batches.logits(np.ones((3, 4))))
        zero = asyncio.create_task(batches.logits(np.zeros((3, 4))))
        await asyncio.sleep(0)
        gone.cancel()
        with pytest.raises(ValueError, match="a zero"):
            await zero
        found = [batches.logits(np.full((3, 4), i + 1.0)) for i in range(3)]
        assert [row[0] for row in await asyncio.gather(*found)] == [1, 2, 3]
        assert calls == [2, 2, 1]
        running.cancel()

    asyncio.run(work())


def test_it_will_not_serve_a_bundle_that_computes_something_else(bundle: Path, tmp_path: Path):
    colour_bundle(tmp_path / "wrong", golden_output=LOGITS + 0.1)
    shutil.copytree(bundle, tmp_path / "altered")
    (tmp_path / "altered" / "samples" / "00-red.ppm").write_bytes(b"P6")
    cases = (("wrong", "golden outputs"), ("altered", "altered"), ("absent", "no bundle"))
    for name, word in cases:
        command = [sys.executable, str(SERVE), "--bundle", str(tmp_path / name), "--port", "0"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 1 and word in done.stderr, done.stderr
        assert "Traceback" not in done.stderr
