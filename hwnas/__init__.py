"""hwnas: hardware-aware architecture search with measured latency as the cost.

Every command is a function here, named by the words of the command joined by `_`: `hwnas table diff
A B` is `hwnas.table_diff(a, b)`. docs/python.md has examples. Names are imported when first used,
so `import hwnas` is fast.

Arguments that many functions share:
    folder: a run folder; `hwnas.run` and the stages create it.
    config: a YAML file or one of `hwnas.list("configs")`. It configures a new folder, or replaces
        the configuration of an existing one.
    settings: changes by key path, `{"train.steps": 50}`.
    progress: maps the name of a stage to a function `(done, total, note)` that shows its progress.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

try:
    import fcntl  # noqa: F401
except ImportError:
    raise ImportError("hwnas needs Linux or macOS; on Windows, run it in WSL") from None

# Before any import of ONNX Runtime: its builds also report usage on Linux (seen in 1.32).
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

if TYPE_CHECKING:
    from hwnas.api.analyze import analyze
    from hwnas.api.bundle import Bundle, Prediction, load_bundle
    from hwnas.api.check import check
    from hwnas.api.clean import clean
    from hwnas.api.config import config_explain, config_schema, config_show
    from hwnas.api.data import data_show
    from hwnas.api.doctor import doctor
    from hwnas.api.export import export
    from hwnas.api.finetune import finetune
    from hwnas.api.label import label
    from hwnas.api.list import list as list
    from hwnas.api.open_run import Run, open_run
    from hwnas.api.predictor import (
        predictor_eval,
        predictor_export_lut,
        predictor_fit,
        predictor_lookup,
        predictor_predict,
    )
    from hwnas.api.pretrained import pretrained_import, pretrained_list
    from hwnas.api.profile import profile, profile_import, profile_pack
    from hwnas.api.progress import progress_bars
    from hwnas.api.prune import prune
    from hwnas.api.references import references
    from hwnas.api.report import report
    from hwnas.api.result import Listing, Point
    from hwnas.api.run import run
    from hwnas.api.search import Found, FoundPerDevice, Score, search
    from hwnas.api.space import (
        space,
        space_count,
        space_from_timm,
        space_list,
        space_models,
        space_sample,
        space_show,
        space_validate,
    )
    from hwnas.api.status import plan, status
    from hwnas.api.table import (
        table_convert,
        table_diff,
        table_estimate,
        table_fit,
        table_list,
        table_merge,
        table_show,
        table_transfer,
        table_validate,
    )
    from hwnas.api.train import train
    from hwnas.api.undo import undo
    from hwnas.api.verify import verify
    from hwnas.core.errors import CheckFailed, HwnasError, NotJudged, UserError
    from hwnas.latency.estimator import Estimate
    from hwnas.latency.shipped import latency_table
    from hwnas.latency.table import LatencyTable
    from hwnas.nets.supernet import Supernet
    from hwnas.spaces.arch import Arch
    from hwnas.spaces.space import SearchSpace

__version__ = "0.2.0"

__all__ = [  # without `list`, so that `from hwnas import *` keeps the builtin
    "Arch",
    "Bundle",
    "CheckFailed",
    "Estimate",
    "Found",
    "FoundPerDevice",
    "HwnasError",
    "LatencyTable",
    "Listing",
    "NotJudged",
    "Point",
    "Prediction",
    "Run",
    "Score",
    "SearchSpace",
    "Supernet",
    "UserError",
    "__version__",
    "analyze",
    "check",
    "clean",
    "config_explain",
    "config_schema",
    "config_show",
    "data_show",
    "doctor",
    "export",
    "finetune",
    "label",
    "latency_table",
    "load_bundle",
    "open_run",
    "plan",
    "predictor_eval",
    "predictor_export_lut",
    "predictor_fit",
    "predictor_lookup",
    "predictor_predict",
    "pretrained_import",
    "pretrained_list",
    "profile",
    "profile_import",
    "profile_pack",
    "progress_bars",
    "prune",
    "references",
    "report",
    "run",
    "search",
    "space",
    "space_count",
    "space_from_timm",
    "space_list",
    "space_models",
    "space_sample",
    "space_show",
    "space_validate",
    "status",
    "table_convert",
    "table_diff",
    "table_estimate",
    "table_fit",
    "table_list",
    "table_merge",
    "table_show",
    "table_transfer",
    "table_validate",
    "train",
    "undo",
    "verify",
]

_ELSEWHERE = {
    "Arch": "spaces.arch",
    "Bundle": "api.bundle",
    "CheckFailed": "core.errors",
    "Estimate": "latency.estimator",
    "Found": "api.search",
    "FoundPerDevice": "api.search",
    "HwnasError": "core.errors",
    "LatencyTable": "latency.table",
    "Listing": "api.result",
    "NotJudged": "core.errors",
    "Point": "api.result",
    "Prediction": "api.bundle",
    "Run": "api.open_run",
    "Score": "api.search",
    "SearchSpace": "spaces.space",
    "Supernet": "nets.supernet",
    "UserError": "core.errors",
    "latency_table": "latency.shipped",
    "load_bundle": "api.bundle",
    "open_run": "api.open_run",
    "progress_bars": "api.progress",
    "plan": "api.status",
}
"""Maps each public name that is not in the file of its verb, `api/VERB.py`, to its module."""


def __getattr__(name: str) -> Any:
    if name not in (*__all__, "list"):
        raise AttributeError(f"module 'hwnas' has no attribute {name!r}")
    module = _ELSEWHERE.get(name, f"api.{name.partition('_')[0]}")
    from hwnas.core.home import with_home

    value = with_home(getattr(import_module(f"hwnas.{module}"), name))
    globals()[name] = value  # later uses do not call this function
    return value


def __dir__() -> Any:
    return sorted({*globals(), *__all__, "list"})
