"""Named random streams: equal (seed, names) give equal numbers on every machine and process.

There is no global seeding. Code that needs randomness derives a stream named after its task, e.g.
`rng(seed, "train/arch", step, slot)`. So resuming, sharding and other
streams never change the numbers of a stream.
"""

from __future__ import annotations

import hashlib
from operator import index

import numpy as np

from hwnas.core.errors import UserError

__all__ = ["rng", "stable_seed"]


def stable_seed(seed: int, *names: str | int) -> int:
    """A 63-bit seed from a root seed and a path of names; stable across processes and platforms.

    Used for generators other than numpy's (`torch.Generator().manual_seed(...)`).

    Raises:
        UserError: the root seed is not an integer.
    """
    try:
        root = int(index(seed))
    except TypeError as error:
        raise UserError(
            "the seed must be an integer", expected="e.g. seed=0", found=repr(seed)
        ) from error
    path = "\x1f".join(f"{type(name).__name__}:{name}" for name in (root, *names))
    return int.from_bytes(hashlib.blake2b(path.encode(), digest_size=8).digest(), "little") >> 1


def rng(seed: int, *names: str | int) -> np.random.Generator:
    """An independent numpy generator for the stream `names` of the root `seed`."""
    return np.random.default_rng(np.random.SeedSequence(stable_seed(seed, *names)))
