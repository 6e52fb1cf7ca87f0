"""Latency of exported networks against timm's own export of the same networks, interleaved.

    python benchmarks/export_latency.py                         random archs of mobilenet_v3
    python benchmarks/export_latency.py --bundle RUN/bundles/main/local    the winner of a run
    python benchmarks/export_latency.py --rounds 40 --n 3

Both files are of one network with equal weights and a fixed batch of 1; ours is what `hwnas export`
writes, theirs what `timm.utils.onnx_export` does, with the same torch.export-based exporter. The
kit times them in turns. Printed: median ms of each, their ratio, nodes.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import onnx
import torch

from hwnas.core.rng import rng
from hwnas.exporters.onnx import Config, build
from hwnas.exporters.timm import load_network
from hwnas.interfaces import DeviceSpec
from hwnas.latency.sections import ProfileConfig
from hwnas.measure.profile import time_models
from hwnas.nets.subnet import build_subnet, definition_of
from hwnas.spaces import mobilenet_v3
from hwnas.spaces.lowering import resolution


def networks(arguments: argparse.Namespace) -> dict[str, torch.nn.Module]:
    """Networks to export, by name."""
    if arguments.bundle is not None:
        return {"winner": load_network(arguments.bundle / "timm" / "weights.safetensors")}
    space = mobilenet_v3.build(mobilenet_v3.Config(resolutions=(arguments.px,)), num_classes=1000)
    archs = [space.arch(code) for code in space.sample(arguments.n, rng=rng(0, "archs"))]
    assert all(resolution(space, arch) == arguments.px for arch in archs)
    return {arch.key: build_subnet(space, arch).eval() for arch in archs}


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--n", type=int, default=2)
    parser.add_argument("--px", type=int, default=160)
    parser.add_argument("--rounds", type=int, default=30)
    arguments = parser.parse_args()
    from timm.utils.onnx import onnx_export

    with tempfile.TemporaryDirectory() as name:
        folder, files = Path(name), {}
        for key, net in networks(arguments).items():
            px = definition_of(net)["resolution"]
            channels = next(net.parameters()).shape[1]
            exporter = build(Config(dynamic_batch=False))
            (ours,) = exporter.export(net, input_shape=(channels, px, px), folder=folder / key)
            theirs = folder / key / "timm.onnx"
            example = torch.zeros(1, channels, px, px)
            onnx_export(net, str(theirs), example, check=False, use_dynamo=True, opset=18)
            files |= {f"{key}-ours": ours, f"{key}-timm": theirs}
        config = ProfileConfig(rounds=arguments.rounds, min_rounds=arguments.rounds)
        timings = time_models(files, DeviceSpec("local"), folder / "timing", config)
        print("network, ours ms, timm ms, ratio, nodes ours, nodes timm")
        for key in {name.rpartition("-")[0]: None for name in files}:
            ours_ms, timm_ms = (
                timings.models[f"{key}-{who}"].median_ms for who in ("ours", "timm")
            )
            nodes = [len(onnx.load(files[f"{key}-{w}"]).graph.node) for w in ("ours", "timm")]
            print(f"{key}, {ours_ms:.4f}, {timm_ms:.4f}, {ours_ms / timm_ms:.4f}, {nodes}")


if __name__ == "__main__":
    main()
