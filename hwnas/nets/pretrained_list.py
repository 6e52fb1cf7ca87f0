"""Lists published weights: network, licence and URL.

Nothing is downloaded. The data are of 2026. Sizes are those of the tensors in 32 bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["NETWORKS", "SHIPPED", "Network", "Published", "Shipped"]

_OFA = "https://github.com/mit-han-lab/once-for-all"
_OFA_FILES = "https://raw.githubusercontent.com/han-cai/files/master/ofa"
_ATTENTIVE = "https://github.com/facebookresearch/AttentiveNAS"
_ALPHA = "https://github.com/facebookresearch/AlphaNet"


@dataclass(frozen=True)
class Published:
    """One published file of weights. `url`: the file, or the page that links to it.

    n_params: number of parameters.
    size_mb: in 10^6 bytes.
    """

    file: str
    url: str
    n_params: int
    size_mb: float


@dataclass(frozen=True)
class Shipped:
    """Weights that ship with hwnas: files `NAME.npz` and `NAME.json` in `shipped/`.

    model: name of the network in timm.
    home, commit: their source.
    """

    name: str
    model: str
    pad_mode: str
    licence: str
    home: str
    commit: str
    n_params: int
    size_mb: float


@dataclass(frozen=True)
class Network:
    """A supernet with published weights; all its files have the same layout.

    space, settings: the equivalent space in hwnas.
    home: page of the authors.
    mean, std: normalisation of [0, 1] pixels in its training.
    """

    name: str
    space: str
    settings: Mapping[str, Any]
    licence: str
    home: str
    files: tuple[Published, ...]
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)


_STAGES = ("D4_E6_K7", "D4_E6_K357", "D34_E6_K357", "D234_E6_K357", "D234_E46_K357")


def _ofa(
    name: str, space: str, width: float, file: str, n_params: int, size_mb: float, *more: Published
) -> Network:
    """A supernet of Once-for-All, its final weights, and `more` files."""
    last = Published(file, f"{_OFA_FILES}/ofa_nets/{file}", n_params, size_mb)
    return Network(name, space, {"width_mult": width}, "MIT", _OFA, (last, *more))


NETWORKS = (
    _ofa(
        "OFA MobileNetV3 w1.0",
        "mobilenet_v3",
        1.0,
        "ofa_mbv3_d234_e346_k357_w1.0",
        7_678_880,
        30.9,
        *(
            Published(
                f"ofa_{stage}",
                f"{_OFA_FILES}/ofa_checkpoints/ofa_{stage}",
                7_664_760 if stage.endswith("K7") else 7_678_880,
                30.9,
            )
            for stage in _STAGES
        ),
    ),
    _ofa(
        "OFA MobileNetV3 w1.2",
        "mobilenet_v3",
        1.2,
        "ofa_mbv3_d234_e346_k357_w1.2",
        10_715_752,
        43.1,
    ),
    _ofa(
        "OFA ProxylessNAS w1.3",
        "ofa_proxyless",
        1.3,
        "ofa_proxyless_d234_e346_k357_w1.3",
        7_956_882,
        32.1,
    ),
    Network(
        name="AttentiveNAS or AlphaNet",
        space="attentive_nas",
        settings={},
        licence="CC-BY-NC-4.0",
        home=f"{_ATTENTIVE}, {_ALPHA}",
        files=(
            Published("attentive_nas_pretrained.pth.tar", _ATTENTIVE, 23_934_704, 96.2),
            Published("alphanet_pretrained.pth.tar", _ALPHA, 23_934_704, 96.2),
        ),
    ),
)

SHIPPED = (
    Shipped(
        name="mobilenet_v2_1.0_224_quant",
        model="mobilenetv2_100",
        pad_mode="tf_same",
        licence="Apache-2.0",
        home="https://github.com/google-coral/test_data",
        commit="104342d2d3480b3e66203073dac24f4e2dbb4c41",
        n_params=3_504_872,
        size_mb=3.0,
    ),
)
