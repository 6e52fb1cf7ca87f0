"""Errors that say what was expected, what was found, where, and how to fix it."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

__all__ = ["CheckFailed", "DataAbsent", "HwnasError", "NotJudged", "UserError", "did_you_mean"]


class HwnasError(Exception):
    """Base of every error hwnas raises on purpose; `exit_code` is the process's exit status."""

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
        self.expected, self.found, self.where, self.fix = expected, found, where, fix
        parts = [message]
        for label, value in (("expected", expected), ("found", found), ("where", where)):
            if value is not None:
                parts.append(f"  {label}: {value}")
        if fix is not None:
            parts.append(f"  fix: {fix}")
        super().__init__("\n".join(parts))


class UserError(HwnasError):
    """Something the user can fix: a key, a missing file, an impossible constraint (exit 1)."""


class DataAbsent(UserError):
    """The files of the data set are not here; whoever only looks at a run does without them."""


class CheckFailed(HwnasError):
    """A check ran and failed (exit 3)."""

    exit_code = 3


class NotJudged(HwnasError):
    """A check could not be judged: the machine is too far from its table's speed (exit 4)."""

    exit_code = 4


def did_you_mean(name: str, known: Sequence[str], *, otherwise: str) -> str:
    """A fix for an unknown name: the nearest known one, or `otherwise` where none is near."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]!r}?" if near else otherwise
