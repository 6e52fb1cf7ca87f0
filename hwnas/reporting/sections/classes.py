"""The report section on classes: accuracy of each, confusions, and some test images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hwnas.core.stats import standard_error

__all__ = ["ClassRow", "Classes", "Picture"]

MOST_SQUARE = 25  # classes of a confusion matrix that is shown as a whole
N_PAIRS = 20  # confused pairs that are listed


@dataclass(frozen=True)
class Picture:
    """A test image: `jpeg` in base64, its class, the predicted class, the softmax."""

    jpeg: str
    label: str
    predicted: str
    confidence: float


@dataclass(frozen=True)
class ClassRow:
    """One class: test images, accuracy, its standard error, and the most frequent mistake."""

    name: str
    n: int
    top1: float | None
    error: float | None
    taken_for: str


@dataclass(frozen=True)
class Classes:
    """Predictions of the network of a device. confusion[i][j]: images of class i predicted as j.

    device: name of the device, or of several that run the same file of the same network.
    """

    device: str
    file: str
    names: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]
    right: tuple[Picture, ...] = ()
    wrong: tuple[Picture, ...] = ()

    @property
    def rows(self) -> list[ClassRow]:
        """Every class, the worst first; those without test images last."""
        rows = [self._row(i) for i in range(len(self.names))]
        return sorted(rows, key=lambda row: (2.0 if row.top1 is None else row.top1, row.name))

    def _row(self, i: int) -> ClassRow:
        counts = self.confusion[i]
        n = sum(counts)
        if not n:
            return ClassRow(self.names[i], 0, None, None, "")
        others = [(count, -j) for j, count in enumerate(counts) if j != i and count]
        most, j = max(others, default=(0, 0))
        taken = f"{self.names[-j]} ({most})" if most else ""
        return ClassRow(self.names[i], n, counts[i] / n, standard_error(counts[i] / n, n), taken)

    @property
    def is_square(self) -> bool:
        """Whether there are few enough classes to show the whole confusion matrix."""
        return len(self.names) <= MOST_SQUARE

    @property
    def shares(self) -> list[list[float]]:
        """The confusion matrix, as shares of each class."""
        return [[count / max(1, sum(row)) for count in row] for row in self.confusion]

    @property
    def pairs(self) -> Sequence[tuple[str, str, int]]:
        """The most frequent confusions: class, predicted class, number of images."""
        found = [
            (self.names[i], self.names[j], count)
            for i, row in enumerate(self.confusion)
            for j, count in enumerate(row)
            if i != j and count
        ]
        return sorted(found, key=lambda pair: (-pair[2], pair[0], pair[1]))[:N_PAIRS]
