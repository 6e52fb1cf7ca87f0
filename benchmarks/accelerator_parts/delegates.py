"""Which operators of our spaces the accelerated backends leave out, read from exported files."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hwnas.core.errors import UserError
from hwnas.core.rng import rng
from hwnas.exporters import REGISTRY
from hwnas.exporters.formats import exporter
from hwnas.interfaces import Images
from hwnas.nets.bn import recalibrate
from hwnas.nets.subnet import build_subnet
from hwnas.spaces import REGISTRY as SPACES
from hwnas.spaces.lowering import resolution

N_IMAGES = 16
FORMATS = ("litert:fp32", "litert:int8", "executorch:fp32", "executorch:int8")


def delegated(names: str = "") -> list[dict[str, Any]]:
    """A random network of every space; XNNPACK's share of the operators, and what it leaves out.

    In 8 bits no layer is left in float for its accuracy, because the images are noise.

    names: spaces, separated by commas; empty: all that can be trained.

    Raises:
        UserError: a named space is unknown, or needs settings.
    """
    rows = []
    chosen = [name.strip() for name in names.split(",")] if names else SPACES.names
    for name in chosen:
        SPACES.describe(name)  # an unknown name is an error
        try:
            module = SPACES.load(name)
            space = module.build(module.Config(), num_classes=10)
            (codes,) = space.sample(1, rng=rng(0, "benchmarks/delegates", name))
            arch = space.arch(codes)
            net = build_subnet(space, arch)
        except (UserError, ValueError) as error:
            if names:
                raise UserError(
                    f"no network of the space {name} can be made without settings",
                    found=str(error).splitlines()[0],
                    where="--spaces",
                    fix="leave this space out",
                ) from error
            continue  # it needs settings, or cannot be trained
        px, channels = resolution(space, arch), space.macro.in_channels
        random = rng(1, "benchmarks/delegates", name)
        x = random.standard_normal((N_IMAGES, channels, px, px)).astype(np.float32)
        net = recalibrate(net, [torch.from_numpy(x)])
        for format in FORMATS:
            if not REGISTRY.describe(format.split(":")[0]).missing:
                print(f"{name} {format}", file=sys.stderr)
                rows.append({"space": name, "format": format, **_facts(format, net, x)})
    return rows


def _facts(format: str, net: torch.nn.Module, x: Images) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        eight = {"n_calibration": 8, "target_agreement": 1e-6} if "int8" in format else {}
        file = exporter(format, **eight)
        try:
            path = file.export(net, input_shape=x.shape[1:], folder=Path(folder), images=x)[0]
        except UserError as error:
            return {"share": None, "not delegated": str(error).splitlines()[0]}
        share, content = file.open_model(path).delegated, path.read_bytes()
    if format.startswith("executorch"):
        from hwnas.exporters.pte import delegation

        outside = ", ".join(sorted({*delegation(content).outside}))
        return {"share": share, "not delegated": outside, "kept in float": ""}
    from hwnas.exporters.interpreter import metadata

    facts = json.loads(metadata(content, where=format)["litert"])
    in_float = facts.get("int8", {}).get("float_operators", [])
    return {
        "share": share,
        "not delegated": ", ".join(sorted({*(facts["not_delegated"] or ())})),
        "kept in float": ", ".join(in_float),
    }
