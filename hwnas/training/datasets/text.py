"""Texts for language models: words separated by white space, in one file or three."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from hwnas.core.config import StrictModel
from hwnas.core.errors import Invalid, UserError
from hwnas.interfaces import (
    DataIdentity,
    DataInfo,
    DataModule,
    DataPlan,
    DatasetContext,
    Split,
)
from hwnas.training.identity import SPLITS, identity_of_files
from hwnas.training.photo_config import data_root
from hwnas.training.text import Words, cut, encode, n_windows, read_words, vocabulary

__all__ = ["HAS_TOKENS", "Config", "build", "ends", "identity", "plan"]

HAS_TOKENS = True


class Config(StrictModel):
    """The files of a text, its vocabulary, and the windows that networks read.

    Words of the vocabulary are those of the training text. Every line ends with the token `<eos>`.
    """

    name: Literal["text"] = "text"
    root: str = Field(
        default="text",
        description="Folder of the texts, relative to $HWNAS_DATA (default: the working"
        " directory).",
    )
    files: Annotated[tuple[str, ...], Field(min_length=1, max_length=3)] = Field(
        default=("train.txt", "valid.txt", "test.txt"),
        description="The texts for training, validation and test; or one file, which is split into"
        " these. `.gz` files are decompressed.",
    )
    val_fraction: float = Field(
        default=0.1,
        gt=0,
        lt=0.5,
        description="Share of the text used for validation. This part comes before the part for"
        " the test. Only for a single file.",
    )
    test_fraction: float = Field(
        default=0.1,
        gt=0,
        lt=0.5,
        description="Share of the text used for the test, at its end; only for a single file.",
    )
    min_count: Annotated[int, Field(ge=1)] = Field(
        default=1,
        description="Minimum number of occurrences of a word in the training text; rarer words"
        " become `<unk>`.",
    )
    steps: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=35, description="Number of tokens of a window; gradients flow through all of them."
    )
    context: Annotated[int, Field(ge=0, le=100)] = Field(
        default=1,
        description="Number of windows that the network reads before each window, to set its state;"
        " gradients do not flow through them.",
    )

    @model_validator(mode="after")
    def _one_or_three(self) -> Config:
        if len(self.files) == 2:
            raise Invalid("one file, or three (train, val, test)", "two files", key="files")
        if twice := sorted({name for name in self.files if self.files.count(name) > 1}):
            raise Invalid("different files", f"{twice[0]} twice", key="files")
        return self


def ends(config: Config) -> tuple[int, int]:
    """Input channels (1: a network reads one token per step) and number of words of the vocabulary.

    Raises:
        DataAbsent: a file is missing.
        UserError: a file is damaged or empty.
    """
    return 1, len(_vocabulary(config))


def identity(config: Config) -> DataIdentity:
    """Content hashes of the files.

    Raises:
        DataAbsent: a file is missing.
    """
    folder, names = data_root(config.root), config.files
    if len(names) == 1:
        stored, parts = {"train": names}, {str(split): "train" for split in SPLITS}
    else:
        stored = {str(split): (name,) for split, name in zip(SPLITS, names, strict=True)}
        parts = {str(split): str(split) for split in SPLITS}
    return identity_of_files(folder, stored, parts, _vocabulary(config))


def plan(config: Config) -> DataPlan:
    """Number of windows in each split.

    Raises:
        UserError: a file is missing, damaged or empty.
    """
    return DataPlan(n_windows(_texts(config), config.steps), base_px=1)


def build(config: Config, context: DatasetContext) -> DataModule:
    """The data set: windows of the texts, by split.

    Raises:
        UserError: a file is missing, damaged or empty.
    """
    from hwnas.training.text_data import TextData

    known, digests = _vocabulary(config), identity(config).digests
    tokens = {split: encode(words, known) for split, words in _texts(config).items()}
    n_images = n_windows(tokens, config.steps)
    if short := [split for split in SPLITS if not n_images[split]]:
        files = dict(zip(SPLITS, config.files, strict=False))
        raise UserError(
            f"the {short[0]} text is too short",
            expected=f"more than {2 * config.steps} tokens (data.steps)",
            found=f"{len(tokens[short[0]])} tokens",
            where=data_root(config.root) / files.get(short[0], config.files[0]),
            fix="lower data.steps, or use a longer text",
        )
    info = DataInfo(config.root, known, (0.0,), (1.0,), 1, n_images, digests)
    return TextData(info, tokens, context.seed, config.context + 1, config.steps)


def _texts(config: Config) -> dict[Split, Words]:
    """The words of every split."""
    folder = data_root(config.root)
    texts = [read_words(folder / name) for name in config.files]
    if len(texts) == 1:
        texts = cut(texts[0], (config.val_fraction, config.test_fraction))
    return dict(zip(SPLITS, texts, strict=True))


def _vocabulary(config: Config) -> tuple[str, ...]:
    where = data_root(config.root) / config.files[0]
    return vocabulary(_texts(config)["train"], config.min_count, where=where)
