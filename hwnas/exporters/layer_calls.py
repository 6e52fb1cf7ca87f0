"""Watches the operators of a network and the calls of some of its layers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["LayerCalls"]


class LayerCalls(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Base class of dispatch modes that watch layers.

    `enter` is called before, and `leave` after every call of a layer, until the mode ends.
    `__torch_dispatch__` of a subclass sees every operator that runs.
    """

    def __init__(self, layers: Iterable[nn.Module]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._hooks = [
            hook
            for layer in layers
            for hook in (
                layer.register_forward_pre_hook(self.enter, with_kwargs=True),
                layer.register_forward_hook(self.leave),
            )
        ]

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        for hook in self._hooks:
            hook.remove()

    def enter(self, layer: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        """Called before `layer` runs with these arguments."""
        raise NotImplementedError

    def leave(self, layer: nn.Module, given: tuple[Any, ...], found: Any) -> None:
        """Called after `layer` has computed `found`."""
        raise NotImplementedError
