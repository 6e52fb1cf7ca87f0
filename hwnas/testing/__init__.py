"""Contract tests for variants of any package: subclass a suite with one fixture.

    from hwnas.testing import SearcherSuite
    from my_package import annealing

    class TestAnnealing(SearcherSuite):
        @pytest.fixture
        def variant(self):
            return annealing

The fixture `config` is the default configuration of the variant. Override it if the default cannot
be built everywhere (a data set that needs files). A module can define two variables for its suite:

- `QUICK`: settings, as in YAML, with which tests are fast and need no special hardware. The suites
  use them if the quality of the result does not matter.
- `EXEMPT`: promises of the suite (`Suite.PROMISES`) that the variant does not keep, with reasons.
"""

# ruff: noqa: E402 - pytest explains the asserts of modules that are imported after this call
import pytest

MODULES = "acquisitions datasets devices exporters matrix predictors proxies readers samplers"
MORE = "searchers spaces suite"
pytest.register_assert_rewrite(*(f"hwnas.testing.{name}" for name in f"{MODULES} {MORE}".split()))

from hwnas.testing.acquisitions import AcquisitionSuite
from hwnas.testing.datasets import DatasetSuite
from hwnas.testing.devices import RuntimeSuite, TransportSuite
from hwnas.testing.exporters import ExporterSuite
from hwnas.testing.predictors import PredictorSuite
from hwnas.testing.proxies import ProxySuite
from hwnas.testing.readers import ReaderSuite
from hwnas.testing.samplers import SamplerSuite
from hwnas.testing.searchers import SearcherSuite
from hwnas.testing.spaces import SpaceSuite
from hwnas.testing.suite import Suite, load_or_skip

__all__ = [
    "AcquisitionSuite",
    "DatasetSuite",
    "ExporterSuite",
    "PredictorSuite",
    "ProxySuite",
    "ReaderSuite",
    "RuntimeSuite",
    "SamplerSuite",
    "SearcherSuite",
    "SpaceSuite",
    "Suite",
    "TransportSuite",
    "load_or_skip",
]
