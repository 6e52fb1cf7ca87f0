"""Texts as windows of tokens: reading, vocabulary, and the data module of language models."""

from __future__ import annotations

import gzip
import os
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Sized
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hwnas.core.confined import open_regular
from hwnas.core.errors import DataAbsent, UserError
from hwnas.interfaces import Split

__all__ = [
    "END",
    "UNKNOWN",
    "Words",
    "cut",
    "encode",
    "n_windows",
    "read_words",
    "vocabulary",
    "windows",
]

END, UNKNOWN = "<eos>", "<unk>"
"""Tokens for the end of a line, and for words that are not in the vocabulary."""
MAX_BYTES = 1 << 30  # maximum size of a decompressed text
MAX_RATIO, FREE_BYTES = 100, 1 << 24  # of a compressed text above a size; texts have 3 to 10
MAX_WORD = 1_000  # characters
MAX_WORDS = 100_000  # maximum size of a vocabulary, see `spaces.checks`

Words = tuple[str, ...]


def read_words(path: Path) -> Words:
    """The tokens of a text: words separated by white space, and `END` after every line.

    Files that end in `.gz` are decompressed.

    Raises:
        DataAbsent: there is no file.
        UserError: the file is damaged, too large, not UTF-8, or has no words.
    """
    try:
        stat = path.stat()
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise DataAbsent(
            "a file of the data set is missing",
            expected="a text of words separated by white space",
            where=path,
            fix="set data.root and data.files, or the environment variable HWNAS_DATA",
        ) from error
    return _read(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=4)
def _read(path: Path, size: int, changed_ns: int) -> Words:
    """`read_words` of a file of this size and time."""
    content = _content(path)
    try:
        lines = content.decode().splitlines()
    except UnicodeDecodeError as error:
        raise UserError(
            "the text is not UTF-8", found=error, where=path, fix="save the file in UTF-8"
        ) from error
    known: dict[str, str] = {}  # a word is stored once
    words = tuple(known.setdefault(w, w) for line in lines for w in (*line.split(), END))
    if (longest := max(map(len, known), default=0)) > MAX_WORD:
        raise UserError(
            "a word of the text is too long",
            expected=f"words separated by white space, of at most {MAX_WORD:,} characters",
            found=f"a word of {longest:,} characters",
            where=path,
        )
    if len(words) == len(lines):
        raise UserError(
            "the text is empty",
            expected="words separated by white space",
            found=f"{len(lines)} lines without words",
            where=path,
        )
    return words


def _content(path: Path) -> bytes:
    try:
        with open_regular(path) as stream:
            size = os.fstat(stream.fileno()).st_size
            if path.suffix == ".gz":
                at_most = min(MAX_BYTES, max(FREE_BYTES, MAX_RATIO * size))
                with gzip.open(stream) as unpacked:
                    content = unpacked.read(at_most + 1)
            else:
                at_most = MAX_BYTES
                content = stream.read(min(at_most, size) + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError("cannot read the text", found=error, where=path) from error
    if len(content) > at_most:
        raise _too_large(path, size, at_most)
    return content


def _too_large(path: Path, size: int, at_most: int) -> UserError:
    """The error for a text with more than `at_most` bytes in a file of `size` bytes."""
    limit, is_packed = f"at most {at_most >> 20:,} MiB", path.suffix == ".gz"
    if at_most == MAX_BYTES:
        fix = "use a part of the text"
    else:
        limit += (
            f" of text from a compressed file of {size:,} bytes"
            if at_most == FREE_BYTES
            else f" of text, {MAX_RATIO} times the size of the compressed file"
        )
        fix = (
            "if you trust the source of the file, decompress it with `gunzip`, and name the"
            " decompressed file in data.files"
        )
    found = "more after decompression" if is_packed else f"{size / 2**20:,.0f} MiB"
    return UserError("the text is too large", expected=limit, found=found, where=path, fix=fix)


def vocabulary(words: Iterable[str], min_count: int, *, where: object) -> tuple[str, ...]:
    """`END`, `UNKNOWN`, and all words that occur `min_count` times, most frequent first.

    Raises:
        UserError: there are too many words.
    """
    counts = Counter(words)
    frequent = [word for word, n in counts.items() if n >= min_count and word not in (END, UNKNOWN)]
    if len(frequent) + 2 > MAX_WORDS:
        raise UserError(
            "the vocabulary is too large",
            expected=f"at most {MAX_WORDS:,} words",
            found=f"{len(frequent) + 2:,}",
            where=where,
            fix="raise data.min_count",
        )
    return (END, UNKNOWN, *sorted(frequent, key=lambda word: (-counts[word], word)))


def encode(words: Sequence[str], known: Sequence[str]) -> NDArray[np.int64]:
    """Numbers of words in a vocabulary, int64 [n]; other words are `UNKNOWN`."""
    number = {word: i for i, word in enumerate(known)}
    unknown = number[UNKNOWN]
    return np.array([number.get(word, unknown) for word in words], dtype=np.int64)


def cut(words: Words, fractions: Sequence[float]) -> list[Words]:
    """Cuts a text into len(fractions) + 1 parts, in order.

    fractions: shares of the tokens, for all parts except the first, which has the rest.
    """
    ends = np.cumsum(fractions[::-1])[::-1]
    starts = [0, *(len(words) - round(end * len(words)) for end in ends), len(words)]
    return [words[start:end] for start, end in pairwise(starts)]


def n_windows(texts: Mapping[Split, Sized], n_steps: int) -> dict[str, int]:
    """Number of windows of `n_steps` tokens in each split.

    The text must continue after a window by at least one token. The training text has one window
    less, because its windows are shifted.
    """
    return {
        split: max(0, (len(text) - 1) // n_steps - (split == "train"))
        for split, text in texts.items()
    }


def windows(
    tokens: NDArray[np.int64], starts: NDArray[np.int64], n_segments: int, n_steps: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Windows [n, n_segments, n_steps] whose last segment begins at `starts`, and the next tokens.

    Returns:
        The windows, and the token after each token of their last segment, [n, n_steps]. Windows
            that begin before the text are filled up with 0 (`END`).
    """
    before = (n_segments - 1) * n_steps
    padded = np.concatenate([np.zeros(before, dtype=np.int64), tokens])
    rows = starts[:, None] + np.arange(before + n_steps + 1)
    found = padded[rows]
    shape = len(starts), n_segments, n_steps
    return found[:, :-1].reshape(shape), found[:, before + 1 :]
