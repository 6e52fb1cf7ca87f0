#!/usr/bin/env python3
"""Serve a bundle over HTTP: an image in, its class out. Needs python3, numpy and onnxruntime.

    python serve.py --bundle BUNDLE --port 8000
    python serve.py --bundle BUNDLE --model model.int8.tflite           # and ai-edge-litert
    curl --data-binary @photo.ppm http://127.0.0.1:8000/classify        # others need Pillow
    curl http://127.0.0.1:8000/health

Requests that arrive together run together: a thread takes what is queued, up to `--max-batch`
images, waiting `--max-wait-ms` for more after the first. What does not fit into the queue is told
to come again (503). Images become inputs by the bundle's own kit, as they did in training.
"""

import argparse
import json
import queue
import signal
import sys
import threading
import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

try:
    import numpy as np
except ImportError as error:
    sys.exit(f"error: {error}; fix: python -m pip install numpy onnxruntime")

MAX_BODY_BYTES = 32 * 1024 * 1024
SOCKET_TIMEOUT_S = 10  # a client that sends nothing for so long is dropped


class Busy(Exception):
    """The queue is full, or nobody works on it any more."""


class Classifier:
    """A model of a bundle, and one thread that runs it on batches of what is queued."""

    def __init__(
        self, bundle, model=None, *, max_batch=8, max_wait_ms=5.0, max_queue=64, threads=1
    ):
        sys.path.insert(0, str(bundle))  # the bundle brings its kit
        import bundle_checks
        import bundle_cli
        import bundle_files
        import bundle_images
        import ort_run

        self.kit_error, self._images, self._ranked = (
            bundle_files.BundleError,
            bundle_images,
            bundle_cli.ranked,
        )
        self.manifest = bundle_files.read_bundle(bundle)
        if model is not None and model.endswith(".tflite"):
            import device_run

            self.model, device = device_run.artifact_of(self.manifest, model)
            path = bundle_files.inside(Path(bundle), model)
            self._predict = device_run.Predictor(path, {**device, "threads": threads})
        else:
            self.model = ort_run.choose(self.manifest, model)[0]
            self._predict = ort_run.Predictor(bundle, self.model, threads=threads)
        golden = bundle_checks.check_golden(bundle, self.manifest, self.model, self._predict)
        if not golden["passed"]:
            raise bundle_files.BundleError(f"golden outputs: {golden['detail']}")
        self._max_batch = min(max_batch, self.model["batch"] or max_batch)
        self._max_wait_s = max_wait_ms / 1e3
        self._queue = queue.Queue(max_queue)
        self._stop = threading.Event()
        self.n_images = self.n_batches = self.largest_batch = 0
        self._thread = threading.Thread(target=self._work, name="batches")
        self._thread.start()

    def submit(self, data):
        """A future of the logits [classes] of an encoded image; raises what is wrong with it."""
        x = self._images.preprocess(self._images.decode(data, "the image"), self.manifest["input"])
        future = Future()
        if not self.is_running:
            raise Busy
        try:
            self._queue.put_nowait((x, future))
        except queue.Full:
            raise Busy from None
        return future

    def answer(self, logits, top):
        """JSON-ready classes, best first."""
        best = self._ranked(logits, self.manifest["input"]["class_names"], top)
        return {"classes": [{"name": name, "probability": share} for name, share in best]}

    def health(self):
        """JSON-ready state."""
        return {
            "status": "ok" if self.is_running else "stopping",
            "bundle": self.manifest["name"],
            "model": self.model["path"],
            "images": self.n_images,
            "batches": self.n_batches,
            "largest_batch": self.largest_batch,
            "queued": self._queue.qsize(),
        }

    @property
    def is_running(self):
        """Whether what is submitted will be answered."""
        return self._thread.is_alive() and not self._stop.is_set()

    def close(self):
        """Answer what is queued, then end the thread."""
        self._stop.set()
        self._thread.join()

    def _work(self):
        while not (self._stop.is_set() and self._queue.empty()):
            batch = self._gather()
            if not batch:
                continue
            try:
                logits = self._predict(np.stack([x for x, _ in batch]))
            except Exception as error:  # one failed run must not end the service
                for _, future in batch:
                    future.set_exception(error)
                continue
            self.n_images += len(batch)
            self.n_batches += 1
            self.largest_batch = max(self.largest_batch, len(batch))
            for (_, future), row in zip(batch, logits):
                future.set_result(row)

    def _gather(self):
        """Up to max_batch queued images; [] where none came for a while."""
        try:
            batch = [self._queue.get(timeout=0.1)]
        except queue.Empty:
            return []
        until = time.monotonic() + self._max_wait_s
        while len(batch) < self._max_batch:
            try:
                batch.append(self._queue.get(timeout=max(0.0, until - time.monotonic())))
            except queue.Empty:
                break
        return batch


