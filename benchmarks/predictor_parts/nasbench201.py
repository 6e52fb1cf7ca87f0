"""The shared half of NAS-Bench-201: accuracies on three data sets, and zero-cost proxies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hwnas.core.csv_data import read_csv
from hwnas.interfaces import FloatArray
from hwnas.predictors.open_records import open_records
from hwnas.predictors.records import Records
from hwnas.spaces.space import Codes, SearchSpace

__all__ = ["TARGETS", "Half", "accuracies", "zero_cost"]

TARGETS = {
    "cifar10": "cifar10_test_200ep",
    "cifar100": "cifar100_test_200ep",
    "imagenet16": "imagenet16_test_200ep",
}


@dataclass(frozen=True)
class Half:
    """Distinct cells with one row of numbers each.

    codes: [n, d].
    columns: values [n] by name.
    """

    space: SearchSpace
    codes: Codes
    columns: dict[str, FloatArray]


def _cells(data: Path) -> tuple[Records, NDArray[np.int64]]:
    """All cells with their CIFAR-10 accuracies, and their numbers [n] in the benchmark."""
    path = data / "nasbench201_accuracy" / "accuracy.csv"
    numbers = [int(row["index"]) for row in read_csv(path, ["index"]).rows]
    return open_records(path).records(), np.array(numbers)


def accuracies(data: Path) -> Half:
    """Mean test accuracies of all cells after 200 epochs, by data set, as fractions."""
    records, numbers = _cells(data)
    table = read_csv(data / "nasbench201_accuracy_200ep" / "accuracy.csv", ["index"])
    found = {int(row["index"]): row for row in table.rows}
    columns = {
        name: np.array([float(found[number][column]) / 100 for number in numbers])
        for name, column in TARGETS.items()
    }
    return Half(records.space, records.codes, columns)


def zero_cost(data: Path) -> Half:
    """13 proxies, and the CIFAR-10 accuracy, of the cells that have both."""
    records, numbers = _cells(data)
    with np.load(data / "nasbench201_zero_cost" / "proxies.npz") as stored:
        places = {int(number): row for row, number in enumerate(stored["index"])}
        names, values = stored["columns"].tolist(), stored["proxies"].astype(np.float64)
    both = np.array([number in places for number in numbers])
    rows = [places[int(number)] for number in numbers[both]]
    columns = {name: values[rows, i] for i, name in enumerate(names)}
    columns["accuracy"] = records.scores[both]
    return Half(records.space, records.codes[both], columns)
