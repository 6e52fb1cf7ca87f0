"""One small network distilled from a fitted GCN ensemble: fast, for large searches."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from hwnas.core.config import StrictModel
from hwnas.interfaces import AccuracyPredictor, FloatArray, PredictorContext
from hwnas.predictors import gcn
from hwnas.spaces.space import Codes, SearchSpace

if TYPE_CHECKING:
    from hwnas.predictors.lookup_layer import LookupLayer

__all__ = ["Config", "DistilledPredictor", "build"]

QUICK = {"teacher": gcn.QUICK, "n_archs": 512, "epochs": 20}

PREDICT_CHUNK = 4096
LEARNING_RATE = 3e-3
BATCH = 512
SPREAD_WEIGHT = 0.1  # weight of the error in log std; that of the mean has 1
FAR = 0.3  # share of choices that are redrawn in archs near the labels
NARROWER = 4
"""The second hidden layer has this factor fewer units than the first.

With 100 labels of OFA, NAS-Bench-Macro and nasbench201 (seed 0), tau of the imitation with the
teacher is 0.978, 0.978 and 0.938; with a factor of 2 it is 0.974, 0.976 and 0.937, and a prediction
takes longer.
"""
CHECKED = 16  # one in this many archs is held out, to measure the error of the imitation


class Config(StrictModel):
    """The teacher, and the archs and size of the network that imitates it."""

    name: Literal["distilled"] = "distilled"
    teacher: gcn.Config = gcn.Config()
    """The GCN that is imitated."""
    n_archs: Annotated[int, Field(ge=64, le=10_000_000)] = 16_384
    """Number of archs that the teacher scores: half from the space, half near labelled archs."""
    width: Annotated[int, Field(ge=4, le=4096)] = 256
    """Units of the first hidden layer of the network that imitates the teacher; the second one has
    a quarter as many.
    """
    epochs: Annotated[int, Field(ge=1, le=10_000)] = 60
    """Number of passes over the archs that the teacher scored."""


def build(config: Config, context: PredictorContext) -> AccuracyPredictor:
    """A distilled GCN ensemble for the space, not fitted yet.

    Proxies are features of the teacher, which computes them for archs from the whole space.
    """
    teacher = gcn.build(config.teacher, context)
    return DistilledPredictor(teacher, config, seed=context.seed)


class DistilledPredictor:
    """An `AccuracyPredictor` that fits a teacher, and a multi-layer perceptron to the teacher.

    The perceptron reads one-hot choices and outputs the teacher's mean and log std. Its error on
    held-out archs is added to the std. The state does not contain the teacher.
    """

    def __init__(self, teacher: AccuracyPredictor, config: Config, *, seed: int) -> None:
        self.space = teacher.space
        self._teacher, self._config, self._seed = teacher, config, seed
        self._state: dict[str, NDArray[Any]] = {}
        self._first: LookupLayer | None = None

    def fit(self, codes: Codes, scores: FloatArray) -> None:
        """Learns from n >= 4 labels; forgets earlier labels."""
        from hwnas.predictors.labels import RobustScale

        self._teacher.fit(codes, scores)
        archs = self._archs(codes)
        mean, std = self._teacher.predict(archs)
        scale = RobustScale.of(mean)
        unit = scale.unit or 1.0
        targets = np.stack([scale.standardise(mean), np.log(np.maximum(std, 1e-12) / unit)], axis=1)
        is_held = np.arange(len(archs)) % CHECKED == 0
        weights = _imitate(
            self.space.encode(archs[~is_held]), targets[~is_held], self._config, self._seed
        )
        self._use(weights | {"scale": np.array([scale.median, scale.unit, 0.0])})
        error = self.predict(archs[is_held])[0] - mean[is_held]
        self._state["scale"][2] = np.sqrt((error**2).mean())

    def predict(self, codes: Codes) -> tuple[FloatArray, FloatArray]:
        """Mean [n] and std [n] in the unit of the labels."""
        from hwnas.predictors.labels import RobustScale, check_codes, not_fitted

        if self._first is None:
            raise not_fitted()
        check_codes(self.space, codes)
        median, unit, error = self._state["scale"].tolist()
        outputs = np.empty((len(codes), 2))
        for start in range(0, len(codes), PREDICT_CHUNK):
            part = slice(start, start + PREDICT_CHUNK)
            outputs[part] = _rest(self._first(codes[part]), self._state)
        mean = RobustScale(median, unit).restore(outputs[:, 0])
        return mean, np.hypot(unit * np.exp(outputs[:, 1]), error)

    def state(self) -> dict[str, NDArray[Any]]:
        """Weights and biases of the three layers, and the scale of the outputs."""
        from hwnas.predictors.labels import not_fitted

        if self._first is None:
            raise not_fitted()
        return {name: array.copy() for name, array in self._state.items()}

    def load_state(self, state: dict[str, NDArray[Any]]) -> None:
        """Inverse of `state`.

        Raises:
            UserError: the state belongs to a predictor of another kind or size, or to another
                space.
        """
        from hwnas.core.errors import UserError

        found = {name: array.shape for name, array in state.items()}
        second = found.get("bias1", (0,))[0]  # half of the width in states of hwnas 0.1
        shapes = _shapes(self.space, self._config.width, second)
        if found != shapes | {"scale": (3,)}:
            raise UserError(
                "the stored state belongs to another predictor",
                expected="the config and space that it was fitted with",
                found=found,
                fix="fit the predictor again",
            )
        self._use({name: array.copy() for name, array in state.items()})

    def _use(self, state: dict[str, NDArray[Any]]) -> None:
        from hwnas.predictors.lookup_layer import LookupLayer

        self._state = state
        self._first = LookupLayer(self.space, state["weight0"], state["bias0"])

    def _archs(self, codes: Codes) -> Codes:
        """Archs for the teacher to score: labelled archs, archs near them, and random ones."""
        from hwnas.core.rng import rng
        from hwnas.predictors.labels import whole

        stream = rng(self._seed, "predictor/distil")
        everything = whole(self.space)
        half = self._config.n_archs // 2
        near = codes[stream.integers(len(codes), size=half)]
        near = everything.mutate(near, stream, probability=FAR)
        return np.concatenate([codes, near, everything.sample(half, rng=stream)])


def _shapes(space: SearchSpace, width: int, second: int) -> dict[str, tuple[int, ...]]:
    """Shapes of the weights [in, out] and biases [out] of the three layers."""
    sizes = (sum(len(choice.values) for choice in space.choices), width, second, 2)
    shapes: dict[str, tuple[int, ...]] = {}
    for layer, (n_in, n_out) in enumerate(pairwise(sizes)):
        shapes |= {f"weight{layer}": (n_in, n_out), f"bias{layer}": (n_out,)}
    return shapes


def _rest(x: NDArray[np.float32], state: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
    """Output [n, 2] of the layers after the first one, from its units [n, width], in place."""
    for layer in (1, 2):
        np.maximum(x, 0, out=x)
        x = x @ state[f"weight{layer}"]
        x += state[f"bias{layer}"]
    return x


def _imitate(
    inputs: NDArray[np.float32], targets: FloatArray, config: Config, seed: int
) -> dict[str, NDArray[Any]]:
    """Weights that minimise the squared error, by Adam with a cosine schedule."""
    import torch
    import torch.nn.functional as F

    from hwnas.core.rng import stable_seed

    generator = torch.Generator().manual_seed(stable_seed(seed, "predictor/distil"))
    sizes = (inputs.shape[1], config.width, config.width // NARROWER, 2)
    layers = [
        (torch.randn(n_in, n_out, generator=generator) * (2 / n_in) ** 0.5, torch.zeros(n_out))
        for n_in, n_out in pairwise(sizes)
    ]
    parameters = [tensor.requires_grad_() for layer in layers for tensor in layer]
    optimiser = torch.optim.Adam(parameters, lr=LEARNING_RATE, fused=True)
    batch = min(BATCH, len(inputs))
    steps = config.epochs * (len(inputs) // batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    x_all, y_all = torch.from_numpy(inputs), torch.from_numpy(targets).float()
    weights = torch.tensor([1.0, SPREAD_WEIGHT])
    order = torch.empty(0, dtype=torch.long)
    for _ in range(steps):
        if len(order) < batch:
            order = torch.randperm(len(inputs), generator=generator)
        picked, order = order[:batch], order[batch:]
        x = x_all[picked]
        for weight, bias in layers[:-1]:
            x = F.relu(torch.addmm(bias, x, weight))
        outputs = torch.addmm(layers[-1][1], x, layers[-1][0])
        loss = (weights * (outputs - y_all[picked]) ** 2).sum(1).mean()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    return {
        f"{kind}{layer}": tensor.detach().numpy()
        for layer, pair in enumerate(layers)
        for kind, tensor in zip(("weight", "bias"), pair, strict=True)
    }
