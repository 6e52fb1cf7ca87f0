#!/usr/bin/env python3
"""Serve a bundle over HTTP: an image as request, its class as answer.

    pip install numpy onnxruntime pillow fastapi uvicorn python-multipart   # or 'hwnas[serve]'
    python serve.py --bundle BUNDLE --port 8000
    python serve.py --bundle BUNDLE --model model.int8.tflite               # and ai-edge-litert
    curl -F image=@photo.jpg http://127.0.0.1:8000/classify
    curl http://127.0.0.1:8000/health
    curl http://127.0.0.1:8000/metrics

Concurrent requests run in one batch: up to `--max-batch` images, with a wait of `--max-wait-ms`
after the first. The kit of the bundle converts images to inputs, as in training.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import signal
import socket
import sys
import time
from collections import Counter, deque
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

try:
    import numpy as np
    import uvicorn
    from batching import Batches, Kit, Refused
    from fastapi import FastAPI, Query, Request
    from fastapi.responses import JSONResponse, PlainTextResponse
    from uploads import LastAnswer, Limits, Upload
except ImportError as error:
    sys.exit(
        f"error: {error}; fix: python -m pip install"
        " numpy onnxruntime pillow fastapi uvicorn python-multipart"
    )

KEPT = 4096  # number of latest durations for percentiles


@dataclass
class Durations:
    """Sum and count of all durations, and percentiles of the latest ones, in seconds."""

    total: float = 0.0
    n: int = 0
    latest: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT))

    def add(self, seconds: float) -> None:
        """Adds a duration."""
        self.total, self.n = self.total + seconds, self.n + 1
        self.latest.append(seconds)

    def lines(self, name: str) -> list[str]:
        """A Prometheus summary."""
        shares = (0.5, 0.9, 0.99) if self.latest else ()
        quantiles = np.quantile(self.latest, shares) if shares else ()
        lines = [f"# TYPE {name} summary"]
        lines += [
            f'{name}{{quantile="{share}"}} {value:.6f}'
            for share, value in zip(shares, quantiles, strict=True)
        ]
        return [*lines, f"{name}_sum {self.total:.6f}", f"{name}_count {self.n}"]


class Service:
    """The state of the server, and its three endpoints."""

    def __init__(self, kit: Kit, limits: Limits, *, max_batch: int, max_wait_ms: float) -> None:
        self.kit, self.limits = kit, limits
        self.answered, self.model_s = Durations(), Durations()
        self.statuses: Counter[int] = Counter()
        self.n_requests = 0  # in progress
        self.batches = Batches(
            kit.predict,
            max_batch=min(max_batch, kit.model["batch"] or max_batch),
            max_wait_s=max_wait_ms / 1e3,
            seconds=self.model_s.add,
        )
        self._decoder = ThreadPoolExecutor(1, "decoder")  # limits memory to one decoded image

    def upload(self, request: Request) -> Upload:
        """The body of a request, not yet read."""
        return Upload(request, self.limits, lambda: self.batches.is_stopping)

    async def classify(self, upload: Upload, top: int) -> dict[str, Any]:
        """Classes of the image in the multipart field `image`.

        Raises:
            Refused: the request is invalid; gives the reason.
        """
        if self.n_requests >= self.limits.max_requests or self.batches.is_stopping:
            raise Refused(503, "too many requests at once, or the server is stopping")
        self.n_requests += 1
        try:
            data = await upload.image()
            loop = asyncio.get_running_loop()
            x = await loop.run_in_executor(self._decoder, self.kit.input_of, data)
            return self.kit.answer(await self.batches.logits(x), top)
        finally:
            self.n_requests -= 1

    def health(self) -> dict[str, Any]:
        """The state as JSON values."""
        return {
            "status": "stopping" if self.batches.is_stopping else "ok",
            "bundle": self.kit.manifest["name"],
            "model": self.kit.model["path"],
            "images": self.batches.n_images,
            "batches": self.batches.n_batches,
            "largest_batch": self.batches.largest_batch,
            "requests": self.n_requests,
        }

    def metrics(self) -> str:
        """The state and latencies, in the text format of Prometheus."""
        counts = self.statuses.items()
        lines = ["# TYPE hwnas_requests_total counter"]
        lines += [f'hwnas_requests_total{{status="{status}"}} {n}' for status, n in sorted(counts)]
        for name, value in (
            ("images_total", self.batches.n_images),
            ("batches_total", self.batches.n_batches),
        ):
            lines += [f"# TYPE hwnas_{name} counter", f"hwnas_{name} {value}"]
        for name, value in (
            ("largest_batch", self.batches.largest_batch),
            ("requests_in_flight", self.n_requests),
        ):
            lines += [f"# TYPE hwnas_{name} gauge", f"hwnas_{name} {value}"]
        lines += self.answered.lines("hwnas_request_seconds")
        lines += self.model_s.lines("hwnas_model_seconds")
        return "\n".join(lines) + "\n"


def app_of(service: Service) -> FastAPI:
    """The application: /classify, /health, /metrics; /docs describes them."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        work = asyncio.create_task(service.batches.run())
        yield
        work.cancel()  # all requests were answered before

    app = FastAPI(title="hwnas bundle", lifespan=lifespan)

    @app.post("/classify", openapi_extra=UPLOAD)
    async def classify(
        request: Request, top: Annotated[int, Query(ge=1, le=1000)] = 3
    ) -> JSONResponse:
        """The most probable classes of an image."""
        start, upload = time.perf_counter(), service.upload(request)
        try:
            answer = JSONResponse(await service.classify(upload, top))
            service.answered.add(time.perf_counter() - start)
        except Refused as refused:
            later = {"Retry-After": "1"} if refused.status == 503 else {}
            answer = LastAnswer({"error": str(refused)}, refused.status, later, upload=upload)
        except Exception as error:  # an error of the runtime
            answer = JSONResponse({"error": f"{type(error).__name__}: {error}"}, 500)
        service.statuses[answer.status_code] += 1
        return answer

    @app.get("/health")
    async def health() -> JSONResponse:
        """Status 200 while it serves, else 503."""
        return JSONResponse(service.health(), 503 if service.batches.is_stopping else 200)

    @app.get("/metrics")
    async def metrics() -> PlainTextResponse:
        """Metrics for Prometheus."""
        return PlainTextResponse(service.metrics(), media_type="text/plain; version=0.0.4")

    return app


