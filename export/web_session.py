"""One timing session with a page: which turns it has to take, and which it took.

The page only loads models and takes turns. Their order, the extra turns of the reference, the
stopping rules and the results file are those of bench_protocol.py. A page may reload or close at
any time: the next page gets the turns that are missing.
"""

import datetime
import platform
import threading
import time

from bench_protocol import (
    KitError,
    Orders,
    expected_turns,
    plan_hash,
    warnings,
)
from web_server import Refused

ORDERED_TURNS = 64  # at most, per message
SILENT_S = 15.0  # after which another tab may take over
MAX_NS = 10**13
MAX_TEXT = 80
LEAST_SAMPLES = 3  # of a turn: a cold and two hot runs


class Session:
    """Answers the messages of pages. Every method may be called from any thread.

    results: `bench_protocol.Results`, or None to load and run every model once without timing.
    facts: what the header of the results has besides `host`.
    here: name of this machine's processor if the browser runs on it; None for another machine.
    """

    def __init__(self, plan, results, facts, here, progress):
        self._plan, self._results, self._facts, self._here = plan, results, facts, here
        self._progress, self._hash = progress, plan_hash(plan)
        header = None if results is None else results.header
        if header is not None and header.get("plan_hash") != self._hash:
            found = header.get("plan_hash")
            raise KitError(f"the results are of another plan ({found!r:.40}); give another --out")
        self._lock = threading.Lock()
        self._tab, self._heard, self._ordered = None, 0.0, 0.0
        self._orders = []
        self.changed = threading.Event()
        self.problem, self.is_done = None, False
        self._missing = None if results is None else Orders(plan, results)

    @property
    def answers(self):
        """The functions that answer messages, by name."""
        names = ("hello", "loaded", "turns", "alive", "failed", "bye")
        return {name: self._guarded(getattr(self, f"_{name}")) for name in names}

    def silent_s(self, now):
        """Seconds since a page was heard; `now` is in seconds of the monotonic clock."""
        with self._lock:
            return now - self._heard

    @property
    def has_page(self):
        """Whether a page was heard at all; it may be gone since."""
        with self._lock:
            return self._heard > 0.0

    def is_finished(self):
        """Whether no turn is missing, without a page."""
        with self._lock:
            return self._missing is not None and not self._missing.next(1)

    # --- messages ---------------------------------------------------------------------------------

    def _guarded(self, answer):
        """One message at a time; problems with the results file stop the session."""

        def guarded(message):
            with self._lock:
                try:
                    return answer(message)
                except Refused:
                    raise
                except Exception as error:  # the main thread reports it
                    self._stop(error)
                    raise Refused(500, f"stopped: {error}") from error

        return guarded

    def _hello(self, message):
        """A page begins: facts about its browser; the answer says what to load."""
        tab, now = _text(message, "tab"), time.monotonic()
        if self._tab not in (None, tab) and now - self._heard < SILENT_S:
            raise Refused(409, "another tab is timing; close this one, or that one")
        self._tab, self._heard, self._orders = tab, now, []
        if self._results is not None:
            facts, host = self._described(message)
            self._results.open_for(self._plan, facts, host)
        plan = self._plan
        settings = ("runtime", "threads", "batch", "hot_samples", "turn_budget_s", "warmup_runs")
        names = [item["file"].rpartition("/")[2] for item in plan["items"]]
        return {
            "plan_hash": self._hash,
            "reference": [item["id"] for item in plan["items"]].index(plan["reference"]),
            "names": names,
            "only_try": self._results is None,
            "is_done": self.is_done,
            **{key: plan[key] for key in settings},
        }

    def _loaded(self, message):
        """The page has loaded and warmed up the first `n` models."""
        self._require_page(message)
        n, n_items = _whole(message.get("n"), 1, len(self._plan["items"])), len(self._plan["items"])
        self._progress(n, n_items, "loading models", None)
        if self._results is None and n == n_items:
            self._finish()
        return {"is_done": self.is_done}

    def _turns(self, message):
        """The page took turns in `seconds`; the answer has the next ones."""
        self._require_page(message)
        if self._results is None:
            raise Refused(400, "nothing is timed")
        if self.is_done:
            return {"is_done": True, "orders": []}
        turns = message.get("turns")
        if not isinstance(turns, list) or len(turns) > len(self._orders):
            raise Refused(400, "more turns than were asked for")
        for order, turn in zip(self._orders, turns):
            self._check_turn(order, turn)
        seconds = _number(message.get("seconds"), 0.0, time.monotonic() - self._ordered + 1.0)
        for number, index, *samples in turns:
            self._results.add(number, index, samples, [])
        self._results.flush(seconds)
        if turns:
            total = expected_turns(self._plan, self._results)
            left_s = (total / self._results.n_turns - 1) * self._results.seconds
            self._progress(self._results.n_turns, total, "timing", left_s)
        self._orders = self._missing.next(ORDERED_TURNS)
        if not self._orders:
            self._results.close_run(warnings(self._results))
            self._finish()
        self._ordered = time.monotonic()
        return {"is_done": self.is_done, "orders": self._orders}

    def _alive(self, message):
        """The page waits in the background."""
        self._require_page(message)
        self._progress(0, 0, "waiting for the page to come to the front", None)
        return {}

    def _failed(self, message):
        """The page cannot go on."""
        self._require_page(message)
        self._stop(KitError(f"in the browser: {_text(message, 'message', 1000)}"))
        return {}

    def _bye(self, message):
        """The page closes; another one may begin at once."""
        self._require_page(message)
        self._tab, self._orders = None, []
        return {}

    # --- checks -----------------------------------------------------------------------------------

    def _require_page(self, message):
        if message.get("plan_hash") != self._hash:
            raise Refused(409, "these are results of another plan; reload the page")
        if self._tab is None or message.get("tab") != self._tab:
            raise Refused(409, "another tab is timing, or this one was silent; reload the page")
        self._heard = time.monotonic()

    def _check_turn(self, order, turn):
        if not isinstance(turn, list) or turn[:2] != order:
            raise Refused(400, "not the turns that were asked for")
        if not LEAST_SAMPLES <= len(turn) - 2 <= 1 + self._plan["hot_samples"]:
            raise Refused(400, "a turn of another number of runs")
        for value in turn:
            _whole(value, -len(self._plan["items"]), MAX_NS)
        for nanoseconds in turn[2:]:
            _whole(nanoseconds, 1, MAX_NS)

    def _described(self, message):
        """The facts and the host in the header of the results."""
        browser, system = _text(message, "browser"), _text(message, "system")
        facts = {
            **self._facts,
            "runtime_version": f"{self._facts['runtime_version']} in {browser}",
            "interrupted_runs": "dropped",
        }
        host = {
            "cpu": self._here or f"{_text(message, 'device')} ({system})",
            "accelerator": None,
            "n_cpus": _whole(message.get("n_cpus"), 1, 4096),
            "affinity": [],
            "governor": None,
            "load_average": 0.0,
            "machine": _text(message, "machine"),
            "system": system,
            "python": platform.python_version(),
            "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        }
        return facts, host

    def _finish(self):
        self.is_done = True
        self.changed.set()

    def _stop(self, problem):
        self.problem = self.problem or problem
        self.changed.set()


def _text(message, key, most=MAX_TEXT):
    value = message.get(key)
    if not isinstance(value, str) or not value:
        raise Refused(400, f"{key} is a text")
    return "".join(c if c.isprintable() else " " for c in value)[:most]


def _whole(value, least, most):
    if type(value) is not int or not least <= value <= most:
        raise Refused(400, f"expected a whole number in [{least}, {most}]")
    return value


def _number(value, least, most):
    if type(value) not in (int, float) or not least <= value <= most:
        raise Refused(400, f"expected a number in [{least}, {most}]")
    return float(value)
