"""The test split of a bundle's data set; refuses another data set, and names the differences."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hwnas.core.errors import UserError
from hwnas.exporters.manifest import InputSpec, Manifest
from hwnas.interfaces import DataIdentity, DataModule

__all__ = ["test_split"]

PREPARED = ("shape", "mean", "std", "resize_px")  # preprocessing of images
N_NAMED = 5  # changes of classes that are printed


def test_split(
    manifest: Manifest, data: DataModule, folder: Path
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Test images [n, C, H, W] as inputs of the bundle's models, and labels [n].

    Raises:
        UserError: the bundle in `folder` belongs to another data set.
    """
    import torch

    from hwnas.training.images import resize

    px = manifest.input.shape[-1]
    _require_same(manifest.input, InputSpec.of(data.info, px), data.info.name, folder)
    batches = list(data.eval_batches("test", 512))
    x: NDArray[np.float32] = torch.cat([resize(b, px) for b, _ in batches]).contiguous().numpy()
    labels: NDArray[np.int64] = torch.cat([labels for _, labels in batches]).numpy()
    return x, labels


def _require_same(promised: InputSpec, found: InputSpec, name: str, folder: Path) -> None:
    if found == promised:
        return
    fields = [f for f in PREPARED if getattr(promised, f) != getattr(found, f)]
    expected = [f"{field} {getattr(promised, field)}" for field in fields]
    here = [f"{field} {getattr(found, field)}" for field in fields]
    fix = "give the configuration that the bundle was made with: --config NAME"
    if promised.class_names != found.class_names:
        expected.append(f"{len(promised.class_names)} classes, with the names in its manifest.json")
        here += _changes(promised.class_names, found.class_names)
        if not fields:
            fix = (
                "restore the names of the classes (folders, or class list), or export the network"
                " again; without --config, a bundle outside of its run folder is compared on its"
                " golden inputs"
            )
    raise UserError(
        "the bundle belongs to another data set",
        expected="; ".join(expected),
        found=f"{'; '.join(here)} (data set {name})",
        where=folder,
        fix=fix,
    )


def _changes(old: Sequence[str], new: Sequence[str]) -> list[str]:
    """The first few differences between names of classes."""
    from hwnas.training.identity import describe_change

    pairs = [(was, name) for was, name in zip(old, new, strict=False) if was != name]
    gone, come = set(old) - set(new), set(new) - set(old)
    if len(old) == len(new) and all(was in gone and name in come for was, name in pairs):
        lines = [f"class {was!r} is now {name!r}" for was, name in pairs]
    else:
        lines = describe_change(DataIdentity(tuple(old), {}, {}), DataIdentity(tuple(new), {}, {}))
    more = len(lines) - N_NAMED
    return [*lines[:N_NAMED], *([f"{more} more changes of classes"] if more > 0 else [])]
