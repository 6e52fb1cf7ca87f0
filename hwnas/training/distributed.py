"""Distributed training under torchrun, led by rank 0, with one all-reduce per step.

Rank 0 runs the command of the user. Only rank 0 has the lock of the run folder and writes to it.
The other ranks wait for its commands, and do their part of the work that a command names. Commands
are JSON in the key-value store of torchrun. Gradients use torch.distributed: NCCL between GPUs,
gloo between CPUs.
If a process dies, torchrun stops the others and, with --max-restarts, starts all of them again.

A single process does not import torch here.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

from hwnas.core.errors import UserError

if TYPE_CHECKING:
    import torch

__all__ = ["ALONE", "Ranks", "agreed_name", "dismiss", "follows", "join", "local_rank"]

POLL_S = 0.05
PATIENCE = timedelta(hours=2)  # others wait in the all-reduce while rank 0 evaluates the curves
END = "end"


@dataclass(frozen=True)
class Ranks:
    """This process, `rank`, out of `size` processes that work together; by default a single one.

    `store` is that of torchrun (a torch.distributed.Store).
    """

    rank: int = 0
    size: int = 1
    store: Any = None
    _words: Iterator[int] = field(default_factory=itertools.count, repr=False)
    _groups: Iterator[int] = field(default_factory=itertools.count, repr=False)

    @property
    def leads(self) -> bool:
        """Whether this process writes files."""
        return self.rank == 0

    @property
    def path(self) -> tuple[int, ...]:
        """Suffix of the names of random streams that differ between ranks; empty on rank 0."""
        return (self.rank,) if self.rank else ()

    def tell(self, word: Any) -> None:
        """On rank 0: sends a JSON value to all other ranks, which must call `hear`."""
        if self.store is not None and self.leads:
            self.store.set(f"word/{next(self._words)}", json.dumps(word))

    def hear(self) -> Any:
        """On other ranks: the next value from rank 0, in order; None after rank 0 has ended."""
        key = f"word/{next(self._words)}"
        while not self.store.check([key]):
            if self.store.check([END]) and not self.store.check([key]):
                return None
            time.sleep(POLL_S)  # polls instead of blocking, so that signals are handled
        return json.loads(self.store.get(key))

    def share(
        self, tasks: Sequence[Any], do: Callable[[Any], Any], keep: Callable[[Any, Any], None]
    ) -> None:
        """Runs every task of rank 0's list once, on the first free rank.

        Args:
            tasks: JSON values; only those of rank 0 are used.
            do: maps a task to its result, a JSON value.
            keep: called on rank 0 with each task and its result, as soon as it is known.
        """
        if self.store is None:
            for task in tasks:
                keep(task, do(task))
            return
        name = f"tasks/{next(self._groups)}"
        self.tell(list(tasks))
        tasks = tasks if self.leads else self.hear()
        elsewhere: dict[int, Any] = dict(enumerate(tasks))
        while (n := self.store.add(name, 1) - 1) < len(tasks):
            result = do(tasks[n])
            if self.leads:
                keep(elsewhere.pop(n), result)
                self._collect(name, elsewhere, keep)
            else:
                self.store.set(f"{name}/{n}", json.dumps(result))
        while self.leads and elsewhere:
            self._collect(name, elsewhere, keep)
            time.sleep(POLL_S)

    def _collect(
        self, name: str, elsewhere: dict[int, Any], keep: Callable[[Any, Any], None]
    ) -> None:
        for n in [n for n in elsewhere if self.store.check([f"{name}/{n}"])]:
            keep(elsewhere.pop(n), json.loads(self.store.get(f"{name}/{n}")))

    def gather(self, value: Any) -> list[Any]:
        """Returns all ranks' JSON values on rank 0, [] on others. All must call it together."""
        name = f"values/{next(self._groups)}"
        if not self.leads:
            self.store.set(f"{name}/{self.rank}", json.dumps(value))
            return []
        found = [json.loads(json.dumps(value))]
        for rank in range(1, self.size):
            while not self.store.check([f"{name}/{rank}"]):
                time.sleep(POLL_S)
            found.append(json.loads(self.store.get(f"{name}/{rank}")))
        return found

    @contextlib.contextmanager
    def group(self) -> Iterator[None]:
        """Context in which `align` and `average` work. All ranks must enter it together.

        Raises:
            UserError: more processes than GPUs on a machine that has GPUs.
        """
        if self.store is None:
            yield
            return
        import torch
        import torch.distributed as dist
        from torch.distributed.distributed_c10d import PrefixStore

        gpus, local = torch.cuda.device_count(), local_rank()
        if gpus and local >= gpus:
            raise UserError(
                "more processes than GPUs",
                expected=f"at most {gpus} processes on this machine",
                found=f"at least {local + 1} processes",
                fix=f"torchrun --nproc-per-node={gpus}, or CUDA_VISIBLE_DEVICES= to use CPUs",
            )
        if gpus:
            torch.cuda.set_device(local)
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if gpus else "gloo",
            store=PrefixStore(f"group/{next(self._groups)}", self.store),
            rank=self.rank,
            world_size=self.size,
            timeout=PATIENCE,
        )
        yield
        dist.barrier()
        dist.destroy_process_group()  # not after an error, because other processes may be gone

    def align(self, step: int, weights: Iterable[torch.Tensor]) -> None:
        """Before the first step: copies the weights of rank 0 to all ranks, at the same step.

        Raises:
            UserError: this rank found another checkpoint than rank 0.
        """
        if self.store is None:
            return
        import torch.distributed as dist

        self.tell(step)
        if not self.leads and (first := self.hear()) != step:
            raise UserError(
                "this machine sees a different checkpoint than rank 0",
                expected=f"the checkpoint of step {first}",
                found=f"the checkpoint of step {step} on rank {self.rank}",
                fix="put the run folder on a file system that all machines share",
            )
        for tensor in weights:
            dist.broadcast(tensor.detach(), src=0)

    def average(self, weights: Iterable[torch.Tensor], losses: Sequence[float]) -> list[float]:
        """Averages gradients of the weights over all ranks, in place; returns the averaged losses.

        All ranks ran the same archs, so the same weights have a gradient. One flat tensor is
        all-reduced. If a loss is not finite on one rank, it is not finite on all.

        Raises:
            UserError: another process is gone.
        """
        if self.store is None:
            return list(losses)
        import torch
        import torch.distributed as dist

        gradients = [weight.grad for weight in weights if weight.grad is not None]
        like = gradients[0] if gradients else torch.empty(0)
        flat = torch.cat([*(g.reshape(-1) for g in gradients), like.new_tensor(losses)])
        try:
            dist.all_reduce(flat)
        except RuntimeError as error:
            raise UserError(
                "another process of this training has stopped",
                found=str(error).splitlines()[0],
                where=f"rank {self.rank} of {self.size}",
                fix="see its messages; torchrun --max-restarts=N restarts all of them, and "
                "training resumes from its last checkpoint",
            ) from error
        flat /= self.size
        sizes = [*(gradient.numel() for gradient in gradients), len(losses)]
        *means, mean_losses = torch.split(flat, sizes)
        for gradient, mean in zip(gradients, means, strict=True):
            gradient.copy_(mean.view(gradient.shape))
        found: list[float] = mean_losses.tolist()
        return found


