"""`hwnas space`: look at search spaces."""

from __future__ import annotations

from typing import Annotated

import typer

from hwnas.cli.options import FormatOption, SpaceSettings
from hwnas.cli.output import Format, emit
from hwnas.core.config import assignments

__all__ = ["register"]

app = typer.Typer(help="Look at search spaces.", no_args_is_help=True, rich_markup_mode=None)

NameArgument = Annotated[
    str, typer.Argument(metavar="SPACE", help="See `hwnas space list`; or a path to a YAML file.")
]
ClassesOption = Annotated[int, typer.Option("--num-classes", min=1, help="Classes of the head.")]


def register(parent: typer.Typer) -> None:
    """Add the verb to the command line."""
    parent.add_typer(app, name="space")


@app.command("list")
def list_spaces(format: FormatOption = Format.table) -> None:
    """The registered spaces and those shipped as YAML. Example: `hwnas space list`."""
    from hwnas.spaces import REGISTRY
    from hwnas.spaces.load import shipped_spaces

    rows = [{"space": v.name, "summary": v.summary} for v in map(REGISTRY.describe, REGISTRY.names)]
    rows += [{"space": name, "summary": "YAML, see configs/spaces"} for name in shipped_spaces()]
    emit(rows, format=format)


@app.command()
def show(
    name: NameArgument,
    settings: SpaceSettings = None,
    num_classes: ClassesOption = 1000,
    format: FormatOption = Format.table,
) -> None:
    """Choices, size and cost range. Example: `hwnas space show mobilenet_tiny`."""
    from itertools import product
    from typing import get_args

    from hwnas.spaces.cost import AnalyticMetric, Precision, cost
    from hwnas.spaces.index import enumerate_ops
    from hwnas.spaces.load import build_space

    space = build_space(name, assignments(settings or ()), num_classes=num_classes)
    rows = [
        {
            "choice": choice.name,
            "values": " ".join(map(str, choice.values)),
            "active when": "always"
            if choice.parent is None
            else f"{space.choices[choice.parent].name} in "
            + " ".join(str(space.choices[choice.parent].values[c]) for c in choice.parent_codes),
        }
        for choice in space.choices
    ]
    ends = space.codes([space.smallest(), space.largest()])
    costs: dict[str, list[int]] = {
        "macs": cost(space, ends, "macs").tolist(),
        "params": cost(space, ends, "params").tolist(),
    }
    metrics: tuple[AnalyticMetric, ...] = ("weight_bytes", "peak_memory_bytes")
    for precision, metric in product(get_args(Precision), metrics):
        values = cost(space, ends, metric, precision=precision)
        costs[f"{metric}_{precision}"] = values.tolist()
    if format is Format.table:
        emit(rows, format=format, title=f"{space.id}: {space.size():,} archs")
        ranges = [
            {"cost": name, "smallest": f"{low:,}", "largest": f"{high:,}"}
            for name, (low, high) in costs.items()
        ]
        emit(ranges, format=format, title=f"{len(enumerate_ops(space)):,} distinct operators")
        return
    n_ops = len(enumerate_ops(space))
    emit(rows, format=format, space=space.id, n_archs=space.size(), n_ops=n_ops, costs=costs)


@app.command()
def count(
    name: NameArgument, settings: SpaceSettings = None, format: FormatOption = Format.table
) -> None:
    """The exact number of archs. Example: `hwnas space count mobilenet_tiny`."""
    from hwnas.spaces.load import build_space

    space = build_space(name, assignments(settings or ()), num_classes=10)
    emit([{"space": space.name, "n_archs": space.size()}], format=format)


@app.command()
def sample(
    name: NameArgument,
    n: Annotated[int, typer.Option("-n", "--number", min=1, max=1_000_000)] = 5,
    seed: Annotated[int, typer.Option("--seed", min=0)] = 0,
    settings: SpaceSettings = None,
    num_classes: ClassesOption = 1000,
    format: FormatOption = Format.table,
) -> None:
    """Random archs with their costs. Example: `hwnas space sample mobilenet_tiny -n 3`."""
    from hwnas.core.rng import rng
    from hwnas.spaces.cost import cost
    from hwnas.spaces.load import build_space

    space = build_space(name, assignments(settings or ()), num_classes=num_classes)
    codes = space.sample(rng(seed, "cli/sample"), n)
    macs, params = cost(space, codes, "macs"), cost(space, codes, "params")
    emit(
        [
            {
                "codes": ",".join(str(int(code)) for code in row),
                "macs": int(macs[i]),
                "params": int(params[i]),
            }
            for i, row in enumerate(codes)
        ],
        format=format,
        space=space.id,
    )


@app.command()
def validate(
    name: NameArgument,
    arch: Annotated[
        str, typer.Argument(help="largest, smallest, codes 0,1,.., or a .json file.")
    ] = "largest",
    settings: SpaceSettings = None,
    num_classes: ClassesOption = 1000,
    format: FormatOption = Format.table,
) -> None:
    """Check an arch and print its operators.

    Example: `hwnas space validate mobilenet_tiny largest`.
    """
    from hwnas.core.records import dump
    from hwnas.spaces.cost import op_macs, op_params
    from hwnas.spaces.load import build_space, read_arch
    from hwnas.spaces.lowering import lower

    space = build_space(name, assignments(settings or ()), num_classes=num_classes)
    member = read_arch(space, arch)
    ops = lower(space, member).ops
    if format is Format.table:
        emit(
            [{"op": str(op), "macs": op_macs(op), "params": op_params(op)} for op in ops],
            format=format,
            title=f"{space.id} {member.key}",
        )
    else:
        emit([dump(op, versioned=False) for op in ops], format=format, arch=member.to_json())
