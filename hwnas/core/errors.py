"""Errors that state what was expected, what was found, where, and how to fix it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from hwnas.core.text import in_words, visible

__all__ = [
    "CheckFailed",
    "DataAbsent",
    "HwnasError",
    "Invalid",
    "NotJudged",
    "UserError",
    "WorkerKilled",
    "did_you_mean",
    "first_line",
    "no_workers",
    "out_of_memory",
    "parts_of",
    "worker_killed",
]


MAX_TEXT = 10_000  # characters of one part of an error
ERRNO = re.compile(r"^\[(?:Errno|WinError) -?\d+\] ")  # before what the system says in words


class HwnasError(Exception):
    """Base of every error that hwnas raises on purpose; `exit_code` is the exit status.

    The text may contain data from files, so control characters are escaped.
    """

    exit_code = 1

    def __init__(
        self,
        message: str,
        *,
        expected: object = None,
        found: object = None,
        where: object = None,
        fix: str | None = None,
    ) -> None:
        self._message = message
        self.expected, self.found, self.where, self.fix = expected, found, where, fix
        super().__init__(self._text())

    def add_way_out(self, fix: str) -> None:
        """Appends another possible fix."""
        self.fix = fix if self.fix is None else f"{self.fix}; or {fix}"
        self.args = (self._text(),)

    def drop_fix(self) -> None:
        """Removes the fix, for a caller that repairs the problem itself."""
        self.fix = None
        self.args = (self._text(),)

    def say_where(self, where: object) -> None:
        """Replaces `where` by a place that the user knows."""
        self.where = where
        self.args = (self._text(),)

    def _text(self) -> str:
        parts = [self._message]
        for label in ("expected", "found", "where", "fix"):
            if (value := getattr(self, label)) is not None:
                parts.append(f"  {label}: {_shortened(ERRNO.sub('', in_words(value)))}")
        return visible("\n".join(parts))


def _shortened(text: str) -> str:
    more = len(text) - MAX_TEXT
    return text if more <= 0 else f"{text[:MAX_TEXT]} ... and {more:,} characters more"


class UserError(HwnasError):
    """A problem that the user can fix: a key, a missing file, an infeasible constraint (exit 1)."""


class DataAbsent(UserError):
    """The files of the data set are missing. Commands that only read a run continue."""


class CheckFailed(HwnasError):
    """A check ran and failed (exit 3)."""

    exit_code = 3


class NotJudged(HwnasError):
    """A check has no result, because the pace of the machine is too far from 1 (exit 4)."""

    exit_code = 4


def first_line(error: HwnasError) -> str:
    """The problem that the error states, without `expected`, `found`, `where` and `fix`."""
    return str(error).splitlines()[0]


class Invalid(ValueError):
    """A value that a record or a file must not have; `parts_of` takes its parts for a `UserError`.

    key: the invalid part of the value; empty: the value itself.
    """

    def __init__(self, expected: object, found: object = None, key: str = "") -> None:
        self.expected, self.found, self.key = expected, found, key
        super().__init__(expected, found, key)

    def __str__(self) -> str:
        at = f"{self.key}: " if self.key else ""
        found = "" if self.found is None else f", found {self.found}"
        return f"{at}expected {self.expected}{found}"


def parts_of(error: BaseException) -> dict[str, str]:
    """The arguments `expected` and `found` of the `UserError` that replaces `error`."""
    if isinstance(error, Invalid):
        at = f"{error.key}: " if error.key else ""
        stated = {"expected": error.expected, "found": error.found}
        return {part: f"{at}{value}" for part, value in stated.items() if value is not None}
    if isinstance(error, KeyError):
        return {"expected": f"the key {error}", "found": f"no key {error}"}
    return {"found": str(error) or repr(error)}


def did_you_mean(name: str, known: Sequence[str], *, otherwise: str) -> str:
    """A fix for an unknown name: a similar known name, or `otherwise` if there is none."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]!r}?" if near else otherwise


_NO_MEMORY = (
    *("cannot allocate memory", "can't allocate memory", "failed to map segment", "bad_alloc"),
    *("not enough memory", "out of memory", "can't start new thread"),
)


def out_of_memory(error: BaseException) -> UserError | None:
    """The error to show if the machine, or a limit (`ulimit -v`), ran out of memory, else None.

    Torch and the dynamic linker report this in the text of an ImportError or a RuntimeError.
    """
    text = str(error)
    if not isinstance(error, MemoryError) and not any(w in text.lower() for w in _NO_MEMORY):
        return None
    return UserError(
        "too little memory",
        found=text.splitlines()[0][:200] if text else None,
        fix="stop other programs, raise the limit (ulimit -v), or use smaller batches, then repeat"
        " the command; earlier results are kept",
    )


def no_workers(error: OSError) -> UserError:
    """The error to show if the processes that prepare images cannot be started."""
    return UserError(
        "cannot start the processes that prepare images",
        expected="shared memory (/dev/shm) that can be written and has room",
        found=error.strerror or error,
        where="workers",
        fix="workers=0, or give the container shared memory (`docker run --shm-size=1g`)",
    )


class WorkerKilled(UserError):
    """A process that prepares images was killed. by_termination: whether by SIGTERM."""

    by_termination = False


def worker_killed(error: BaseException) -> WorkerKilled | None:
    """The error to show if a process that prepares images was killed, else None.

    Torch reports this in the text of a RuntimeError, which can be raised at any statement.
    """
    text = str(error)
    if "DataLoader worker" not in text or not any(w in text for w in ("killed", "exited")):
        return None
    killed = WorkerKilled(
        "a process that prepares images was killed",
        found=text.splitlines()[0][:200].strip(),
        fix="repeat the command (earlier results are kept); if there was too little memory, first"
        " set workers=0 or stop other programs",
    )
    killed.by_termination = "Terminated" in text
    return killed
