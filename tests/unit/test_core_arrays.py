"""Arrays from elsewhere: plain ones come back, and nothing is unpickled or allocated on a claim."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwnas.core.arrays import read_npy, read_npz
from hwnas.core.errors import UserError
from hwnas.nets.pretrained import read_weights


def npy(array: np.ndarray[Any, Any]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def archive(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in members.items():
            made.writestr(f"{name}.npy", content)
    return path


def test_arrays_of_every_plain_kind_come_back(tmp_path: Path) -> None:
    arrays: dict[str, np.ndarray[Any, Any]] = {
        "f": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "u": np.array(["a", "bc"]),
        "i": np.array(7),
        "e": np.zeros((0, 3), dtype=np.int16),
    }
    np.savez_compressed(tmp_path / "x.npz", **arrays)
    found = read_npz(tmp_path / "x.npz")
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)
    assert list(read_npz(tmp_path / "x.npz", names=("i", "absent"))) == ["i"]


def test_an_array_that_says_it_is_larger_than_its_file_is_not_allocated(tmp_path: Path) -> None:
    honest = npy(np.zeros(64, dtype=np.uint8))
    liar = honest.replace(b"(64,)", b"(64000000000,)").replace(9 * b" " + b"\n", b"\n", 1)
    assert len(liar) == len(honest)
    (tmp_path / "x.npy").write_bytes(liar)
    with pytest.raises(ValueError, match=r"a file of [0-9]+ bytes that does not fit its array"):
        read_npy(tmp_path / "x.npy")
    with pytest.raises(ValueError, match=r"a file of [0-9]+ bytes that does not fit its array"):
        read_npz(archive(tmp_path / "x.npz", x=liar))
    with pytest.raises(UserError, match="cannot read the weights"):
        read_weights(tmp_path / "x.npz")


def test_arrays_beyond_the_bound_are_not_unpacked(tmp_path: Path) -> None:
    path = archive(tmp_path / "x.npz", a=npy(np.zeros(1000)), b=npy(np.zeros(1000)))
    assert len(read_npz(path, at_most=17_000)) == 2
    with pytest.raises(UserError, match="too large"):
        read_npz(path, at_most=16_000)


def test_pickles_and_damage_are_no_arrays(tmp_path: Path) -> None:
    pickled = io.BytesIO()
    np.save(pickled, np.array([{}], dtype=object), allow_pickle=True)
    whole = archive(tmp_path / "whole.npz", x=npy(np.arange(100))).read_bytes()
    for content in (
        pickled.getvalue(),
        b"",
        b"\x93NUMPY\x09\x00",
        whole[:-30],
        whole[:40] + whole[45:],
    ):
        (tmp_path / "x").write_bytes(content)
        for read in (read_npy, read_npz):
            with pytest.raises(ValueError):
                read(tmp_path / "x")
    with pytest.raises(ValueError):
        read_npz(archive(tmp_path / "y.npz", x=pickled.getvalue()))
