"""Training settings of an ensemble of networks: the config section that networks share."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hwnas.core.config import StrictModel

__all__ = ["Recipe"]


class Recipe(StrictModel):
    """AdamW with a one-cycle cosine on random mini-batches of labels.

    The defaults were chosen for the GCN on NAS-Bench-Macro, on OFA's ImageNet accuracies and on
    synthetic truths of mobilenet_tiny, at 50 to 400 labels. Five small members beat three large
    ones at equal cost.
    """

    members: Annotated[int, Field(ge=2, le=64)] = 5
    """Networks in the ensemble; each holds back every `members`-th label, which calibrates it."""
    loss: Literal["mse", "pairwise", "listwise", "both"] = "both"
    """Squared error; hinge on the order of every pair in a batch; cross-entropy between the
    batch's softmax of labels and of scores (ListNet, Cao et al. 2007); or squared error and hinge
    in a weighted sum."""
    ranking_weight: Annotated[float, Field(ge=0, le=100)] = 3.0
    """Weight of the pairwise hinge in `both`."""
    margin: Annotated[float, Field(ge=0, le=10)] = 0.1
    """Margin of the hinge, in standard deviations of the labels."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 1.5e-2
    """Peak of the one-cycle schedule."""
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 1.0
    """Strong, because labels are noisy: on 400 labels of tests/unit/test_predictors_gcn.py with
    noise of the truth's own size, tau 0.76 against 0.54 at 0.1; on clean ones 0.95 for both."""
    batch_size: Annotated[int, Field(ge=2, le=65536)] = 32
    """Labels per step."""
    epochs: Annotated[int, Field(ge=1, le=100_000)] = 100
    """Passes over the labels, unless that makes fewer or more steps than the next two allow."""
    min_steps: Annotated[int, Field(ge=1, le=1_000_000)] = 300
    """Optimiser steps at least, of every member."""
    max_steps: Annotated[int, Field(ge=1, le=1_000_000)] = 1800
    """Optimiser steps at most, of every member."""

    def n_steps(self, n_labels: int) -> int:
        """Optimiser steps for a fit on `n_labels`."""
        steps = self.epochs * n_labels // self.batch_size
        return min(max(steps, self.min_steps), self.max_steps)
