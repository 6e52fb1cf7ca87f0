"""The archive against plain Python bookkeeping, and its file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwnas.controller.archive import Archive, CodeIndex
from hwnas.controller.record_log import append_records, read_records
from hwnas.controller.storage import Progressed, SearchFolder
from hwnas.core.errors import UserError
from hwnas.spaces import mobilenet_tiny
from hwnas.spaces.load import build_space
from hwnas.spaces.space import Codes

SPACE = mobilenet_tiny.build(mobilenet_tiny.Config(resolutions=(16,)), num_classes=10)


def value(codes: Codes) -> np.ndarray:
    return np.asarray(codes.sum(axis=1) / 7)


def described(fresh: Codes) -> dict[str, np.ndarray]:
    return {
        "predicted": value(fresh),
        "predicted_std": np.full(len(fresh), 0.5),
        "macs": 100.0 - value(fresh),
        "feasible": fresh[:, 1] == 0,
    }


def fill(archive: Archive, codes: Codes) -> np.ndarray:
    return archive.record(codes, described)


def batches() -> list[Codes]:
    """Batches with repeats within and among them, past the first reservation of rows."""
    base = SPACE.sample(3000, rng=np.random.default_rng(0))
    return [base[:1500], base[1000:2000], np.concatenate([base[2000:], base[2500:]])]


def test_archs_are_kept_once_in_order_of_arrival() -> None:
    archive = Archive(SPACE, ("macs",))
    expected: dict[tuple[int, ...], None] = {}
    for codes in batches():
        rows = fill(archive, codes)
        expected.update(dict.fromkeys(map(tuple, codes.tolist())))
        np.testing.assert_array_equal(archive.column("codes"), list(expected))
        np.testing.assert_array_equal(archive.column("codes")[rows], codes)
    assert len(archive) == len(expected) > 2000
    np.testing.assert_array_equal(archive.column("score"), value(archive.column("codes")))


def test_known_archs_are_not_described_again() -> None:
    archive, codes = Archive(SPACE, ("macs",)), batches()[0]
    rows = fill(archive, codes)

    def refuse(fresh: Codes) -> dict[str, np.ndarray]:
        raise AssertionError(fresh)

    np.testing.assert_array_equal(archive.record(codes[::-1], refuse), rows[::-1])


def test_numbers_are_those_of_a_dict() -> None:
    """Small codes, so that batches repeat each other and themselves, through several growths."""
    random, index = np.random.default_rng(0), CodeIndex()
    known: dict[tuple[int, ...], int] = {}
    for size in random.integers(0, 400, size=100):
        codes = random.integers(0, 12, size=(size, 4)).astype(np.int16)
        rows, new = index.add(codes)
        keys = list(map(tuple, codes.tolist()))
        expected_new = [i for i, key in enumerate(keys) if key not in known and key not in keys[:i]]
        for i in expected_new:
            known[keys[i]] = len(known)
        assert new.tolist() == expected_new
        assert rows.tolist() == [known[key] for key in keys]
    assert len(index) == len(known) > 8000


def test_columns_are_read_only() -> None:
    archive = Archive(SPACE, ("macs",))
    fill(archive, batches()[0])
    with pytest.raises(ValueError, match="read-only"):
        archive.column("score")[0] = 1.0


def test_top_is_a_stable_sort_of_what_is_eligible() -> None:
    archive = Archive(SPACE, ("macs",))
    fill(archive, batches()[0])
    feasible = np.flatnonzero(archive.column("feasible"))
    order = sorted(feasible, key=lambda row: (-archive.column("score")[row], row))
    for k in (1, 10, len(feasible), len(feasible) + 5):
        assert archive.top(k).tolist() == order[:k]
    assert archive.top(3, among=np.zeros(len(archive), dtype=bool)).tolist() == []


def test_evaluation_replaces_the_score_and_moves_the_front() -> None:
    archive = Archive(SPACE, ("macs",))
    fill(archive, batches()[0])
    row = np.array([int(archive.column("macs").argmax())])  # dear and poor
    assert row[0] not in archive.front("macs")
    archive.set_labels(row, np.array([0.9]), np.array([99.0]))
    assert archive.evaluated.tolist() == row.tolist()
    assert archive.column("label")[row] == 0.9
    front = archive.front("macs")
    assert front[-1] == row[0]
    assert (np.diff(archive.column("macs")[front]) >= 0).all()
    assert (np.diff(archive.column("score")[front]) >= 0).all()


def columns(archive: Archive) -> dict[str, list[object]]:
    names = ("codes", "predicted", "predicted_std", "label", "score", "feasible", "macs")
    found = {name: np.nan_to_num(archive.column(name), nan=-1.0).tolist() for name in names}
    return found | {"evaluated": archive.evaluated.tolist()}


def test_every_prefix_of_the_files_is_the_archive_at_that_time(tmp_path: Path) -> None:
    archive, past, sizes = Archive(SPACE, ("macs",)), [], []
    for step, codes in enumerate(batches()):
        fill(archive, codes)
        rows = np.array([step, 5 + step])
        archive.set_labels(rows, np.array([0.5, 0.6]), np.array([step + 0.5, step + 0.1]))
        archive.append_to(tmp_path)
        past.append(columns(archive))
        sizes.append({"n_rows": len(archive), "n_evaluated": len(archive.evaluated)})
    whole = contents(tmp_path)
    for path in tmp_path.iterdir():
        with open(path, "ab") as stream:
            stream.write(b"torn")
    assert columns(Archive.load(tmp_path, SPACE)) == past[-1]
    for state, size in zip(reversed(past), reversed(sizes), strict=True):
        loaded = Archive.load(tmp_path, SPACE, **size)
        assert columns(loaded) == state
    # Loading a past state cut the files there, and the archive goes on from it.
    for codes in batches()[1:]:
        fill(loaded, codes)
    loaded.set_labels(np.array([1, 6]), np.array([0.5, 0.6]), np.array([1.5, 1.1]))
    loaded.append_to(tmp_path)
    loaded.set_labels(np.array([2, 7]), np.array([0.5, 0.6]), np.array([2.5, 2.1]))
    loaded.append_to(tmp_path)
    again = Archive.load(tmp_path, SPACE)
    assert columns(again) == columns(loaded)
    assert again.digests == loaded.digests == archive.digests
    assert contents(tmp_path) == whole  # whenever it was saved


def read_all(path: Path) -> tuple[dict[str, Any], bytes]:
    log = read_records(path)
    parts = log.parts(np.dtype([("byte", "u1")]), log.n_bytes)
    return log.about, b"".join(part.tobytes() for part in parts)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("n_bytes", [0, 10, 200, 1000, 5000])
def test_a_torn_file_is_made_whole_by_the_next_append(tmp_path: Path, n_bytes: int) -> None:
    archive = Archive(SPACE, ("macs",))
    fill(archive, batches()[0])
    archive.append_to(tmp_path)
    path = tmp_path / "archive.bin"
    whole = path.read_bytes()
    about, body = read_all(path)
    itemsize = len(body) // len(archive)
    path.write_bytes(whole[:n_bytes])
    kept = max(0, n_bytes - (len(whole) - len(body))) // itemsize
    records = np.frombuffer(body, dtype=f"V{itemsize}")
    append_records(path, about, records[kept:])
    assert path.read_bytes() == whole


def test_unusable_files_are_explained(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="empty or incomplete"):
        Archive.load(tmp_path, SPACE)
    archive = Archive(SPACE, ("macs",))
    fill(archive, batches()[0])
    archive.append_to(tmp_path)
    with pytest.raises(UserError, match="empty or incomplete"):
        Archive.load(tmp_path, SPACE, n_rows=len(archive) + 1, n_evaluated=0)
    with pytest.raises(UserError, match="empty or incomplete"):
        Archive.load(tmp_path, SPACE, n_rows=len(archive), n_evaluated=1)
    other = mobilenet_tiny.build(mobilenet_tiny.Config(resolutions=(24,)), num_classes=10)
    with pytest.raises(UserError, match="another space"):
        Archive.load(tmp_path, other)
    path = tmp_path / "archive.bin"
    about, body = read_all(path)
    itemsize = len(body) // len(archive)
    append_records(path, about, np.frombuffer(body, dtype=f"V{itemsize}"))
    with pytest.raises(UserError, match=r"is damaged\n.*each once\n  found: a duplicate arch"):
        Archive.load(tmp_path, SPACE)
    path.write_bytes(b"not json\n" + body)
    with pytest.raises(UserError, match="damaged first line"):
        Archive.load(tmp_path, SPACE)


def test_a_damaged_search_starts_again_without_asking_for_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    archive, folder = Archive(SPACE, ("macs",)), SearchFolder(tmp_path, "this search")
    fill(archive, batches()[0])
    folder.save(archive, Progressed(len(archive), 0, 1, 1, 1.0, {}))
    (tmp_path / "archive.bin").write_bytes(b"")
    assert folder.load(SPACE) is None
    assert "incomplete" in caplog.text and "the search starts again" in caplog.text
    assert "fix:" not in caplog.text


def test_a_search_of_a_newer_version_is_refused_and_kept(tmp_path: Path) -> None:
    archive, folder = Archive(SPACE, ("macs",)), SearchFolder(tmp_path, "this search")
    fill(archive, batches()[0])
    folder.save(archive, Progressed(len(archive), 0, 1, 1, 1.0, {}))
    path = tmp_path / "state.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": 2, "more": 1}))
    before = contents(tmp_path)
    with pytest.raises(UserError) as caught:
        folder.load(SPACE)
    assert str(caught.value) == (
        "the state of a search was written by a newer hwnas\n"
        "  expected: `schema_version`: at most 1\n"
        "  found: `schema_version`: 2\n"
        f"  where: {path}\n"
        "  fix: upgrade hwnas"
    )
    assert contents(tmp_path) == before


@pytest.mark.parametrize(("beyond", "is_damaged"), [(-1, False), (0, True)])
def test_codes_outside_the_space_are_damage(tmp_path: Path, beyond: int, is_damaged: bool) -> None:
    archive = Archive(SPACE, ("macs",))
    codes = SPACE.codes([SPACE.largest()])
    codes[0, 0] = len(SPACE.choices[0].values) + beyond
    fill(archive, codes)
    archive.append_to(tmp_path)
    if is_damaged:
        with pytest.raises(UserError, match="a code outside the space"):
            Archive.load(tmp_path, SPACE)
    else:
        np.testing.assert_array_equal(Archive.load(tmp_path, SPACE).column("codes"), codes)


def test_codes_beyond_one_byte_come_back(tmp_path: Path) -> None:
    """Code 266 returned as 10 when the file kept one byte of each code."""
    ops = [{"name": f"e{n}", "expand": 1 + n / 64} for n in range(300)]
    space = build_space(
        "mobile",
        {
            "resolutions": [16],
            "stem": {"widths": [8]},
            "stages": [{"widths": [8], "ops": ops}],
            "head": {"width": 16},
        },
        num_classes=2,
    )
    codes = np.zeros((3, len(space.choices)), dtype=np.int16)
    codes[:, -1] = 10, 266, 299
    archive = Archive(space, ("macs",))
    assert fill(archive, codes).tolist() == [0, 1, 2]
    archive.append_to(tmp_path)
    loaded = Archive.load(tmp_path, space)
    np.testing.assert_array_equal(loaded.column("codes"), codes)
    assert fill(loaded, codes).tolist() == [0, 1, 2]
    path = tmp_path / "archive.bin"
    path.write_bytes(path.read_bytes().replace(b'"code_type":"<u2",', b""))  # of before
    with pytest.raises(UserError, match="eight bits"):
        Archive.load(tmp_path, space)
