"""Skeleton of the subnets of a published network. The largest arch equals that network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Generic, TypeVar

from hwnas.spaces.chains import divisible
from hwnas.spaces.choice import Choice, Role
from hwnas.spaces.ops import OpSpec, conv, linear, mean
from hwnas.spaces.padding import map_size, padding_of
from hwnas.spaces.published import Block, NetworkShape
from hwnas.spaces.skeleton import Ability, Skeleton

__all__ = ["Within"]

T = TypeVar("T", int, float)


@dataclass(frozen=True)
class _Pick(Generic[T]):
    """One decision of an arch: its values in ascending order; the last is that of the network.

    column: column of the code; None if there is only one value.
    """

    values: tuple[T, ...]
    column: int | None = None

    @property
    def own(self) -> T:
        return self.values[-1]

    def __call__(self, codes: tuple[int, ...]) -> T:
        return self.values[-1 if self.column is None else codes[self.column]]


@dataclass
class _Picks:
    """All decisions. Those with several values are the choices, in the order of the codes."""

    choices: list[Choice]
    stem: _Pick[int] = field(init=False)
    widths: list[list[_Pick[int]]] = field(default_factory=list)
    depths: list[_Pick[int]] = field(default_factory=list)
    starts: list[list[_Pick[int]]] = field(default_factory=list)
    kernels: list[list[_Pick[int]]] = field(default_factory=list)
    expands: list[list[_Pick[float]]] = field(default_factory=list)
    head: _Pick[int] | None = None
    feature: _Pick[int] | None = None

    def add(
        self, name: str, role: Role, values: tuple[T, ...], depth: _Pick[int] | None, block: int = 0
    ) -> _Pick[T]:
        """depth: the decision on the depth of the stage to which block number `block` belongs."""
        if len(values) == 1:
            return _Pick(values)
        parent = None if depth is None or depth.values[0] > block else depth.column
        codes: tuple[int, ...] = ()
        if parent is not None and depth is not None:
            codes = tuple(code for code, value in enumerate(depth.values) if value > block)
        self.choices.append(Choice(name, role, values, parent, codes))
        return _Pick(values, len(self.choices) - 1)


@dataclass(frozen=True)
class Within(Skeleton):
    """A published network, and networks with smaller values of its choices.

    Every choice has the network's own value and the given values below it. Depth is chosen per
    stage if all blocks of the stage have one width; kernels and expansion are chosen per block.
    Width is chosen as a ratio, once per group of stages joined by residual connections, and once
    for head and feature convolution each. Narrowed layers have multiples of 8 channels if the
    network allows it, and proportional SE channels. Residual connections are those of the network.
    A decision with one value is not a choice.
    """

    in_channels: int
    num_classes: int
    resolutions: tuple[int, ...]
    network: NetworkShape
    depths: tuple[int, ...] = ()
    expands: tuple[float, ...] = ()
    kernels: tuple[int, ...] = ()
    width_ratios: tuple[float, ...] = ()
    bn_eps: float = 1e-5

    is_published: ClassVar[bool] = True
    lacks: ClassVar[Mapping[Ability, str]] = {}

    def choices(self) -> tuple[Choice, ...]:
        """Resolution, stem, then width, depth and blocks of every stage, head, feature.

        `stem.width` is the width of the stem, `stage1.width` that of a stage. A stage whose first
        block has a residual connection has no choice of its own: it has the width of the stage, or
        stem, before it. A block that changes the width within a stage has its own choice:
        `stage1.block1.width`.
        """
        return tuple(self._picks.choices)

    def slot_names(self) -> tuple[str, ...]:
        """Names such as `stem`, `stage0.block1`, `head`, `pool`, `feature`, `classifier`."""
        network = self.network
        blocks = [
            f"stage{s}.block{b}" for s, row in enumerate(network.stages) for b in range(len(row))
        ]
        return (
            "stem",
            *blocks,
            *(("head",) if network.head else ()),
            "pool",
            *(("feature",) if network.feature else ()),
            "classifier",
        )

    def lower_slots(self, codes: tuple[int, ...]) -> tuple[OpSpec | None, ...]:
        """See `Skeleton.lower_slots`."""
        return tuple(self._lower(codes))

    def _lower(self, codes: tuple[int, ...]) -> Iterator[OpSpec | None]:
        picks, network = self._picks, self.network
        hw, width = self.resolutions[codes[0]], picks.stem(codes)
        form, pad_mode = network.stem, network.padding
        stem = conv(self.in_channels, width, hw, form.kernel, form.stride, form.act, pad_mode)
        yield stem
        hw = stem.out_hw
        for s, blocks in enumerate(network.stages):
            depth = picks.depths[s](codes)
            for b in range(len(blocks)):
                if b >= depth:
                    yield None
                    continue
                kernels = picks.starts[s][b](codes), picks.kernels[s][b](codes)
                out_width, expand = picks.widths[s][b](codes), picks.expands[s][b](codes)
                op = self._block(s, b, width, out_width, hw, *kernels, expand)
                yield op
                width, hw = out_width, op.out_hw
        if network.head and picks.head:
            head = conv(width, picks.head(codes), hw, 1, 1, network.head.act)
            yield head
            width = head.out_channels
        yield mean(width, hw)
        if network.feature and picks.feature:
            feature = self._feature(width, picks.feature(codes))
            yield feature
            width = feature.out_channels
        yield linear(width, self.num_classes)

    def _feature(self, width: int, out_width: int) -> OpSpec:
        form = self.network.feature
        assert form is not None
        norm = "bn" if form.bn else "bias" if form.bias else "none"
        return OpSpec("conv", width, out_width, 1, 1, act=form.act, norm=norm)  # type: ignore[arg-type]

    def _block(self, *key: Any) -> OpSpec:
        """Cached `_lowered`: tables of a whole space lower the same block thousands of times."""
        if key not in self._blocks:
            self._blocks[key] = self._lowered(*key)
        return self._blocks[key]

    @cached_property
    def _blocks(self) -> dict[tuple[Any, ...], OpSpec]:
        return {}

    def _lowered(
        self,
        s: int,
        b: int,
        width: int,
        out_width: int,
        hw: int,
        start: int,
        kernel: int,
        expand: float,
    ) -> OpSpec:
        """A block that reads `width` channels and writes `out_width`."""
        form, network = self.network.stages[s][b], self.network
        own_width = self._own_inputs[s][b]
        own_mid = form.mid or own_width
        mid = width if form.kind == "dsconv" else 0
        if form.mid:
            is_own = width == own_width and expand == self._picks.expands[s][b].own
            mid = own_mid if is_own else min(own_mid, divisible(width * expand))
        se = form.se if mid == own_mid else max(1, round(form.se * mid / own_mid))
        padding, more = padding_of(network.padding, hw, kernel or start or 1, form.stride)
        return OpSpec(
            kind=form.kind,
            in_channels=width,
            mid_channels=mid,
            out_channels=out_width,
            in_hw=hw,
            out_hw=map_size(hw, form.stride),
            kernel=kernel,
            stride=form.stride,
            padding=padding,
            pad_more=more,
            se_channels=se if form.se else 0,
            act=form.act,
            skip=form.skip,
            out_act=form.out_act,
            start_kernel=start,
            **(self._gate(form) if form.se else {}),
        )

    def _gate(self, form: Block) -> dict[str, Any]:
        act = self.network.se_act
        return {"se_act": form.act if act == "block" else act, "se_gate": self.network.se_gate}

    @cached_property
    def _own_inputs(self) -> list[list[int]]:
        """Input channels of every block in the published network."""
        found, width = [], self.network.stem.out
        for blocks in self.network.stages:
            found.append([width, *(block.out for block in blocks[:-1])])
            width = blocks[-1].out
        return found

    @cached_property
    def _picks(self) -> _Picks:
        network = self.network
        found = _Picks([Choice("resolution", "resolution", self.resolutions)])
        found.stem = width = found.add("stem.width", "width", self._widths(network.stem.out), None)
        for s, blocks in enumerate(network.stages):
            if not blocks[0].skip:
                width = found.add(f"stage{s}.width", "width", self._widths(blocks[0].out), None)
            found.widths.append([])
            lengths = (*(depth for depth in self.depths if depth < len(blocks)), len(blocks))
            if len({block.out for block in blocks}) > 1:
                lengths = (len(blocks),)
            depth = found.add(f"stage{s}.depth", "depth", lengths, None)
            found.depths.append(depth)
            found.starts.append([])
            found.kernels.append([])
            found.expands.append([])
            for b, block in enumerate(blocks):
                name = f"stage{s}.block{b}"
                if b > 0 and block.out != blocks[b - 1].out:
                    width = found.add(f"{name}.width", "width", self._widths(block.out), None)
                found.widths[s].append(width)
                starts, sizes = self._sizes(block.start), self._sizes(block.kernel)
                ratios = self._ratios(block, self._own_inputs[s][b])
                found.starts[s].append(found.add(f"{name}.start", "kernel", starts, depth, b))
                found.kernels[s].append(found.add(f"{name}.kernel", "kernel", sizes, depth, b))
                found.expands[s].append(found.add(f"{name}.expand", "expand", ratios, depth, b))
        if network.head:
            found.head = found.add("head.width", "width", self._widths(network.head.out), None)
        if network.feature:
            widths = self._widths(network.feature.out)
            found.feature = found.add("feature.width", "width", widths, None)
        return found

    def _sizes(self, own: int) -> tuple[int, ...]:
        return *(kernel for kernel in self.kernels if kernel < own), own

    def _widths(self, own: int) -> tuple[int, ...]:
        return tuple(sorted({own, *(min(own, divisible(own * r)) for r in self.width_ratios)}))

    def _ratios(self, block: Block, own_width: int) -> tuple[float, ...]:
        """Expansions of a block: its own, and smaller ones with distinct channel counts."""
        if not block.mid:
            return (1,)
        mids = {divisible(own_width * ratio): ratio for ratio in reversed(self.expands)}
        smaller = sorted(ratio for mid, ratio in mids.items() if mid < block.mid)
        own = block.mid / own_width
        return (*(r for r in smaller if r < own), int(own) if own.is_integer() else own)
