"""Named random streams: the same (seed, names) gives the same numbers on every machine and process.

There is no global seeding: whoever needs randomness derives a stream from what it is doing, e.g.
`rng(seed, "train/arch", step, slot)`, so that resuming, sharding or adding a consumer elsewhere
never shifts anybody's numbers.
"""

from __future__ import annotations

import hashlib
from operator import index

import numpy as np

from hwnas.core.errors import UserError

__all__ = ["rng", "stable_seed"]


def stable_seed(seed: int, *names: str | int) -> int:
    """A 63-bit seed from a root seed and a path of names; stable across processes and platforms.

    Used for generators that are not numpy's (`torch.Generator().manual_seed(...)`).

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
    """An independent numpy generator for the stream `names` under the root `seed`."""
    return np.random.default_rng(np.random.SeedSequence(stable_seed(seed, *names)))
