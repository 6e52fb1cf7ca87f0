"""Contract tests of exporters: `interfaces.Exporter`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from hwnas.core.errors import UserError
from hwnas.core.rng import rng
from hwnas.exporters import onnx as float_onnx
from hwnas.exporters.opened import CannotRunHere
from hwnas.exporters.parity import ParityReport, compare_batches, torch_logits
from hwnas.interfaces import Exporter, ExporterModule, Images
from hwnas.nets.subnet import build_subnet
from hwnas.testing.suite import Suite, name_of, run_python, tiny_space

__all__ = ["ExporterSuite", "check_parity"]

SHAPE = (3, 16, 16)
IMAGES = rng(0, "images").standard_normal((16, *SHAPE)).astype(np.float32)


def check_parity(
    exporter: Exporter, files: Sequence[Path], model: nn.Module, images: Images
) -> ParityReport:
    """Checks that the exported model and `model` agree, at each batch size of the format.

    Raises:
        CannotRunHere: the format does not run on this host.
    """
    entry = exporter.describe(files)
    report = compare_batches(
        torch_logits(model, images),
        exporter.open_model(files[0]),
        images,
        file=files[0].name,
        tolerance=entry.parity_tolerance,
        min_agreement=1.0 if entry.precision == "fp32" else 0.8,  # untrained: many near ties
    )
    assert [b.batch for b in report.batches] == ([entry.batch] if entry.batch else [1, 2, 8])
    assert report.passed, report
    return report


class ExporterSuite(Suite):
    """Contract of an exporter, on a small untrained network."""

    CONTRACT = ExporterModule
    PROMISES = frozenset({"runs_here"})
    """`runs_here` is optional, because some formats need special hardware (a GPU)."""

    @pytest.fixture
    def model(self) -> nn.Module:
        """The network, in training mode as after training."""
        return build_subnet(tiny_space(), tiny_space().smallest()).train()

    @pytest.fixture
    def folder(self, variant: Any, model: nn.Module, tmp_path: Path) -> Path:
        """A folder with the ONNX file, from which other formats can start."""
        folder = tmp_path / "out"
        folder.mkdir()
        if name_of(variant) != name_of(float_onnx):
            exporter = float_onnx.build(float_onnx.Config())
            exporter.export(model, input_shape=SHAPE, folder=folder)
        return folder

    def test_exports_a_network_that_agrees_with_torch(
        self, variant: Any, quick_config: Any, model: nn.Module, folder: Path
    ) -> None:
        """Only the listed files are written, the model first.

        A repeated export gives equal files, and the model is not changed.
        """
        earlier = set(folder.iterdir())
        before = {key: value.clone() for key, value in model.state_dict().items()}
        exporter: Exporter = variant.build(quick_config)
        files = exporter.export(model, input_shape=SHAPE, folder=folder, images=IMAGES)
        assert files and set(files) == set(folder.iterdir()) - earlier
        content = {path: path.read_bytes() for path in files}
        exporter.export(model, input_shape=SHAPE, folder=folder, images=IMAGES)
        assert {path: path.read_bytes() for path in files} == content, (
            "a repeated export writes different bytes"
        )
        assert model.training
        for key, value in model.state_dict().items():
            assert value.equal(before[key]), key
        entry = exporter.describe(files)
        assert entry.format == name_of(variant)
        assert Path(entry.path).name == files[0].name
        try:
            check_parity(exporter, files, model, IMAGES)
        except CannotRunHere:
            self.promised(variant, "runs_here")
            raise

    def test_importing_it_and_its_settings_needs_no_torch(self, variant: Any) -> None:
        """Importing and building the exporter needs neither torch nor onnx."""
        run_python(
            f"import sys, importlib; module = importlib.import_module({variant.__name__!r})\n"
            "module.build(module.Config())\n"
            "sys.exit('torch' in sys.modules or 'onnx' in sys.modules)"
        )

    def test_an_unwritable_folder_is_an_error_that_says_so(
        self, variant: Any, quick_config: Any, model: nn.Module, tmp_path: Path
    ) -> None:
        """Every system error becomes a `UserError`."""
        blocked = tmp_path / "file"
        blocked.write_text("not a folder")
        with pytest.raises(UserError):
            variant.build(quick_config).export(
                model, input_shape=SHAPE, folder=blocked / "below", images=IMAGES
            )
