"""Checks that all processes see the same data before they work together."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from typing import Any

from hwnas.core.errors import HwnasError, UserError
from hwnas.training.distributed import Ranks

__all__ = ["agree"]


def agree(ranks: Ranks, facts: Callable[[], Mapping[str, Any]], *, subject: str) -> None:
    """Checks that `facts()` returns equal JSON values on all ranks, which must call this together.

    subject: what the facts are about, such as "data"; part of the error message.

    Raises:
        UserError: on all ranks, if the facts of one rank differ; names the rank, its machine and
            the facts.
        HwnasError: from `facts`.
    """
    if ranks.size == 1:
        return
    said: dict[str, Any] = {"host": socket.gethostname()}
    failure: HwnasError | None = None
    try:
        said["facts"] = dict(facts())
    except HwnasError as error:  # sent to the other ranks, so that none of them waits
        failure = error
        said["error"] = str(error).splitlines()[0]
    answers = ranks.gather(said)
    differences = [
        f"different {subject} on rank {rank} ({answer['host']}): {difference}"
        for rank, answer in enumerate(answers)
        if (difference := _difference(answers[0], answer))
    ]
    ranks.tell(differences)
    if failure is not None:
        raise failure
    if not ranks.leads:
        differences = ranks.hear() or []
    if differences:
        raise UserError(
            f"the processes do not see the same {subject}",
            expected=f"the {subject} of rank 0",
            found="; ".join(differences),
            where=f"rank {ranks.rank} of {ranks.size}",
            fix=f"copy the {subject} of rank 0's machine to the others, e.g. rsync -a --delete",
        )


def _difference(first: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Facts of a rank that differ from rank 0, or its error; empty if all facts are equal."""
    if "error" in other:
        return str(other["error"])
    here, there = first.get("facts", {}), other["facts"]
    return "; ".join(
        f"{key} {_short(there.get(key), value)}, on rank 0 {_short(value, there.get(key))}"
        for key, value in here.items()
        if there.get(key) != value
    )


def _short(value: Any, other: Any) -> Any:
    """For lists that differ, the items that the other list lacks."""
    if isinstance(value, list) and isinstance(other, list):
        return ", ".join(str(item) for item in value if item not in other) or "in another order"
    return value
