"""`hwnas space ...`: builds and shows search spaces."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, Any, get_args

from hwnas.api.options import refuse_both
from hwnas.api.result import Folder, Listing, Settings
from hwnas.core.errors import UserError
from hwnas.core.overrides import override
from hwnas.core.records import dump
from hwnas.core.store import write_text
from hwnas.latency.classifiers import common_classes
from hwnas.latency.estimator import TableEstimator
from hwnas.latency.shipped import latency_table
from hwnas.latency.spread import spread_by_table
from hwnas.latency.table import LatencyTable
from hwnas.spaces import REGISTRY
from hwnas.spaces.arch import Arch
from hwnas.spaces.choice import Choice
from hwnas.spaces.cost import AnalyticMetric, Precision, cost, op_macs, op_params
from hwnas.spaces.index import enumerate_ops
from hwnas.spaces.load import build_space, read_arch, shipped_spaces
from hwnas.spaces.lowering import lower
from hwnas.spaces.published import published_network, published_networks
from hwnas.spaces.space import SearchSpace

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

__all__ = [
    "NUM_CLASSES",
    "as_space",
    "space",
    "space_count",
    "space_from_timm",
    "space_list",
    "space_models",
    "space_sample",
    "space_show",
    "space_validate",
]

NUM_CLASSES = 1000
"""Default number of classes of a space given by name."""


def space(
    name: str, *, num_classes: int = NUM_CLASSES, in_channels: int = 3, **settings: Any
) -> SearchSpace:
    """Builds a search space: a registered or shipped one, or that of a YAML file.

    Args:
        name: see `hwnas.space_list()`; or the path of a `.yaml` file.
        num_classes: outputs of the classifier.
        in_channels: channels of the images.
        settings: settings of the space, e.g. `resolutions=(128, 160)`.

    Raises:
        UserError: unknown space, unreadable file, unknown or invalid settings.
    """
    return build_space(name, settings, num_classes=num_classes, in_channels=in_channels)


def as_space(
    given: SearchSpace | str,
    *,
    settings: Settings = None,
    resolutions: Sequence[int] | None = None,
    num_classes: int | None = None,
    tables: Sequence[LatencyTable] = (),
) -> SearchSpace:
    """The space for an argument of a public function: an object, or a name with settings.

    num_classes: for a space by name; default: the classes that all `tables` were measured with, or
        `NUM_CLASSES`.

    Raises:
        UserError: as in `space`; or settings for a space object.
    """
    refuse_both("--resolutions", resolutions, "resolutions", settings)
    changes: dict[str, Any] = override({}, settings or {})
    if resolutions is not None:
        changes["resolutions"] = list(resolutions)
    if not isinstance(given, SearchSpace):
        default = common_classes(tables) or NUM_CLASSES
        classes = default if num_classes is None else num_classes
        return build_space(given, changes, num_classes=classes)
    if num_classes is not None:
        changes["num_classes"] = num_classes
    if changes:
        raise UserError(
            "settings cannot be applied to a space object",
            expected="the name of a space, or a SearchSpace without settings",
            found=", ".join(changes),
            where=given.id,
            fix=f"hwnas.space({given.name!r}, {next(iter(changes))}=...)",
        )
    return given


def space_list() -> Listing:
    """The registered spaces and those that ship as YAML files."""
    rows = [{"space": v.name, "summary": v.summary} for v in map(REGISTRY.describe, REGISTRY.names)]
    rows += [{"space": name, "summary": "YAML, see configs/spaces"} for name in shipped_spaces()]
    return Listing(rows)


def space_models() -> Listing:
    """Lists the networks whose subnets form a space `timm`, with costs of the whole network."""
    rows, shown = [], []
    for name in published_networks():
        found = build_space("timm", {"model": name}, num_classes=NUM_CLASSES)
        ops = lower(found, found.largest()).ops
        macs, params = sum(map(op_macs, ops)), sum(map(op_params, ops))
        network = published_network(name)
        trained = network.weights
        facts = {"model": name, "px": trained.px, "macs": macs, "params": params}
        facts |= {"padding": network.padding, "licence": trained.licence, "weights": trained.home}
        rows.append(facts)
        shown.append({**facts, "macs": f"{macs / 1e6:.0f} M", "params": f"{params / 1e6:.1f} M"})
    return Listing(rows, title="networks whose subnets the space timm has", shown=shown)


def space_from_timm(model: torch.nn.Module | str, *, out: Folder | None = None) -> Listing:
    """Reads a timm network block by block, for the space `timm`; downloads nothing.

    Args:
        model: a name from `timm.list_models()`, or a model (`EfficientNet`, `MobileNetV3`).
        out: a `.yaml` file to write, which is a space: `hwnas.space(out)`.

    Raises:
        UserError: timm has no such model, or the space does not support a block; names the block.
    """
    from hwnas.nets.from_timm import published_of, timm_network, to_yaml

    network = published_of(timm_network(model) if isinstance(model, str) else model)
    if out is not None:
        if Path(out).suffix not in (".yaml", ".yml"):
            raise UserError(
                "a space is written to a YAML file",
                expected="a name that ends with .yaml or .yml",
                found=f"the name {Path(out).name}",
                where="out",
            )
        text = f"name: timm\nnetwork:\n{indent(to_yaml(network), '  ')}"
        write_text(Path(out), text)
    rows = [
        {"block": f"stage{s}.block{b}", **dump(block, versioned=False)}
        for s, blocks in enumerate(network.stages)
        for b, block in enumerate(blocks)
    ]
    facts = {"network": dump(network, versioned=False), "out": None if out is None else str(out)}
    return Listing(rows, title=f"{network.name}, {network.weights.px} px", facts=facts)


def space_show(
    name: SearchSpace | str,
    *,
    table: Sequence[LatencyTable | Folder] | LatencyTable | Folder = (),
    settings: Settings = None,
    num_classes: int | None = None,
) -> Listing:
    """Shows a space: choices, size, and costs of its smallest and largest arch (fact `costs`).

    table: latency tables of devices (a shipped name or a `.json` file); the fact `latencies` then
    has the fastest arch, the quartiles and the slowest arch on each, in milliseconds, and the
    numbers of classes shown and timed.
    num_classes: for a space by name; default: the number that all tables share, or `NUM_CLASSES`.

    Raises:
        UserError: as in `space`; or a table cannot be read, or does not cover the space.
    """
    given = [table] if isinstance(table, (LatencyTable, str, Path)) else table
    tables = [t if isinstance(t, LatencyTable) else latency_table(t) for t in given]
    found = as_space(name, settings=settings, num_classes=num_classes, tables=tables)
    estimators = [TableEstimator(one, found) for one in tables]
    for doubt in filter(None, (one.doubtful_classifier for one in estimators)):
        log.warning("%s", doubt)
    ends = found.codes([found.smallest(), found.largest()])
    costs: dict[str, list[int]] = {
        "macs": cost(found, ends, "macs").tolist(),
        "params": cost(found, ends, "params").tolist(),
    }
    metrics: tuple[AnalyticMetric, ...] = ("weight_bytes", "peak_memory_bytes")
    for precision, metric in product(get_args(Precision), metrics):
        values = cost(found, ends, metric, precision=precision)
        costs[f"{metric}_{precision}"] = values.tolist()
    return Listing(
        [_choice(found, choice) for choice in found.choices],
        title=f"{found.id}: {found.size():,} archs",
        facts={
            "space": found.id,
            "n_archs": found.size(),
            "n_ops": len(enumerate_ops(found)),
            "costs": costs,
            "latencies": [spread_by_table(one) for one in estimators],
        },
    )


def _choice(space: SearchSpace, choice: Choice) -> dict[str, str]:
    condition = "always"
    if choice.parent is not None:
        parent = space.choices[choice.parent]
        values = " ".join(str(parent.values[code]) for code in choice.parent_codes)
        condition = f"{parent.name} in {values}"
    return {
        "choice": choice.name,
        "values": " ".join(map(str, choice.values)),
        "active when": condition,
    }


def space_count(name: SearchSpace | str, *, settings: Settings = None) -> Listing:
    """The exact number of archs."""
    found = as_space(name, settings=settings)
    return Listing([{"space": found.name, "n_archs": found.size()}])


def space_sample(
    name: SearchSpace | str,
    *,
    n: int = 5,
    seed: int = 0,
    settings: Settings = None,
    num_classes: int | None = None,
) -> Listing:
    """Random archs with their costs; the codes are those of `space.sample(n, seed=seed)`.

    Where benchmarks have a notation for archs (cells, genotypes), rows have it as `notation`.
    """
    found = as_space(name, settings=settings, num_classes=num_classes)
    codes = found.sample(n, seed=seed)
    columns = zip(
        codes, found.cost(codes, "macs").tolist(), found.cost(codes, "params").tolist(), strict=True
    )
    shown = [
        {"codes": ",".join(map(str, row.tolist())), "macs": int(macs), "params": int(params)}
        for row, macs, params in columns
    ]
    texts = [found.macro.text_of(tuple(row.tolist())) for row in codes]
    rows = [
        {**row, **({"notation": text} if text else {})}
        for row, text in zip(shown, texts, strict=True)
    ]
    return Listing(rows, facts={"space": found.id}, shown=shown)


def space_validate(
    name: SearchSpace | str,
    arch: Arch | str = "largest",
    *,
    settings: Settings = None,
    num_classes: int | None = None,
) -> Listing:
    """Checks an arch and lists its operators; the fact `notation` is its cell or genotype.

    arch: an arch, `largest`, `smallest`, comma-separated codes, a cell or genotype in the notation
        of the space's benchmark, or a `.json` file.

    Raises:
        UserError: not an arch of the space.
    """
    found = as_space(name, settings=settings, num_classes=num_classes)
    member = found.check(arch) if isinstance(arch, Arch) else read_arch(found, arch)
    ops, notation = lower(found, member).ops, found.macro.text_of(member.codes)
    return Listing(
        [dump(op, versioned=False) for op in ops],
        title=f"{found.id} {member.key}",
        facts={"arch": member.to_json(), "notation": notation},
        shown=[{"op": str(op), "macs": op_macs(op), "params": op_params(op)} for op in ops],
    )
