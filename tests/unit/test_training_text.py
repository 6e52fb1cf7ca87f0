"""Texts: files, vocabulary, windows, and the perplexity of networks on them."""

from __future__ import annotations

import gzip
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from hwnas.core.config import build_model
from hwnas.core.errors import DataAbsent, UserError
from hwnas.interfaces import PERPLEXITY, TOP1, DatasetContext
from hwnas.nets.supernet import Supernet
from hwnas.spaces.load import build_space
from hwnas.training import text as text_files
from hwnas.training.datasets import text
from hwnas.training.evaluate import SupernetEvaluator, evaluate
from hwnas.training.losses import by_position
from hwnas.training.sections import CalibrationConfig, FinetuneConfig
from hwnas.training.standalone import StandaloneEvaluator
from hwnas.training.text import END, UNKNOWN, cut, encode, read_words, vocabulary, windows
from tests.limits import bounded
from tests.photos import write_text

WIKITEXT = "wikitext2_small"


def config(folder: Path, **settings: object) -> text.Config:
    return build_model(text.Config, {"root": str(folder), **settings}, where="test")


def test_lines_end_with_a_token(tmp_path: Path):
    (tmp_path / "a.txt").write_text("the cat\n\n the  dog \n")
    assert read_words(tmp_path / "a.txt") == ("the", "cat", END, END, "the", "dog", END)


def test_wikitext_has_its_published_numbers(test_data: Path):
    """Tokens with and without ends of lines, and distinct words, from the README of the data."""
    words = read_words(test_data / WIKITEXT / "valid.txt.gz")
    assert (len(words), len(words) - words.count(END)) == (217_646, 213_886)
    assert len(set(words) - {END}) == 13_776


def test_rare_words_are_unknown():
    known = vocabulary(["b", "a", "b", "c", END, "a", UNKNOWN], 2, where="test")
    assert known == (END, UNKNOWN, "a", "b")
    assert encode(["a", "c", "b", END], known).tolist() == [2, 1, 3, 0]


def test_a_single_file_is_cut_at_its_end():
    parts = cut(tuple("abcdefghij"), (0.2, 0.1))
    assert ["".join(part) for part in parts] == ["abcdefg", "hi", "j"]


def test_windows_end_with_their_start_and_are_padded_before_the_text():
    x, y = windows(np.arange(1, 10), np.array([0, 3]), n_segments=2, n_steps=3)
    assert x.tolist() == [[[0, 0, 0], [1, 2, 3]], [[1, 2, 3], [4, 5, 6]]]
    assert y.tolist() == [[2, 3, 4], [5, 6, 7]]


def test_three_files_are_the_splits_and_share_the_vocabulary_of_training(tmp_path: Path):
    for name, n in (("train.txt", 900), ("valid.txt", 300)):
        write_text(tmp_path, n, name)
    (tmp_path / "test.txt.gz").write_bytes(gzip.compress(b"w1 w2 never " * 100))
    settings = config(tmp_path, files=("train.txt", "valid.txt", "test.txt.gz"), steps=10)
    data = text.build(settings, DatasetContext(0))
    assert text.ends(settings) == (1, 22) and text.plan(settings).n_images == data.info.n_images
    _, y = next(data.eval_batches("test", 2))
    words = [data.info.class_names[i] for i in y.flatten().tolist()]
    assert words[:5] == ["w2", UNKNOWN, "w1", "w2", UNKNOWN]


@pytest.mark.parametrize(
    ("content", "settings", "message"),
    [
        (b"", {}, "the text is empty"),
        (b"\n \n\n", {}, "(?s)the text is empty.*3 lines without words"),
        (b"\xff\xfe\x00", {}, "not UTF-8"),
        (b"a b c\n", {}, "(?s)too short.*data.steps"),
        (b"\0" * 2000, {}, "(?s)a word of the text is too long.*2,000"),
        (b"a b c\n" * 100, {"files": ["a.txt", "a.txt", "b.txt"]}, "files: .*found a.txt twice"),
        (
            b"a b c\n" * 100,
            {"files": ["a.txt", "b.txt"]},
            "files: expected one file, or three .*, found two files",
        ),
    ],
)
def test_bad_texts_are_refused(tmp_path: Path, content: bytes, settings: dict, message: str):
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(UserError, match=message):
        text.build(config(tmp_path, **{"files": ["a.txt"], **settings}), DatasetContext(0))


def test_the_file_that_is_too_short_is_named(tmp_path: Path):
    for name in ("a.txt", "b.txt", "c.txt"):
        (tmp_path / name).write_bytes(b"a b c\n" * (1 if name == "b.txt" else 100))
    with pytest.raises(UserError, match=r"(?s)the val text is too short.*where: \S*b\.txt"):
        text.build(config(tmp_path, files=["a.txt", "b.txt", "c.txt"]), DatasetContext(0))


def test_damaged_and_missing_files_are_named(tmp_path: Path):
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"a b c " * 1000)[:40])
    with pytest.raises(UserError, match=r"(?s)cannot read the text.*a\.txt\.gz"):
        text.ends(config(tmp_path, files=["a.txt.gz"]))
    with pytest.raises(DataAbsent, match=r"(?s)missing.*b\.txt"):
        text.ends(config(tmp_path, files=["b.txt"]))


