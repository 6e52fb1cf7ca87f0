"""Runs a model of a bundle on batches of concurrent requests. Needs numpy and onnxruntime."""

from __future__ import annotations

import asyncio
import contextlib
import io
import sys
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Batches", "Kit", "Refused"]

DOCUMENTS = ("EPS", "WMF")  # Pillow runs programs of the system on them


class Refused(Exception):
    """A refused request: the reason, and its HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Kit:
    """Decoding, preprocessing and the model of a bundle, all from its kit.

    Args:
        bundle: folder of the bundle.
        model: path of a file in the bundle; default: the first one for ONNX Runtime.
        kit: folder of the kit's scripts, which run here; default: the bundle.
        threads: threads of the runtime.
        max_pixels: larger images are refused before they are decoded.

    Raises:
        self.error: the bundle is damaged, or computes something else here.
    """

    def __init__(
        self, bundle: Path, model: str | None, *, kit: Path, threads: int, max_pixels: int
    ) -> None:
        sys.path.insert(0, str(kit))
        import bundle_checks
        import bundle_cli
        import bundle_files
        import bundle_images
        import ort_run

        self.error: type[Exception] = bundle_files.BundleError
        self._images, self._ranked = bundle_images, bundle_cli.ranked
        self.manifest: dict[str, Any] = bundle_files.read_bundle(bundle)
        if model is not None and model.endswith(".tflite"):
            import device_run

            self.model, device = device_run.artifact_of(self.manifest, model)
            path = bundle_files.inside(bundle, model)
            self.predict = device_run.Predictor(path, {**device, "threads": threads})
        else:
            self.model = ort_run.choose(self.manifest, model)[0]
            self.predict = ort_run.Predictor(bundle, self.model, threads=threads)
        golden = bundle_checks.check_golden(bundle, self.manifest, self.model, self.predict)
        if not golden["passed"]:
            raise self.error(f"golden outputs: {golden['detail']}")
        self._max_pixels = max_pixels

    def input_of(self, data: bytes) -> np.ndarray:
        """The input [C, px, px] of the model for an encoded image.

        Raises:
            Refused: the image has too many pixels (413), or is not an image (400).
        """
        try:
            pixels = self._n_pixels(data)
            if pixels > self._max_pixels:
                raise Refused(413, f"{pixels} pixels; at most {self._max_pixels} are decoded")
            image = self._images.decode(data, "the image")
            return self._images.preprocess(image, self.manifest["input"])
        except self.error as error:
            raise Refused(400, str(error)) from error

    def _n_pixels(self, data: bytes) -> int:
        """Number of pixels from the header; formats read without Pillow are uncompressed."""
        try:
            from PIL import Image
        except ImportError:
            return 0  # the kit imports it where it is needed
        if data[:6] == b"\x93NUMPY":
            return 0
        try:
            with Image.open(io.BytesIO(data)) as image:
                if image.format in DOCUMENTS:
                    raise Refused(400, f"the image: {image.format} is no format of photos")
                return image.width * image.height
        except Refused:
            raise
        except Image.DecompressionBombError as error:
            raise Refused(413, f"the image: {error}") from error
        except Exception:  # damaged files make decoders raise a dozen unrelated classes
            return 0  # the kit says what is wrong with it

    def answer(self, logits: np.ndarray, top: int) -> dict[str, Any]:
        """Classes as JSON values, best first."""
        best = self._ranked(logits, self.manifest["input"]["class_names"], top)
        return {"classes": [{"name": name, "probability": share} for name, share in best]}


class Batches:
    """Runs a model on one thread, on batches of the waiting inputs.

    Args:
        predict: maps inputs [n, C, px, px] to logits [n, classes].
        max_batch: maximum number of images per run.
        max_wait_s: time that the first image of a batch waits for others.
        seconds: called with the time of every run.
    """

    def __init__(
        self,
        predict: Callable[[np.ndarray], np.ndarray],
        *,
        max_batch: int,
        max_wait_s: float,
        seconds: Callable[[float], None] = lambda spent: None,
    ) -> None:
        self._predict, self._max_batch, self._max_wait_s = predict, max_batch, max_wait_s
        self._seconds = seconds
        self._waiting: deque[tuple[np.ndarray, asyncio.Future[np.ndarray]]] = deque()
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "model")
        self.is_stopping = False
        self.n_images = self.n_batches = self.largest_batch = 0

    async def logits(self, x: np.ndarray) -> np.ndarray:
        """Logits [classes] of one input [C, px, px]; raises the error of the model."""
        future: asyncio.Future[np.ndarray] = asyncio.get_running_loop().create_future()
        self._waiting.append((x, future))
        self._arrived.set()
        return await future

    async def run(self) -> None:
        """Runs until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            batch = await self._gather()
            start = time.perf_counter()
            try:
                inputs = np.stack([x for x, _ in batch])
                found = await loop.run_in_executor(self._thread, self._predict, inputs)
            except Exception as error:  # a failed run must not end the service
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
            self._seconds(time.perf_counter() - start)
            self.n_images += len(batch)
            self.n_batches += 1
            self.largest_batch = max(self.largest_batch, len(batch))
            for (_, future), row in zip(batch, found, strict=True):
                if not future.done():  # the client may be gone
                    future.set_result(row)

    async def _gather(self) -> list[tuple[np.ndarray, asyncio.Future[np.ndarray]]]:
        """Up to max_batch inputs; does not wait for further ones while stopping."""
        while not self._waiting:
            self._arrived.clear()
            await self._arrived.wait()
        until = time.monotonic() + self._max_wait_s
        while len(self._waiting) < self._max_batch and not self.is_stopping:
            left = until - time.monotonic()
            if left <= 0:
                break
            self._arrived.clear()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._arrived.wait(), min(left, 0.1))
        n = min(len(self._waiting), self._max_batch)
        return [self._waiting.popleft() for _ in range(n)]
