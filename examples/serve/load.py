#!/usr/bin/env python3
"""Load a server with many clients, slow senders and broken images. Standard library and numpy.

    python load.py --port 8000 --bundle BUNDLE --clients 100 --requests 10 --slow 10 --broken 10

Prints JSON: answers by status, number of reset connections, images per second, and percentiles of
latencies in milliseconds: as seen by clients, and of the kit without a server, image by image.
"""

from __future__ import annotations

import argparse
import http.client
import json
import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from batching import Kit

BOUNDARY = "hwnas-load"
HEAD = (
    f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="image"\r\n'
    "Content-Type: application/octet-stream\r\n\r\n"
).encode()
TAIL = f"\r\n--{BOUNDARY}--\r\n".encode()
TYPE = f"multipart/form-data; boundary={BOUNDARY}"


def body_of(image: bytes) -> bytes:
    """A multipart body with the encoded image."""
    return HEAD + image + TAIL


def percentiles(ms: list[float]) -> dict[str, float]:
    """p50, p90 and p99; empty for an empty list."""
    shares = (50, 90, 99) if ms else ()
    return {f"p{share}": round(float(np.percentile(ms, share)), 3) for share in shares}


class Load:
    """Clients of one server, and the answers that they got."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        self.statuses: Counter[int] = Counter()
        self.ms: list[float] = []
        self.n_reset = 0
        self._lock = threading.Lock()

    def client(self, images: list[bytes]) -> None:
        """One connection that sends images one after the other; reopens a closed connection."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=120)
        for image in images:
            start = time.perf_counter()
            try:
                connection.request("POST", "/classify", body_of(image), {"Content-Type": TYPE})
                response = connection.getresponse()
                response.read()
            except (OSError, http.client.HTTPException):
                connection.close()
                with self._lock:
                    self.n_reset += 1
                continue
            spent = 1e3 * (time.perf_counter() - start)
            with self._lock:
                self.statuses[response.status] += 1
                if response.status == 200:
                    self.ms.append(spent)
        connection.close()

    def slow_sender(self, done: threading.Event) -> None:
        """Starts to send an image, then sends single bytes until the other clients are done."""
        head = f"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: {TYPE}\r\n"
        with socket.create_connection((self.host, self.port), timeout=120) as raw:
            raw.sendall(f"{head}Content-Length: 100000\r\n\r\n".encode() + HEAD)
            while not done.wait(0.2):
                try:
                    raw.sendall(b"P")
                except OSError:  # the server closed the connection
                    return


def run_load(
    host: str,
    port: int,
    images: list[bytes],
    *,
    clients: int,
    requests: int,
    slow: int = 0,
    broken: int = 0,
) -> dict[str, Any]:
    """Answers to `clients` that send `requests` images each, with slow and broken ones."""
    load, done = Load(host, port), threading.Event()
    jobs = [[images[(c + i) % len(images)] for i in range(requests)] for c in range(clients)]
    jobs += [[image[: len(image) // 2] for image in images[:1] * requests]] * broken
    slow_ones = [threading.Thread(target=load.slow_sender, args=(done,)) for _ in range(slow)]
    for thread in slow_ones:
        thread.start()
    start = time.perf_counter()
    with ThreadPoolExecutor(len(jobs)) as pool:
        list(pool.map(load.client, jobs))
    seconds = time.perf_counter() - start
    done.set()
    for thread in slow_ones:
        thread.join()
    return {
        "sent": sum(map(len, jobs)),
        "statuses": {str(status): n for status, n in sorted(load.statuses.items())},
        "reset": load.n_reset,
        "images_per_s": round(len(load.ms) / seconds, 1),
        "ms": percentiles(load.ms),
    }


def kit_ms(kit: Kit, images: list[bytes], n: int = 100) -> dict[str, float]:
    """Percentiles of the time for decoding, preprocessing and the model, one image at a time."""
    spent = []
    for i in range(n):
        start = time.perf_counter()
        kit.predict(kit.input_of(images[i % len(images)])[None])
        spent.append(1e3 * (time.perf_counter() - start))
    return percentiles(spent)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--model")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    for name, n in (("clients", 100), ("requests", 10), ("slow", 10), ("broken", 10)):
        parser.add_argument(f"--{name}", type=int, default=n)
    options = parser.parse_args()
    bundle = options.bundle.resolve()
    images = [path.read_bytes() for path in sorted((bundle / "samples").iterdir())]
    kit = Kit(bundle, options.model, kit=bundle, threads=1, max_pixels=25_000_000)
    alone = kit_ms(kit, images)
    found = run_load(
        options.host,
        options.port,
        images,
        clients=options.clients,
        requests=options.requests,
        slow=options.slow,
        broken=options.broken,
    )
    print(json.dumps({**found, "kit_ms": alone}, indent=1))


if __name__ == "__main__":
    main()
