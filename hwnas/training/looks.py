"""Finds photos that look alike: one photo stored twice, scaled or compressed differently.

Two photos count as one where two rules agree. Their difference hashes (dHash, N. Krawetz 2013: is
each of 8 x 8 fields of the grey image brighter than the one to its left) differ in at most 3 of 64
bits, and grey copies of 16 x 18 pixels correlate by at least 0.997. Of photos of hands, flowers,
blood cells and Tiny-ImageNet none were taken for others, of CIFAR-10 one pair, which is one photo
in other colours. Of 100 photos, 85 to 100 were found when they were compressed again (JPEG, quality
75), and 42 to 99 at half their size (none of 32 px). Cropped, mirrored or turned ones are others.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

__all__ = ["Looks", "alike", "looks_of"]

COPY = (16, 18)
LUMA = (0.299, 0.587, 0.114)  # JPEG keeps it best
N_BITS = 64
MOST_BITS = 3
LEAST_CORRELATION = 0.997
ROWS = 256  # photos that are compared with all others at a time


@dataclass(frozen=True)
class Looks:
    """Of n photos: bits of their hashes, -1 or 1, [n, 64]; grey copies, mean 0, length 1, [n, 288].

    The copy of a photo of one grey is 0 everywhere, so that it is like no other.
    """

    bits: torch.Tensor
    copies: torch.Tensor


def looks_of(batches: Iterable[torch.Tensor]) -> Looks:
    """Looks of images [B, C, px, px], whose scale does not matter."""
    bits, copies = [], []
    for images in batches:
        n = images.shape[1]
        weights = torch.tensor(LUMA if n == len(LUMA) else [1 / n] * n)
        grey = torch.einsum("bchw,c->bhw", F.adaptive_avg_pool2d(images.float(), COPY), weights)
        fields = F.avg_pool2d(grey, 2)
        bits.append(torch.where(fields[..., 1:] > fields[..., :-1], 1.0, -1.0).flatten(1))
        flat = grey.flatten(1)
        copies.append(F.normalize(flat - flat.mean(1, keepdim=True), eps=1e-3))
    return Looks(torch.cat(bits), torch.cat(copies))


def alike(these: Looks, those: Looks) -> list[tuple[int, int]]:
    """Pairs (i, j) of photos of `these` and `those` that look alike; of every i the likest j."""
    found: list[tuple[int, int]] = []
    for start in range(0, len(these.bits), ROWS):
        rows = slice(start, start + ROWS)
        is_near = these.bits[rows] @ those.bits.T >= N_BITS - 2 * MOST_BITS
        columns = is_near.any(0).nonzero().flatten()
        if not len(columns):
            continue
        correlation = these.copies[rows] @ those.copies[columns].T
        best, column = torch.where(is_near[:, columns], correlation, 0.0).max(1)
        found += [
            (start + i, int(columns[column[i]]))
            for i in (best >= LEAST_CORRELATION).nonzero().flatten().tolist()
        ]
    return found
