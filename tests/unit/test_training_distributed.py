"""Words, shared tasks and parts of batches, on a store that needs no second process."""

from __future__ import annotations

import socket
import threading
import time

import pytest
import torch
from torch.distributed import HashStore

from hwnas.core.errors import UserError
from hwnas.interfaces import DataModule, DatasetContext
from hwnas.training.agreement import agree
from hwnas.training.data import batches_from, part_of_batch
from hwnas.training.datasets import digits
from hwnas.training.distributed import ALONE, END, Ranks, agreed_name, follows, join


def ranks(n: int) -> list[Ranks]:
    store = HashStore()
    return [Ranks(rank, n, store) for rank in range(n)]


def in_threads(*work) -> None:
    threads = [threading.Thread(target=one, daemon=True) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive(), "it hangs"


def test_words_arrive_in_order_until_the_end():
    first, *others = ranks(3)
    heard: list[list] = [[], []]

    def listen(i: int) -> None:
        while (word := others[i].hear()) is not None:
            heard[i].append(word)

    def talk() -> None:
        for word in ({"stage": "train"}, 7, ["a"]):
            first.tell(word)
            time.sleep(0.02)
        first.store.set(END, "")

    in_threads(talk, lambda: listen(0), lambda: listen(1))
    assert heard == [[{"stage": "train"}, 7, ["a"]]] * 2


@pytest.mark.parametrize("n", [1, 2, 3])
def test_processes_that_are_started_again_agree_on_another_name(n: int):
    """Found by killing a rank: the second start heard the words of the first from the store."""
    store, names = HashStore(), []
    for _ in range(3):
        found: dict[int, str] = {}
        joining = [
            lambda rank=rank, found=found: found.update({rank: agreed_name(store, rank, n)})
            for rank in range(n)
        ]
        in_threads(*joining[::-1])  # the others first: they find what is left from before
        assert len(found) == n and len(set(found.values())) == 1
        names.append(found[0])
    assert len(set(names)) == 3


def test_ranks_with_other_data_all_stop_and_say_what_differs():
    """Case 22: an incomplete copy; classes of other names; none at all."""
    whole = {"n_images train": 56, "class_names": ["ant", "bee"]}
    one = ranks(4)
    said = [whole, whole, {"n_images train": 50, "class_names": ["bee", "zebra"]}, None]
    errors: list[str | None] = [None] * 4

    def take_part(rank: int) -> None:
        def facts() -> dict[str, object]:
            if said[rank] is None:
                raise UserError("no such folder of images")
            return said[rank]

        try:
            agree(one[rank], facts, subject="data")
        except UserError as error:
            errors[rank] = str(error)

    in_threads(*[lambda rank=rank: take_part(rank) for rank in (3, 1, 2, 0)])
    for error in errors[:3]:
        assert error is not None
        place = f"different data on rank 2 ({socket.gethostname()})"
        assert f"{place}: n_images train 50, on rank 0 56; class_names zebra, on rank 0" in error
        assert "on rank 0 ant" in error and "on rank 1 (" not in error
        assert "): no such folder of images" in error
    assert errors[3] == "no such folder of images"


def test_ranks_with_the_same_data_go_on():
    one = ranks(3)
    heard: list[object] = []

    def take_part(rank: int) -> None:
        agree(one[rank], lambda: {"n_images train": 56}, subject="data")
        heard.append("next" if one[rank].leads else one[rank].hear())

    def lead() -> None:
        take_part(0)
        one[0].tell("next")

    in_threads(lead, lambda: take_part(1), lambda: take_part(2))
    assert heard == ["next"] * 3
    agree(ALONE, lambda: 1 / 0, subject="data")  # type: ignore[arg-type, return-value]  # unasked


@pytest.mark.parametrize("n", [1, 2, 3])
def test_every_task_is_done_once_by_whoever_is_free(n: int):
    done: list[tuple[int, int]] = []
    kept: dict[int, int] = {}

    def work(one: Ranks) -> None:
        def do(task: int) -> int:
            done.append((one.rank, task))
            time.sleep(0.1 if one.rank == 0 else 0.01)  # rank 0 is slow
            return task**2

        assert one.leads or n > 1
        for _ in range(2):  # results of an earlier call are not taken for those of a later one
            one.share(range(10) if one.leads else [], do, kept.__setitem__)

    in_threads(*(lambda one=one: work(one) for one in (ranks(n) if n > 1 else [ALONE])))
    assert sorted(task for _, task in done) == sorted([*range(10)] * 2)
    assert kept == {task: task**2 for task in range(10)}
    if n > 1:
        assert sum(rank == 0 for rank, _ in done) < 10


def test_alone_nothing_is_exchanged():
    weight = torch.nn.Parameter(torch.ones(3))
    weight.grad = torch.arange(3.0)
    ALONE.align(5, [weight])
    assert ALONE.average([weight], [1.0, 2.0]) == [1.0, 2.0]
    assert weight.grad.tolist() == [0, 1, 2]
    with ALONE.group():
        pass


def test_without_torchrun_a_process_is_alone(monkeypatch):
    assert join() is ALONE and not follows()
    for name, value in {"WORLD_SIZE": "4", "RANK": "2"}.items():
        monkeypatch.setenv(name, value)  # some schedulers set these for every job
    assert join() is ALONE and not follows()
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    assert follows()
    monkeypatch.setenv("RANK", "0")
    assert not follows()


@pytest.mark.parametrize("n", [1, 2, 4])
def test_parts_of_batches_make_up_the_whole(n: int):
    data: DataModule = digits.build(digits.Config(base_px=8), DatasetContext(0))

    def some(**part: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        batches = batches_from(data, 8, 133, **part)  # over the end of an epoch
        return [next(batches) for _ in range(4)]

    parts = [some(rank=rank, n_ranks=n) for rank in range(n)]
    for step, (x, y) in enumerate(some()):
        assert torch.equal(torch.cat([part[step][0] for part in parts]), x)
        assert torch.equal(torch.cat([part[step][1] for part in parts]), y)


@pytest.mark.parametrize(("size", "n", "fix"), [(33, 2, "32"), (8, 8, "16"), (4, 3, "6")])
def test_uneven_parts_are_refused(size: int, n: int, fix: str):
    with pytest.raises(UserError, match=f"batch_size={fix},"):
        part_of_batch(size, 0, n)


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("LOCAL_RANK", "1")
    with (
        pytest.raises(
            UserError,
            match=r"more processes than GPUs\n  expected: at most 1 p.*\n  found: at least 2 p",
        ),
        Ranks(1, 2, HashStore()).group(),
    ):
        pass


def test_another_checkpoint_than_the_first_ranks_is_refused():
    first, second = ranks(2)
    first.tell(40)
    with pytest.raises(UserError, match="sees a different checkpoint") as caught:
        second.align(20, [])
    assert "step 40" in str(caught.value) and "step 20 on rank 1" in str(caught.value)