@pytest.mark.parametrize("name", ["folder.txt", "folder.gz", "pipe.txt", "pipe.gz", "a\0.txt"])
def test_only_regular_files_are_texts(tmp_path: Path, name: str):
    if name.startswith("folder"):
        (tmp_path / name).mkdir()
    elif name.startswith("pipe"):
        os.mkfifo(tmp_path / name)
    with pytest.raises(UserError, match=r"cannot read the text|neither a file|is missing"):
        text.ends(config(tmp_path, files=[name]))


def test_a_small_file_does_not_become_a_huge_text(tmp_path: Path):
    """A text is compressed to a third; this one to a thousandth."""
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(bytes(1 << 28), 1))
    with (
        bounded(seconds=20, memory=1 << 28),
        pytest.raises(UserError, match=r"(?s)too large.*111 MiB of text, 100 times.*more.*gunzip"),
    ):
        text.ends(config(tmp_path, files=["a.txt.gz"]))


@pytest.mark.parametrize(
    ("name", "limits", "words"),
    [
        ("a.txt", (64, 16), ("expected: at most 0 MiB\n", "fix: use a part")),
        ("a.txt.gz", (64, 16), ("expected: at most 0 MiB\n", "fix: use a part")),
        ("a.txt.gz", (1 << 24, 16), ("100 times the size of the compressed", "gunzip")),
        ("a.txt.gz", (1 << 24, 1 << 14), ("from a compressed file of 135 bytes", "gunzip")),
    ],
)
def test_a_text_that_is_too_large_names_the_limit_that_applies(
    name: str,
    limits: tuple[int, int],
    words: tuple[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(text_files, "MAX_BYTES", limits[0])
    monkeypatch.setattr(text_files, "FREE_BYTES", limits[1])
    content = b"a " * 50_000
    packed = gzip.compress(content, mtime=0)
    (tmp_path / name).write_bytes(packed if name.endswith(".gz") else content)
    with pytest.raises(UserError, match="the text is too large") as caught:
        text.ends(config(tmp_path, files=[name]))
    said = str(caught.value).replace(f"{len(packed):,} bytes", "135 bytes")
    assert all(word in said for word in words) and "found: " in said, said
    assert ("times" in said) == ("times" in words[0])


def test_perplexity_is_that_of_its_definition():
    """A network that gives every word the same probability has the perplexity of the vocabulary."""
    x, y = torch.zeros(3, 1, 5, dtype=torch.int64), torch.arange(15).reshape(3, 5)
    model = torch.nn.Module()
    model.forward = lambda tokens: torch.zeros(len(tokens), 20, tokens.shape[2])  # type: ignore[method-assign]
    score = evaluate(model, [(x, y)])
    assert PERPLEXITY.of(score.top1, score.cross_entropy) == pytest.approx(20)
    assert (score.n_images, score.top1) == (15, 1 / 15)  # ties go to word 0
    assert PERPLEXITY.rate(0.0, math.log(8)) == pytest.approx(1 / 8)
    assert PERPLEXITY.rate(0.0, 1e9) > 0
    assert (TOP1.of(0.8, 1.0), TOP1.rate(0.8, None)) == (0.8, 0.8)


def test_positions_become_rows():
    logits = torch.randn(2, 4, 3)
    assert torch.equal(by_position(logits)[4], logits[1, :, 1])
    assert by_position(logits[..., 0]) is not None and by_position(logits[..., 0]).shape == (2, 4)


def test_networks_learn_a_text(tmp_path: Path):
    """Stand-alone, with dropout, a cell beats the frequencies of words; the best is about 6.5."""
    data = text.build(
        config(write_text(tmp_path, 6000), files=["text.txt"], steps=8), DatasetContext(0)
    )
    space = build_space("darts_ptb", {"width": 16}, num_classes=data.info.num_classes)
    recipe = build_model(
        FinetuneConfig,
        {
            "epochs": 4,
            "batch_size": 16,
            "dropout": 0.1,
            "distillation": 0.0,
            "optimizer": {"lr": 0.02},
            "calibration": {"batch_size": 4},
        },
        where="test",
    )
    trained = StandaloneEvaluator(space, data, recipe, seed=0, checkpoints=tmp_path / "steps")
    found = trained.evaluate(space.largest())
    supernet = SupernetEvaluator(
        Supernet(space, seed=0),
        data,
        build_model(CalibrationConfig, {"batch_size": 4}, where=""),
        seed=0,
    )
    fresh = supernet.evaluate(space.largest())
    perplexity = [PERPLEXITY.of(one.top1, one.val_loss) for one in (fresh, found)]
    assert perplexity[0] == pytest.approx(data.info.num_classes, rel=0.1)
    assert perplexity[1] < 12
    assert found.n_images == fresh.n_images == supernet.n_images == 8 * data.info.n_images["val"]
    assert supernet.chance == 1 / data.info.num_classes
