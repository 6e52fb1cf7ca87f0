"""The shipped suites fail variants that break their contracts: one fault, one failing test."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from hwnas.exporters import onnx
from hwnas.interfaces import Slot
from hwnas.nets.proxies import macs
from hwnas.predictors.readers import nas_bench_macro
from hwnas.searchers import random
from hwnas.spaces import mobilenet_tiny
from hwnas.testing import (
    PredictorSuite,
    ProxySuite,
    ReaderSuite,
    SamplerSuite,
    SearcherSuite,
    SpaceSuite,
    Suite,
)
from hwnas.testing import spaces as space_suite
from hwnas.testing.exporters import IMAGES, check_parity
from hwnas.testing.suite import tiny_space
from hwnas.training.samplers import sandwich

FAILS = pytest.raises((AssertionError, pytest.fail.Exception))


def variant(module: Any, **changes: Any) -> Any:
    """The module with other members."""
    return SimpleNamespace(**{**vars(module), **changes})


def test_a_searcher_outside_its_space():
    def build(config: Any, context: Any) -> Any:
        return random.build(config, replace(context, space=tiny_space()))

    wrong = variant(random, build=build)
    with FAILS:
        SearcherSuite().test_proposals_are_canonical_archs_of_the_space(
            wrong, random.Config(), {"resolution": (24,)}
        )


def test_a_searcher_without_state():
    class Forgetful(random.RandomSearch):
        def load_state(self, state: dict[str, Any]) -> None:
            pass

    wrong = variant(random, build=lambda config, c: Forgetful(c.space, c.seed))
    with FAILS:
        SearcherSuite().test_state_continues_identically(wrong, random.Config(), 1)


def test_a_searcher_that_learns_nothing_and_does_not_say_so():
    wrong = variant(random, EXEMPT={})
    with FAILS:
        SearcherSuite().test_beats_random_at_equal_budget(wrong, random.Config())


def test_a_misspelt_exemption():
    with FAILS:
        SearcherSuite().test_exemptions_are_of_promises_and_say_why(
            variant(random, EXEMPT={"beats_radnom": "a reason"})
        )
    with FAILS:
        SearcherSuite().test_exemptions_are_of_promises_and_say_why(
            variant(random, EXEMPT={"beats_random": ""})
        )


def test_a_module_without_its_members():
    with FAILS:
        SearcherSuite().test_the_module_is_what_its_kind_asks_for(variant(random, build=None))
    with FAILS:
        SearcherSuite().test_the_module_is_what_its_kind_asks_for(variant(random, __doc__=""))


def test_a_module_that_imports_torch():
    with FAILS:
        Suite().test_importing_it_and_its_settings_needs_no_torch(
            SimpleNamespace(__name__="hwnas.nets.supernet")
        )


def test_a_sampler_with_a_memory():
    class Counting:
        in_place, calls = True, 0

        def slots(self, step: int) -> list[Slot]:
            Counting.calls += 1
            row = tiny_space().sample(1, rng=np.random.default_rng(Counting.calls))[0]
            return [Slot((tiny_space().arch(row),))]

    wrong = variant(sandwich, build=lambda config, context: Counting())
    with FAILS:
        SamplerSuite().test_archs_depend_on_seed_and_step_alone(wrong, sandwich.Config())
    with FAILS:
        SamplerSuite().test_the_teacher_is_the_largest(wrong, sandwich.Config())


def test_a_proxy_that_draws_from_the_global_stream():
    wrong = variant(macs, build=lambda config, context: lambda codes: np.random.rand(len(codes)))
    suite, codes = ProxySuite(), tiny_space().sample(4, rng=np.random.default_rng(0))
    with FAILS:
        suite.test_scores_are_finite_reproducible_and_of_each_arch_alone(
            wrong, macs.Config(), tiny_space(), codes
        )
    with FAILS:
        suite.test_images_are_accepted_and_global_generators_left_alone(
            wrong, macs.Config(), tiny_space(), codes
        )


def test_a_predictor_that_predicts_the_mean():
    class Mean:
        def fit(self, codes: Any, scores: Any) -> None:
            self.mean = scores.mean()

        def predict(self, codes: Any) -> Any:
            jitter = np.arange(len(codes)) % 7 * 1e-6
            return np.full(len(codes), self.mean) + jitter, np.full(len(codes), 0.05)

    codes = tiny_space().sample(520, rng=np.random.default_rng(0))
    scores = np.random.default_rng(1).normal(0.7, 0.05, 520)
    with FAILS:
        PredictorSuite().test_ranks_an_additive_truth_better_than_macs(Mean, (codes, scores))


def test_a_reader_that_takes_every_file(tmp_path: Path):
    reader = replace(nas_bench_macro.READER, matches=lambda head: True)
    (tmp_path / "x.json").write_text('{"00000012": {"test_acc": [90.0]}}')
    with FAILS:
        ReaderSuite().test_the_format_is_recognised_by_this_reader_alone(
            SimpleNamespace(READER=reader, __name__="wrong"), tmp_path / "x.json"
        )


def test_an_exporter_of_another_network(tmp_path: Path):
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 16), torch.nn.Flatten())
    other = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 16), torch.nn.Flatten())
    exporter = onnx.build(onnx.Config())
    files = exporter.export(net, input_shape=(3, 16, 16), folder=tmp_path)
    assert check_parity(exporter, files, net, IMAGES).passed
    with FAILS:
        check_parity(exporter, files, other, IMAGES)


@pytest.mark.parametrize("part", ["extract", "build_from_definition"])
def test_a_space_whose_networks_differ(part: str, monkeypatch: pytest.MonkeyPatch):
    space = mobilenet_tiny.build(mobilenet_tiny.Config(resolutions=(8, 12)), num_classes=10)
    right = getattr(space_suite, part)

    def wrong(*arguments: Any) -> torch.nn.Module:
        model = right(*arguments)
        hook = lambda module, inputs, output: output * 1.001  # noqa: E731
        model.register_forward_hook(hook)
        return model

    suite = SpaceSuite()
    suite.test_supernet_extracted_and_static_networks_compute_the_same(space)
    monkeypatch.setattr(space_suite, part, wrong)
    with FAILS:
        suite.test_supernet_extracted_and_static_networks_compute_the_same(space)


def test_a_space_whose_file_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    space = mobilenet_tiny.build(mobilenet_tiny.Config(resolutions=(8,)), num_classes=10)

    right = onnx.build(onnx.Config())

    class Shifted:
        def export(self, model: Any, **settings: Any) -> Any:
            with torch.no_grad():
                model.classifier.bias += 0.01
                files = right.export(model, **settings)
                model.classifier.bias -= 0.01
            return files

    monkeypatch.setattr(onnx, "build", lambda config: Shifted())
    with FAILS:
        SpaceSuite().test_the_exported_network_computes_the_same(space, tmp_path)