_FORM = {
    "type": "object",
    "required": ["image"],
    "properties": {"image": {"type": "string", "format": "binary"}},
}
UPLOAD = {"requestBody": {"content": {"multipart/form-data": {"schema": _FORM}}}}


class Server(uvicorn.Server):
    """Informs the service of a signal, so that it does not wait for slow senders or batches."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Called on SIGTERM or SIGINT."""
        self._service.batches.is_stopping = True
        super().handle_exit(sig, frame)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket with an explicit protocol, for which asyncio sets TCP_NODELAY."""
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError:
        listening.close()
        raise
    listening.listen(2048)
    return listening


def main() -> int:
    """Entry point; after SIGTERM or Ctrl-C it answers accepted requests and exits with status 0."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument(
        "--model", help="path in the bundle; default: the first one for ONNX Runtime"
    )
    parser.add_argument(
        "--kit",
        type=Path,
        help="folder with the kit's scripts, which run here; default: the bundle",
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000, help="port; 0: any free one")
    parser.add_argument("--max-batch", type=int, default=8)
    parser.add_argument("--max-wait-ms", type=float, default=5.0)
    parser.add_argument(
        "--max-bytes",
        type=int,
        default=Limits.max_bytes,
        help="maximum size of an image in bytes",
    )
    parser.add_argument(
        "--max-pixels", type=int, default=25_000_000, help="maximum pixels of an image"
    )
    parser.add_argument(
        "--max-requests",
        type=int,
        default=Limits.max_requests,
        help="maximum number of concurrent requests",
    )
    parser.add_argument(
        "--idle-s",
        type=float,
        default=Limits.idle_s,
        help="seconds after which a silent sender is disconnected",
    )
    parser.add_argument(
        "--upload-s", type=float, default=Limits.upload_s, help="maximum seconds of an upload"
    )
    parser.add_argument("--threads", type=int, default=1, help="threads of the runtime")
    options = parser.parse_args()
    bundle = options.bundle.resolve()
    if not (bundle / "ort_run.py").is_file():
        print(f"error: {options.bundle} is no bundle: it has no ort_run.py", file=sys.stderr)
        return 1
    limits = Limits(options.max_bytes, options.max_requests, options.idle_s, options.upload_s)
    try:
        kit = Kit(
            bundle,
            options.model,
            kit=(options.kit or bundle).resolve(),
            threads=options.threads,
            max_pixels=options.max_pixels,
        )
        listening = listen(options.host, options.port)
    except OSError as error:
        print(f"error: {options.host}:{options.port}: {error}", file=sys.stderr)
        return 1
    except Exception as error:
        if type(error).__name__ != "BundleError":
            raise
        print(f"error: {error}", file=sys.stderr)
        return 1
    service = Service(kit, limits, max_batch=options.max_batch, max_wait_ms=options.max_wait_ms)
    config = uvicorn.Config(
        app_of(service),
        http="h11",
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=30,
    )
    for number in (signal.SIGINT, signal.SIGTERM):  # uvicorn raises them again at the end
        signal.signal(number, lambda *_: None)
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # clients get the error
    port = listening.getsockname()[1]
    print(f"serving {kit.model['path']} on {options.host}:{port}", flush=True)
    Server(config, service).run(sockets=[listening])
    return 0


if __name__ == "__main__":
    sys.exit(main())
