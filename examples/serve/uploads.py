"""The body of a request: an image in a multipart form, within limits on bytes and time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from batching import Refused
from fastapi import Request
from fastapi.responses import JSONResponse
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

FORM_BYTES = 4096  # of a multipart body, besides the image
TICK_S = 0.1
LINGER_S = 5.0  # maximum seconds, and
LINGER_BYTES = 64 * 1024 * 1024  # bytes, of a refused upload that are read and dropped
TOO_LATE = (408, 499)  # statuses of clients that send nothing, or are gone


@dataclass(frozen=True)
class Limits:
    """Limits of a request."""

    max_bytes: int = 16 * 1024 * 1024
    max_requests: int = 256
    idle_s: float = 10.0
    upload_s: float = 60.0


class Upload:
    """The body of a request. is_stopping: whether the server ends, and waits for no sender."""

    def __init__(self, request: Request, limits: Limits, is_stopping: Callable[[], bool]) -> None:
        self._request, self._limits, self._is_stopping = request, limits, is_stopping
        self._is_over = False
        self._n_bytes, self._start = 0, time.monotonic()

    async def image(self) -> bytes:
        """The file in the multipart field `image`.

        Raises:
            Refused: the request is invalid, too large or too slow; gives the reason.
        """
        length = self._request.headers.get("content-length", "0")
        if len(length) > 12 or not length.isascii() or not length.isdigit():
            raise self._too_large()
        if int(length) > self._limits.max_bytes + FORM_BYTES:
            raise self._too_large()
        try:
            bounded = Request(self._request.scope, self._receive)
            async with bounded.form(max_files=1, max_fields=1) as form:
                image = form.get("image")
                if not isinstance(image, UploadFile):
                    raise Refused(400, "expected multipart/form-data with a file `image`")
                data = await image.read()
        except ClientDisconnect as error:
            raise Refused(499, "the client is gone") from error  # status of nginx, for the log
        except MultiPartException as error:
            raise Refused(400, f"cannot read the multipart body: {error.message}") from error
        except Exception as error:
            if hasattr(error, "status_code"):  # errors of starlette in multipart bodies
                raise Refused(400, f"cannot read the multipart body: {error}") from error
            raise
        if len(data) > self._limits.max_bytes:
            raise self._too_large()
        return data

    async def linger(self) -> None:
        """Reads and drops what still arrives of a refused request, for a bounded time.

        If a connection is closed while bytes arrive, it is reset, and the client, which may send
        everything before it reads, loses the answer.
        """
        start, n_bytes = time.monotonic(), 0
        while not self._is_over and n_bytes < LINGER_BYTES:
            if self._is_stopping() or time.monotonic() - start > LINGER_S:
                return
            n_bytes += len((await self._message(TICK_S)).get("body", b""))

    def _too_large(self) -> Refused:
        return Refused(413, f"an image has at most {self._limits.max_bytes} bytes")

    async def _receive(self) -> Any:
        """`receive` of ASGI, with limits on bytes and time; does not wait while stopping."""
        since = time.monotonic()
        while not (message := await self._message(TICK_S)):
            if self._is_stopping():
                raise Refused(503, "the server is stopping")
            self._require_time(since)
        self._n_bytes += len(message.get("body", b""))
        if self._n_bytes > self._limits.max_bytes + FORM_BYTES:
            raise self._too_large()
        self._require_time(time.monotonic())
        return message

    def _require_time(self, since: float) -> None:
        """since: when the client was last heard of."""
        now = time.monotonic()
        is_idle = now - since > self._limits.idle_s
        if is_idle or now - self._start > self._limits.upload_s:
            raise Refused(408, "the upload takes too long")

    async def _message(self, longest_s: float) -> Any:
        """The next message of ASGI; empty if none arrives within `longest_s`."""
        waiting = asyncio.ensure_future(self._request.receive())
        try:
            if not (await asyncio.wait({waiting}, timeout=longest_s))[0]:
                return {}
        finally:
            waiting.cancel()
        message = waiting.result()
        self._is_over = not message.get("more_body", False)
        return message


class LastAnswer(JSONResponse):
    """A refusal, sent at once; the connection is closed when the rest of the upload has arrived."""

    def __init__(
        self, content: Any, status: int, headers: dict[str, str], *, upload: Upload
    ) -> None:
        super().__init__(content, status, {**headers, "Connection": "close"})
        self._upload = upload

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the answer as an ASGI application."""
        head = {"status": self.status_code, "headers": self.raw_headers}
        await send({"type": "http.response.start", **head})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        if self.status_code not in TOO_LATE:
            await self._upload.linger()
        await send({"type": "http.response.body", "body": b"", "more_body": False})
