"""examples/serve on loopback: answers, batching, health, limits, an end in order."""

from __future__ import annotations

import http.client
import importlib.util
import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tests.bundles import LOGITS, colour_bundle, colour_images, run_kit

SERVE = Path(__file__).resolve().parents[2] / "examples" / "serve" / "serve.py"
N = 6


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
        process.wait(timeout=60)


def request(port: int, method: str, path: str, body: bytes | None = None) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def ppm(pixels: np.ndarray) -> bytes:
    return b"P6 %d %d 255\n" % pixels.shape[1::-1] + pixels.tobytes()


def test_images_that_arrive_together_run_together_and_are_answered_as_by_the_kit(bundle: Path):
    images, labels = colour_images(N)
    # The first image waits long for others; the batch is full, and runs, when all N are there.
    with server(bundle, "--max-batch", str(N), "--max-wait-ms", "60000") as (port, process):
        status, health = request(port, "GET", "/health")
        assert status == 200 and health["status"] == "ok" and health["images"] == 0
        assert health["bundle"] == "winner" and health["model"] == "models/fp32.onnx"
        with ThreadPoolExecutor(N) as pool:
            send = lambda image: request(port, "POST", "/classify?top=1", ppm(image))  # noqa: E731
            answers = list(pool.map(send, images))
        assert [status for status, _ in answers] == [200] * N
        _, health = request(port, "GET", "/health")
        assert (health["images"], health["batches"], health["largest_batch"]) == (N, 1, N)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
    found = [answer["classes"][0] for _, answer in answers]
    assert [one["name"] for one in found] == [("red", "green", "blue")[label] for label in labels]
    said = run_kit(bundle, "ort_run.py", *sorted((bundle / "samples").iterdir()), "--top", "1")
    expected = [line.rpartition(": ")[2] for line in said.stdout.splitlines()]
    assert [f"{one['name']} {one['probability']:.1%}" for one in found] == expected


def test_what_it_refuses_and_that_it_goes_on(bundle: Path):
    image = ppm(colour_images(1)[0][0])
    with server(bundle, "--max-wait-ms", "0") as (port, _):
        cases = [
            ("GET", "/", None, 404, "/classify"),
            ("POST", "/elsewhere", image, 404, "/classify"),
            ("POST", "/classify?top=0", image, 404, "/classify"),
            ("POST", "/classify", b"P6 9 9", 400, "cannot read"),
            ("POST", "/classify", b"", 400, "cannot read"),
            ("POST", "/classify", ppm(np.zeros((3, 5, 3), np.uint8))[:-1], 400, "cannot read"),
        ]
        for method, path, body, expected, word in cases:
            status, answer = request(port, method, path, body)
            assert status == expected and word in answer["error"], (path, body)
        head = "POST /classify HTTP/1.1\r\nHost: x\r\n"
        for length, expected in (("", b" 411 "), ("Content-Length: 99999999999\r\n", b" 413 ")):
            with socket.create_connection(("127.0.0.1", port), timeout=60) as raw:
                raw.sendall(f"{head}{length}\r\n".encode())
                assert expected in raw.recv(100)
        status, answer = request(port, "POST", "/classify", image)
        assert status == 200 and len(answer["classes"]) == 3
        assert sum(one["probability"] for one in answer["classes"]) == pytest.approx(1)


@pytest.fixture
def blocked(bundle: Path) -> Iterator[tuple[ModuleType, Any, threading.Event]]:
    """The module, and a classifier in this process whose runs wait for the event."""
    spec = importlib.util.spec_from_file_location("serve_example", SERVE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    path = list(sys.path)
    classifier = module.Classifier(bundle, max_batch=1, max_wait_ms=0, max_queue=1)
    sys.path[:] = path
    predict, go_on = classifier._predict, threading.Event()

    def waiting(x: np.ndarray) -> Any:
        assert go_on.wait(60)
        return predict(x)

    classifier._predict = waiting
    yield module, classifier, go_on
    go_on.set()
    classifier.close()


def until_taken(classifier: Any) -> None:
    """Wait until the worker has taken what was queued."""
    deadline = time.monotonic() + 60
    while not classifier._queue.empty():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_more_than_fits_into_the_queue_is_told_to_come_again(blocked):
    module, classifier, go_on = blocked
    images, labels = colour_images(2)
    server = module.serve(classifier, "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        first = classifier.submit(ppm(images[0]))
        until_taken(classifier)
        second = classifier.submit(ppm(images[1]))
        status, answer = request(server.server_port, "POST", "/classify", ppm(images[0]))
        assert status == 503 and "too many" in answer["error"]
        go_on.set()
        found = [int(future.result(timeout=60).argmax()) for future in (first, second)]
        assert found == list(labels)
        assert request(server.server_port, "POST", "/classify", ppm(images[0]))[0] == 200
        classifier._predict = lambda x: 1 / 0
        status, answer = request(server.server_port, "POST", "/classify", ppm(images[0]))
        assert status == 500 and "division" in answer["error"]
        assert request(server.server_port, "GET", "/health")[0] == 200
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_what_is_queued_is_answered_before_the_end_and_nothing_is_taken_after(blocked):
    module, classifier, go_on = blocked
    image = ppm(colour_images(1)[0][0])
    first = classifier.submit(image)
    until_taken(classifier)
    second = classifier.submit(image)
    ending = threading.Thread(target=classifier.close)
    ending.start()
    go_on.set()
    ending.join()
    assert first.result(timeout=0).argmax() == second.result(timeout=0).argmax() == 0
    assert classifier.health()["status"] == "stopping"
    with pytest.raises(module.Busy):
        classifier.submit(image)


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
