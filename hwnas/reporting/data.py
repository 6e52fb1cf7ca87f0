"""The contents of a report as plain values, filled by the pipeline; a missing section is None.

Accuracies are fractions in [0, 1], latencies are in milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hwnas.reporting.sections.bundles import Bundle
from hwnas.reporting.sections.classes import Classes
from hwnas.reporting.sections.devices import Winners
from hwnas.reporting.sections.references import References
from hwnas.reporting.sections.results import NetRow
from hwnas.reporting.sections.verdict import Belief
from hwnas.spaces.cell_views import CellView
from hwnas.spaces.network import Network

__all__ = [
    "Curve",
    "Drawing",
    "Front",
    "LatencyFit",
    "NetRow",
    "Point",
    "Prediction",
    "ReportData",
    "Training",
    "Trust",
    "Truth",
]


@dataclass(frozen=True)
class Point:
    """A network in the accuracy-latency plane; `label` is its tooltip.

    top1: its accuracy; for a language model, its perplexity (`Front.is_perplexity`).
    """

    latency_ms: float
    top1: float
    label: str = ""


@dataclass(frozen=True)
class Front:
    """The search on one device. `score` describes `top1`, e.g. `validation top-1, supernet`.

    `archive` has all evaluated networks, `front` the non-dominated ones of them, and `baseline`
    those that random search evaluated with the same budget. n_images: number of images on which
    `top1` is measured, for its standard error.
    is_perplexity: the networks are language models, whose `top1` are perplexities.
    """

    device: str
    score: str
    archive: tuple[Point, ...]
    front: tuple[Point, ...]
    winner: Point | None = None
    constraint_ms: float | None = None
    baseline: tuple[Point, ...] = ()
    n_images: int | None = None
    is_perplexity: bool = False


@dataclass(frozen=True)
class LatencyFit:
    """Estimated and measured latencies of whole networks.

    `interval_ms` has the 90 % interval of each estimate. `mape`, `repeat_noise` and the
    shares of networks with an error of at most 5 % and 10 % are fractions.
    """

    device: str
    forecast_ms: tuple[float, ...]
    measured_ms: tuple[float, ...]
    interval_ms: tuple[tuple[float, float], ...] = ()
    mape: float | None = None
    tau: float | None = None
    repeat_noise: float | None = None
    within_5: float | None = None
    within_10: float | None = None


@dataclass(frozen=True)
class Prediction:
    """The accuracy predictor on held-out subnets; `score` names the unit of both axes.

    n_at_1, n_at_10: true rank of the best arch among the predicted top 1 and 10.
    precision_at_10: share of the predicted top 10 in the true top 10.
    regret: true best score minus that of the predicted best.
    """

    predictor: str
    score: str
    predicted: tuple[float, ...]
    measured: tuple[float, ...]
    tau: float
    tau_interval: tuple[float, float] | None = None
    macs_tau: float | None = None
    n_train: int | None = None
    n_at_1: int | None = None
    n_at_10: int | None = None
    precision_at_10: float | None = None
    regret: float | None = None


@dataclass(frozen=True)
class Trust:
    """Agreement of a ranking with a more accurate one: sentences, and biased choices.

    `biases`: (choice = value, shift in standard deviations, archs), strongest first.
    """

    ranking: str
    truth: str
    n: int
    verdict: tuple[str, ...]
    biases: tuple[tuple[str, float, int], ...] = ()


@dataclass(frozen=True)
class Curve:
    """One line over training steps."""

    name: str
    steps: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True)
class Training:
    """Supernet training: validation top-1 of a few subnets, and their validation cross-entropy."""

    val_top1: tuple[Curve, ...]
    loss: tuple[Curve, ...] = ()


@dataclass(frozen=True)
class Drawing:
    """A network to draw: the result of `lower()`, and a line of text below the drawing.

    notation: the arch in the notation of its benchmark.
    cells: one cell of each kind.
    """

    name: str
    network: Network
    caption: str = ""
    notation: str = ""
    cells: tuple[CellView, ...] = ()


@dataclass(frozen=True)
class Truth:
    """One of the best archs of the search, trained stand-alone: predicted and true accuracy.

    `predicted` is the score of the predictor. Accuracies are on the validation split.
    """

    key: str
    predicted: float
    supernet_top1: float
    trained_top1: float


@dataclass(frozen=True)
class ReportData:
    """The contents of a report. `facts`: device, seed, host, config, ... in display order.

    fronts, latency_fits: for every device that has one, in the order of the configuration.
    commands: maps the first part of a stage's name to the command that makes its missing results.
    remarks: notes on the accuracies, shown below the last table.
    """

    title: str
    table: tuple[NetRow, ...] = ()
    belief: Belief | None = None
    fronts: tuple[Front, ...] = ()
    latency_fits: tuple[LatencyFit, ...] = ()
    prediction: Prediction | None = None
    trust: Trust | None = None
    training: Training | None = None
    winner: Drawing | None = None
    winners: Winners | None = None
    references: tuple[References, ...] = ()
    truths: tuple[Truth, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    commands: Mapping[str, str] = field(default_factory=dict)
    bundles: tuple[Bundle, ...] = ()
    classes: tuple[Classes, ...] = ()
