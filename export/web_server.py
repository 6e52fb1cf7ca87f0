"""The server of web_bench.py: gives the page its files and models, and passes on its messages.

Everything that a page sends is untrusted. The first part of every path is a secret token, the
`Host` header must be the server's own, and messages are JSON of limited size. A path is looked up
in a list of files; it never becomes the path of a file.
"""

import hmac
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from bench_json import strict_json

MAX_MESSAGE_BYTES = 1 << 20
CHUNK_BYTES = 1 << 16
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".wasm": "application/wasm",
}
HEADERS = {
    # isolation makes the clock of the page precise: 5 us in Chromium, 100 us without it
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; connect-src 'self'; "
        "worker-src 'self' blob:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",  # the address has the token
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


class Refused(Exception):
    """A request is refused with a status of HTTP and a message for the page."""

    def __init__(self, status, message):
        super().__init__(message)
        self.status = status


class Server(ThreadingHTTPServer):
    """Serves `files` ({path: file}) and `answers` ({path: function of the message}) under a token.

    It listens on `host` as soon as it exists, and answers after `start`. With `context` (of ssl)
    it speaks https.
    """

    daemon_threads = True
    request_queue_size = 32

    def __init__(self, host, port, token, files, answers, context=None):
        super().__init__((host, port), Handler)
        self.token, self.files, self.answers = token, files, answers
        scheme, port = ("https" if context else "http"), self.server_address[1]
        names = {host.lower(), "localhost", "127.0.0.1"}  # `adb reverse`: the phone's localhost
        self.own_names = {f"{name}:{port}" for name in names}
        if port == (443 if context else 80):
            self.own_names |= names  # a browser leaves out the usual port
        self.url = f"{scheme}://{host}:{port}/{token}/"
        if context:
            self.socket = context.wrap_socket(
                self.socket, server_side=True, do_handshake_on_connect=False
            )

    def start(self):
        """Answers requests in other threads."""
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def handle_error(self, request, client_address):
        """A page that went away during an answer is no problem."""


class Handler(BaseHTTPRequestHandler):
    """Answers the requests of one connection."""

    protocol_version = "HTTP/1.1"
    timeout = 60.0

    def do_GET(self):
        """Sends a file."""
        self._answer(self._send_file)

    def do_POST(self):
        """Passes a message on, and sends the answer."""
        self._answer(self._send_answer)

    def log_message(self, format, *arguments):
        """Nothing is logged: the address has the token."""

    def _answer(self, send):
        try:
            send(self._route())
        except Refused as refusal:
            self.close_connection = True  # the message may not have been read
            self._send(refusal.status, {"refused": str(refusal)})

    def _route(self):
        """The path after the token.

        Raises:
            Refused: another host (a page that rebinds a name to this address), or a wrong token.
        """
        if self.headers.get("Host", "").lower() not in self.server.own_names:
            raise Refused(403, "another host name")
        origin = self.headers.get("Origin")
        if origin is not None and origin.lower().partition("://")[2] not in self.server.own_names:
            raise Refused(403, "another origin")
        _, token, route = (*self.path.split("/", 2), "", "")[:3]
        if not hmac.compare_digest(token.encode(), self.server.token.encode()):
            raise Refused(403, "this address is not, or no longer, that of the page")
        return route

    def _send_file(self, route):
        path = self.server.files.get(route or "bench.html")
        if path is None:
            raise Refused(404, "no such file")
        kind = TYPES.get(path.suffix, "application/octet-stream")
        with open(path, "rb") as stream:
            size = stream.seek(0, 2)
            stream.seek(0)
            self._begin(200, kind, size)
            while block := stream.read(CHUNK_BYTES):
                self.wfile.write(block)

    def _send_answer(self, route):
        answer = self.server.answers.get(route)
        if answer is None:
            raise Refused(404, "no such message")
        size = self.headers.get("Content-Length", "")
        if not (size.isascii() and size.isdigit() and len(size) < 20):
            raise Refused(411, "a message has a length")
        if int(size) > MAX_MESSAGE_BYTES:
            raise Refused(413, "the message is too large")
        try:
            message = strict_json(self.rfile.read(int(size)))
        except (ValueError, RecursionError) as error:
            raise Refused(400, "the message is not JSON") from error
        if not isinstance(message, dict):
            raise Refused(400, "the message is not an object")
        self._send(200, answer(message))

    def _send(self, status, value):
        body = json.dumps(value).encode()
        self._begin(status, "application/json", len(body))
        self.wfile.write(body)

    def _begin(self, status, kind, size):
        self.send_response(status)
        for name, value in {**HEADERS, "Content-Type": kind, "Content-Length": size}.items():
            self.send_header(name, str(value))
        self.end_headers()
