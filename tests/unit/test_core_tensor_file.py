"""safetensors files: equal content is equal bytes, and damage is one kind of error."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save

from hwnas.core.errors import UserError
from hwnas.core.tensor_file import in_order, read_arrays, require_sealed, sealed_tensors
from hwnas.exporters.formats import export
from hwnas.nets.subnet import build_subnet
from tests.mutations import mutated_bytes

ARRAYS = {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.ones(3, np.int8)}
METADATA = {name: name.upper() for name in ("space", "data", "arch", "hwnas", "x", "\u732b")}


def test_metadata_is_in_one_order_and_nothing_else_changes(tmp_path: Path) -> None:
    made = {save(ARRAYS, metadata=METADATA) for _ in range(30)}
    assert len(made) > 1  # else the library has an order of its own, and this is not needed
    (ordered,) = {in_order(one) for one in made}
    assert in_order(ordered) == ordered
    assert all(np.array_equal(load(ordered)[name], ARRAYS[name]) for name in ARRAYS)
    (tmp_path / "x").write_bytes(ordered)
    assert read_arrays(tmp_path / "x", "broken")[1] == METADATA


def test_a_file_without_metadata_stays_loadable() -> None:
    assert all(np.array_equal(load(in_order(save(ARRAYS)))[name], ARRAYS[name]) for name in ARRAYS)


def test_damage_is_one_kind_of_error(tmp_path: Path) -> None:
    path, content = tmp_path / "x.safetensors", in_order(save(ARRAYS, metadata=METADATA))
    refused = 0
    for number in range(300):
        path.write_bytes(mutated_bytes(content, random.Random(number)))
        try:
            read_arrays(path, "cannot read the tensors")
        except UserError as error:
            refused += str(path) in str(error)
    assert refused > 100


def test_a_sealed_file_tells_flipped_bits(tmp_path: Path) -> None:
    path, plain = tmp_path / "x.safetensors", in_order(save(ARRAYS, metadata=METADATA))
    content = sealed_tensors(plain)
    path.write_bytes(content)
    require_sealed(path, "not as written")
    assert np.array_equal(read_arrays(path, "broken")[0]["b"], ARRAYS["b"])
    for bit in range(0, 8 * len(content), 3):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        if b'"__metadata__"' in damaged and b'"check"' in damaged:  # else the weights are whole
            with pytest.raises(UserError):
                require_sealed(path, "not as written")
    path.write_bytes(bytes([*content[:-1], content[-1] ^ 1]))
    with pytest.raises(
        UserError, match=r"key `check`\n[\s\S]*found: other content: its hash is different\n"
    ):
        require_sealed(path, "not as written")
    for n in range(0, len(content), 50):
        path.write_bytes(content[:n])
        with pytest.raises(UserError):
            require_sealed(path, "not as written")
    path.write_bytes(plain)  # of earlier versions
    require_sealed(path, "not as written")


def test_an_ort_file_says_nothing_of_where_it_was_made(tiny_space: Any, tmp_path: Path) -> None:
    network = build_subnet(tiny_space, tiny_space.smallest()).eval()
    made = []
    for name in ("one", "other"):
        export(network, "ort", tmp_path / name)
        made.append((tmp_path / name / "model.required_operators.config").read_bytes())
    assert made[0] == made[1] and b"/tmp" not in made[0]
