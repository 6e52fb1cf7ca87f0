#!/usr/bin/env python3
"""Times models in a browser by the timing protocol of hwnas (see bench_protocol.py).

    python web_bench.py plan.json --out results.jsonl --runtime FOLDER
    python web_bench.py plan.json --out results.jsonl --runtime FOLDER --browser chromium
    python web_bench.py plan.json --try --runtime FOLDER

Needs python >= 3.8 and nothing else. It serves a page on 127.0.0.1, prints its address, and waits
for a browser to open it; with --browser it starts one without a window. FOLDER has the files of the
runtime for browsers (`hwnas profile browser --fetch` puts them into the cache of hwnas). For a
phone on a cable, `adb reverse tcp:PORT tcp:PORT`, with the port of the address, makes the same
address work on the phone. An address that other machines can reach needs a certificate.

The page may be reloaded or closed, and this command may be interrupted: the samples so far are
kept, and the same command resumes.
"""

import argparse
import contextlib
import os
import re
import secrets
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path

try:
    from bench import StderrProgress, load_plan
    from bench_host import host_facts
    from bench_protocol import KitError, Results
    from web_server import Server
    from web_session import Session
except ImportError as error:
    if error.name not in ("fcntl", "resource"):
        raise
    sys.exit("web_bench.py needs Linux or macOS; on Windows, run it in WSL")

HERE = Path(__file__).resolve().parent
PORT = 8421
WAIT_S = 600.0
LOOK_S = 0.25
QUIET_S = 15.0  # a page that works or waits is heard every few seconds
FAREWELL_S = 0.5  # for the last answer to reach the page
PROVIDERS = {"litert": "cpu", "onnxruntime": "CPUExecutionProvider"}
"""The runtimes that have a version for browsers, and what their WebAssembly is called there."""
ANY = "0.0.0.0"
LOOPBACK = ("127.0.0.1", "localhost")


def require_runnable(plan):
    """Refuses a plan that browsers cannot run."""
    runtime, provider = plan["runtime"], plan["provider"]
    if runtime not in PROVIDERS:
        raise KitError(f"browsers have no {runtime}; they have {', '.join(PROVIDERS)}")
    if provider != PROVIDERS[runtime]:
        raise KitError(
            f"in a browser {runtime} has no {provider}; it has {PROVIDERS[runtime]} (WebAssembly)"
        )
    if plan["threads"] != 1:
        raise KitError(f"a page is timed with one thread, not with {plan['threads']}")


def files(plan, plan_path, runtime):
    """The files that a page may ask for, by their path in the address."""
    folder = plan_path.resolve().parent
    pages = {name: HERE / "web" / name for name in ("bench.html", "bench.js")}
    name = f"runtime_{plan['runtime']}.js"
    found = {path.name: path for path in runtime.iterdir() if path.is_file()}
    found.update({**pages, name: HERE / "web" / name})
    for index, item in enumerate(plan["items"]):
        found[f"models/{index}"] = folder / item["file"]
    return found


def known_token(path):
    """The token in a file that only its owner can read, so that addresses stay valid."""
    if path is None:
        return secrets.token_urlsafe(24)
    with contextlib.suppress(FileExistsError):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(handle, "w") as stream:
            stream.write(secrets.token_urlsafe(24))
    token = path.read_bytes().strip()
    if re.fullmatch(rb"[A-Za-z0-9_-]{32,200}", token) is None:
        raise KitError(f"{path} has no token; delete it")
    return token.decode()


def headless(browser, url, folder):
    """Starts a Chromium without a window."""
    command = [
        *(browser, "--headless", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *("--disable-extensions", "--mute-audio", f"--user-data-dir={folder}/profile"),
        *(["--no-sandbox"] if os.geteuid() == 0 else []),  # Chromium has no sandbox for root
        url,
    ]
    with open(f"{folder}/log", "wb") as log:
        try:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        except OSError as error:
            raise KitError(f"cannot start {browser}: {error.strerror}") from error


def stop(process):
    """Ends a browser and its processes."""
    for signal in (15, 9):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)


def wait(session, wait_s, url, browser=None, log=None):
    """Waits until a session is done. Prints a message if the page becomes silent.

    Raises KitError if the page reports a problem, the browser ends, or no page is heard for too
    long.
    """
    since, is_quiet = time.monotonic(), False
    while not session.changed.wait(LOOK_S):
        now = time.monotonic()
        if browser is not None and browser.poll() is not None:
            said = Path(log).read_text(errors="replace").strip().splitlines()[-3:]
            raise KitError(
                f"the browser ended with status {browser.returncode}: {' | '.join(said)}"
            )
        silent_s = min(now - since, session.silent_s(now))
        if silent_s > wait_s:
            raise KitError(
                f"no page answered for {silent_s:.0f} s (--wait-s; `wait_s` in the file of a"
                " device); the samples are kept, and the same command resumes"
            )
        was_quiet, is_quiet = is_quiet, session.has_page and silent_s > QUIET_S
        if is_quiet and not was_quiet:
            ways = "its browser is busy" if browser else f"bring it to the front, or open {url}"
            note(
                f"the page is silent for {silent_s:.0f} s: {ways}; the samples are kept, and this"
                f" command waits {wait_s - silent_s:.0f} s more"
            )
        elif was_quiet and not is_quiet:
            note("a page is back")
    if is_quiet:
        note("a page is back")
    time.sleep(FAREWELL_S)
    if session.problem is not None:
        raise session.problem


