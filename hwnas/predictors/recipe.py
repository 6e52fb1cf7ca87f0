"""Training settings of an ensemble of networks: the section that several predictors share."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hwnas.core.config import LATER, StrictModel

__all__ = ["LossName", "Recipe", "SwitchName"]

LossName = Literal["mse", "pairwise", "listwise", "both", "listmle", "warp", "mape"]
TOP_WEIGHTED: tuple[LossName, ...] = ("warp", "mape")
MOST_SPANS = 9.0
"""A fit has at most this many spans of 1 / (learning rate x weight decay) steps.

AdamW averages updates over one span (2405.13698). Long fits lower the weight decay, so a span stays
the same share of a fit, whatever the number of labels. With the default settings of `gcn`, these
are fits of more than 600 steps. Measured on nasbench201 with 469 labels, i.e. 1,465 steps (seeds 0
to 3): tau 0.891, and 0.882 with the whole weight decay. On NAS-Bench-Macro, half as many spans
lower tau by 0.002 with 400 labels.
"""
MIN_HELD_OUT = 20  # minimum number of labels to select a loss by their order
SwitchName = Literal["never", "warp", "mape", "held_out"]


class Recipe(StrictModel):
    """AdamW with a one-cycle cosine schedule on random mini-batches of labels.

    The defaults were selected for the GCN on NAS-Bench-Macro, on the ImageNet accuracies of OFA and
    on synthetic truths of mobilenet_tiny, at 50 to 400 labels. Five small members are better than
    three large ones at equal cost.
    """

    members: Annotated[int, Field(ge=2, le=64)] = 5
    """Number of networks in the ensemble. With k networks, each one holds out every k-th label,
    which calibrates the standard deviation.
    """
    loss: LossName = "listwise"
    """Loss of the networks. `mse`: squared error; `pairwise`: hinge on the order of every pair in a
    batch; `listwise`: cross-entropy between the softmax of labels and of scores (ListNet, Cao et
    al. 2007); `both`: weighted sum of `mse` and `pairwise`; `listmle`: likelihood of the true order
    (Xia et al. 2008). Two losses give the largest weight to the best labels: `warp`, a hinge on the
    order of the top quarter and all worse labels (Weston et al. 2011), and `mape`, the absolute
    error over the distance to an upper bound.
    """
    switch: Annotated[SwitchName, LATER] = "never"
    """Loss of the second half of the steps: `never` stays with `loss`; `warp` and `mape` are
    top-weighted. `held_out` trains all three, and keeps the one that ranks the best of the held-out
    labels best. It needs at least 20 labels, and a fit takes twice as long.
    """
    ranking_weight: Annotated[float, Field(ge=0, le=100)] = 3.0
    """Weight of the pairwise hinge in the loss `both`."""
    margin: Annotated[float, Field(ge=0, le=10)] = 0.1
    """Margin of the hinge losses, in standard deviations of the labels."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 1.5e-2
    """Peak learning rate of the one-cycle schedule."""
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 1.0
    """Weight decay of AdamW. Long fits lower it to 9 / (`learning_rate` x number of steps), if that
    is lower (with the other defaults: fits of more than 600 steps).

    Measured on nasbench201 with 39 labels (the networks alone, seeds 0 to 3): tau 0.759 with 1.0
    and 0.749 with 0.3.
    """
    batch_size: Annotated[int, Field(ge=2, le=65536)] = 32
    """Number of labels per optimiser step."""
    epochs: Annotated[int, Field(ge=1, le=100_000)] = 100
    """Number of passes over the labels, within the limits `min_steps` and `max_steps`."""
    min_steps: Annotated[int, Field(ge=1, le=1_000_000)] = 300
    """Minimum number of optimiser steps of every network of the ensemble."""
    max_steps: Annotated[int, Field(ge=1, le=1_000_000)] = 1800
    """Maximum number of optimiser steps of every network of the ensemble."""

    def late_losses(self, n_labels: int) -> tuple[LossName, ...]:
        """Losses of the second half of the steps; if several, held-out labels select one."""
        if self.switch in ("warp", "mape"):
            return (self.switch,)
        if self.switch == "held_out" and n_labels >= MIN_HELD_OUT:
            return tuple(dict.fromkeys((self.loss, *TOP_WEIGHTED)))
        return (self.loss,)

    def decay(self, n_labels: int) -> float:
        """Weight decay of AdamW for a fit on `n_labels`; see `MOST_SPANS`."""
        return min(self.weight_decay, MOST_SPANS / (self.learning_rate * self.n_steps(n_labels)))

    def n_steps(self, n_labels: int) -> int:
        """Optimiser steps for a fit on `n_labels`."""
        steps = self.epochs * n_labels // self.batch_size
        return min(max(steps, self.min_steps), self.max_steps)