class Handler(BaseHTTPRequestHandler):
    """GET /health, POST /classify?top=N."""

    timeout = SOCKET_TIMEOUT_S
    classifier = None  # set by `serve`
    answer_within_s = 30.0

    def do_GET(self):
        """Health: 200 while it serves, else 503."""
        if self.path != "/health":
            return self._reply(404, {"error": "GET /health, or POST an image to /classify"})
        return self._reply(200 if self.classifier.is_running else 503, self.classifier.health())

    def do_POST(self):
        """An encoded image as the body."""
        path, _, query = self.path.partition("?")
        top = query.partition("top=")[2] or "3"
        length = self.headers.get("Content-Length", "")
        if path != "/classify" or not top.isdigit() or int(top) < 1:
            return self._reply(404, {"error": "POST an image to /classify, or /classify?top=5"})
        if not length.isdigit():
            return self._reply(411, {"error": "a Content-Length is needed"})
        if int(length) > MAX_BODY_BYTES:
            return self._reply(413, {"error": f"at most {MAX_BODY_BYTES} bytes"})
        body = self.rfile.read(int(length))
        try:
            logits = self.classifier.submit(body).result(timeout=self.answer_within_s)
        except Busy:
            return self._reply(503, {"error": "too many requests at once"}, {"Retry-After": "1"})
        except FutureTimeout:
            return self._reply(503, {"error": "it took too long"}, {"Retry-After": "1"})
        except self.classifier.kit_error as error:
            return self._reply(400, {"error": str(error)})
        except Exception as error:  # the runtime's own
            return self._reply(500, {"error": str(error)})
        return self._reply(200, self.classifier.answer(logits, int(top)))

    def _reply(self, status, value, headers=None):
        body = json.dumps(value).encode() + b"\n"
        self.send_response(status)
        for name, text in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, text)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        """Silent; put a proxy with an access log in front."""


def serve(classifier, host, port):
    """A server, not yet started; `server_port` is the port it got."""
    handler = type("BundleHandler", (Handler,), {"classifier": classifier})
    server = ThreadingHTTPServer((host, port), handler)
    server.daemon_threads = False  # server_close waits for the answers that are under way
    return server


def main():
    """Entry point; SIGTERM and Ctrl-C answer what is queued and end."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--model", help="path in the bundle; default: the first for ONNX Runtime")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000, help="0: any free one")
    parser.add_argument("--max-batch", type=int, default=8)
    parser.add_argument("--max-wait-ms", type=float, default=5.0)
    parser.add_argument("--max-queue", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1, help="of the runtime")
    options = parser.parse_args()
    if not (options.bundle / "ort_run.py").is_file():
        print(f"error: {options.bundle} is no bundle: it has no ort_run.py", file=sys.stderr)
        return 1
    try:
        classifier = Classifier(
            options.bundle.resolve(),
            options.model,
            max_batch=options.max_batch,
            max_wait_ms=options.max_wait_ms,
            max_queue=options.max_queue,
            threads=options.threads,
        )
    except Exception as error:
        if type(error).__name__ != "BundleError":
            raise
        print(f"error: {error}", file=sys.stderr)
        return 1
    try:
        server = serve(classifier, options.host, options.port)
    except OSError as error:
        classifier.close()
        print(f"error: cannot listen on {options.host}:{options.port}: {error}", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    print(f"serving {classifier.model['path']} on {options.host}:{server.server_port}", flush=True)
    try:
        server.serve_forever(poll_interval=0.1)
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()
        classifier.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