def note(text):
    """A message that hwnas shows to the user."""
    print(f"bench.py: note: {text}", file=sys.stderr, flush=True)


def https(certificate, key):
    """The context of ssl with a certificate; None without one."""
    if certificate is None:
        if key is not None:
            raise KitError(f"the key {key} needs --certificate")
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key)
    except OSError as error:
        files = " and ".join(str(path) for path in (certificate, key) if path)
        raise KitError(
            f"no certificate with its key, without a pass phrase, in {files}: {error}"
        ) from error
    return context


def served(options, files, session):
    """The server of the page; it listens."""
    token, context = known_token(options.token), https(options.certificate, options.key)
    try:
        server = Server(options.host, options.port, token, files, session.answers, context)
    except (OSError, UnicodeError, OverflowError) as error:
        place = f"{options.host}:{options.port}"
        raise KitError(
            f"cannot serve a page at {place}: {error}; give another --port or --host (`port` or"
            " `address` under `transport` in the file of a device)"
        ) from error
    if server.server_address[0] == ANY:
        server.server_close()
        raise KitError(
            f"no page has the address {options.host!r}; give that of this machine in its network"
        )
    return server


def by_cable(host, server):
    """How the address also works on a phone, if it is one of this machine alone."""
    if host not in LOOPBACK:
        return ""
    port = server.server_address[1]
    return f"; that of a phone on a cable needs `adb reverse tcp:{port} tcp:{port}` before"


def bench(options):
    """Times a plan in a page, or tries its models."""
    if options.host not in LOOPBACK and options.certificate is None:
        raise KitError(f"{options.host} can be reached from elsewhere, so it needs --certificate")
    plan = load_plan(options.plan)
    require_runnable(plan)
    if not options.runtime.is_dir():
        raise KitError(f"no files of the runtime at {options.runtime}")
    results = None if options.tries else Results(options.out)
    keys = ("runtime", "provider", "precision", "threads", "batch")
    facts = {**{key: plan[key] for key in keys}, "runtime_version": options.version}
    here = host_facts()["cpu"] if options.browser else None
    session = Session(plan, results, facts, here, StderrProgress())
    if session.is_finished():
        return
    server = served(options, files(plan, options.plan, options.runtime), session)
    with server, contextlib.ExitStack() as stack:
        server.start()
        stack.callback(server.shutdown)
        if not options.browser:
            cable = by_cable(options.host, server)
            note(f"open {server.url} in the browser, within {options.wait_s:.0f} s{cable}")
            wait(session, options.wait_s, server.url)
            return
        folder = tempfile.mkdtemp(prefix="hwnas-browser-")
        stack.callback(shutil.rmtree, folder, ignore_errors=True)  # a browser may still write there
        process = headless(options.browser, server.url, folder)
        stack.callback(stop, process)
        wait(session, options.wait_s, server.url, process, f"{folder}/log")


def main(arguments=None):
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Time the models of a plan in a browser.")
    parser.add_argument("plan", type=Path, help="plan.json, in the folder of its models")
    parser.add_argument("--out", type=Path, help="results.jsonl; resumed if it exists")
    parser.add_argument("--try", action="store_true", dest="tries", help="run each model once")
    parser.add_argument("--runtime", type=Path, required=True, help="folder of the runtime's files")
    parser.add_argument("--version", default="unknown", help="version of the runtime")
    parser.add_argument("--browser", help="Chromium to start without a window")
    parser.add_argument("--host", default="127.0.0.1", help="address of the page")
    parser.add_argument("--port", type=int, default=PORT, help="0: any free one")
    parser.add_argument("--certificate", type=Path, help="PEM file, for https")
    parser.add_argument("--key", type=Path, help="PEM file of its private key")
    parser.add_argument("--token", type=Path, help="file of the token; default: a new token")
    parser.add_argument("--wait-s", type=float, default=WAIT_S, help="without a page, in seconds")
    options = parser.parse_args(arguments)
    if not (options.out or options.tries):
        parser.error("give --out results.jsonl, or --try")
    if not (0 <= options.port <= 65535 and 0 < options.wait_s < 1e9):
        parser.error("--port is 0 to 65535, --wait-s a positive number")
    try:
        bench(options)
    except KitError as error:
        print(f"web_bench.py: {error}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, BrokenPipeError):
        with contextlib.suppress(OSError):
            text = "interrupted; the same command resumes from here"
            print(f"web_bench.py: {text}", file=sys.stderr)
        return 130
    except OSError as error:  # a full disk, or a folder that is not writable
        print(f"web_bench.py: {error}; then the same command resumes from here", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