ALONE = Ranks()


def follows() -> bool:
    """Whether torchrun started this process as a follower."""
    return _is_one_of_many() and os.environ.get("RANK") != "0"


def join() -> Ranks:
    """The rank of this process under torchrun; `ALONE` without torchrun."""
    if not _is_one_of_many():
        return ALONE
    return Ranks(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), _store())


def dismiss() -> None:
    """On rank 0, at the end of the command: lets the other ranks end as well."""
    if _is_one_of_many():
        _store().set(END, "")


def _is_one_of_many() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


@cache
def _store() -> Any:
    """The key-value store of torchrun, with a prefix on which the processes of this start agree."""
    from torch.distributed import distributed_c10d as c10d
    from torch.distributed.rendezvous import rendezvous

    found, rank, size = next(rendezvous("env://"))
    store = c10d.PrefixStore("hwnas", found)
    return c10d.PrefixStore(agreed_name(store, rank, size), store)


def local_rank() -> int:
    """Index of this process on its machine, which selects its GPU; 0 without torchrun."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def agreed_name(store: Any, rank: int, size: int) -> str:
    """Sends a new random name from rank 0 to all ranks, and returns it once all ranks have it.

    After a restart, the store of torchrun still has the values of the previous start. The new name
    separates keys of this start from them. Each rank asks for it with a random word of its own, so
    that it cannot read an old answer.
    """
    name = uuid.uuid4().hex
    if rank == 0:
        missing = set(range(1, size))
        while missing:
            for n in [n for n in missing if store.check([f"asks/{n}"])]:
                store.set(f"answer/{store.get(f'asks/{n}').decode()}", name)
            missing = {n for n in missing if not store.check([f"{name}/joined/{n}"])}
            time.sleep(POLL_S)
        return name
    store.set(f"asks/{rank}", name)
    while not store.check([f"answer/{name}"]):
        time.sleep(POLL_S)
    agreed: str = store.get(f"answer/{name}").decode()
    store.set(f"{agreed}/joined/{rank}", "")
    return agreed
