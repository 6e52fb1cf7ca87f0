"""Every setting does something: changing it changes what its stage can be seen to do.

To add a setting, add nothing: its other value follows from its type. Where that is no value that
fits, or it matters under other settings only, add it to `VALUES` or `UNDER`. A new section needs a
probe, which tests/probes.py has.
"""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

import pytest

from hwnas.core.errors import UserError
from hwnas.core.records import dump
from hwnas.core.settings import Setting, settings_of
from hwnas.devices.spec import load_devices
from hwnas.pipeline import project
from hwnas.pipeline.config import REGISTRIES, ExperimentConfig
from hwnas.spaces.published import published_network, published_networks
from hwnas.training.datasets import digits
from tests.intel import forget_modules
from tests.probes import PROBES, Bench

CANNOT = {
    "schema_version": "it has one value",
    "predictor.teacher.name (distilled)": "it has one value",
    "data.skip_broken (sign_digits)": "all of its photos, which come with hwnas, decode",
}
"""Settings that cannot change anything, and why."""

REFUSED = {
    "accelerator": "",  # CUDA, where there is none
    "data.download *": "nothing is downloaded in tests",
    "data.root (cifar*)": "the files of cifar",
    "data.skip_broken *": "",
    "data.num_classes *": "",
    "search.searcher.max_contexts *": "",
    "search.searcher.n_checks *": "sums over blocks",
    "train.teacher.model": "these are not the weights of",
    "*.auxiliary": "no place for an auxiliary classifier",
    "finetune.dropout": "only for recurrent networks",
    "label.trained.recipe.dropout": "only for recurrent networks",
}
"""Settings of which one of both values is refused by the code that uses it, with this message."""

SMALL = {
    "devices": ["local"],
    "profile.n_validation": 5,
    "train.steps": 4,
    "train.batch_size": 8,
    "train.calibration.batch_size": 16,
    "train.curve_every": 2,
    "train.curve_images": 16,
    "train.checkpoint_every": 1,
    "train.optimizer.lr": 0.01,
    "label.n_archs": 4,
    "label.calibration.batch_size": 16,
    "finetune.calibration.batch_size": 16,
    "alone.n": 0,
    "search.n_predictions": 96,
    "search.generation_size": 16,
    "search.n_evaluations": 5,
    "search.evaluate_every": 2,
    "search.top_k": 3,
    "search.closing.max_rounds": 0,
    "export": [{"name": "onnx"}],
    "verify.max_forecast_error": 0.05,
}
"""Of all probes: little of everything."""

FEW_IMAGES = {"data.val_fraction": 0.05, "data.test_fraction": 0.84}
N_CHOICES = 14  # of the space of the run folder
ENSEMBLE = {"members": 2, "epochs": 6, "min_steps": 1, "max_steps": 50, "batch_size": 8}
RECIPE = {"epochs": 2, "batch_size": 64, "calibration.batch_size": 32}
OP = {"name": "a", "kind": "mbconv", "kernel": 3, "expand": 2, "groups": 2}
UIB = {"name": "a", "kind": "uib", "kernel": 3, "expand": 2}
PLAIN = {"name": "a"}
SPACE = {
    "resolutions": [16, 24],
    "stem": {"widths": [8, 16]},
    "stages": [
        {"widths": [8, 16], "depths": [1, 2], "kernels": [3, 5], "expands": [2, 4], "stride": 2}
    ],
    "head": {"width": 32, "feature_widths": [32]},
}
NETWORKS = sorted(published_networks())
NETWORK_DATA = [dump(published_network(name), versioned=False) for name in NETWORKS[:2]]
OPS = {"widths": [8, 16], "depths": [2, 3], "ops": [OP, {"name": "b", "kind": "dsconv"}]}

UNDER: list[tuple[str, dict[str, Any]]] = [
    ("space.*(mobile)", {"space": {"name": "mobile", **SPACE}}),
    ("space.stages.N.*ops.*", {"space.stages": [OPS | {"first_ops": [OP | {"name": "c"}]}]}),
    (
        "space.stages.N.*ops.N.kind *",
        {
            "space.stages": [
                OPS
                | {
                    "ops": [PLAIN, {"name": "b", "kind": "dsconv"}],
                    "first_ops": [PLAIN, {"name": "b"}],
                }
            ]
        },
    ),
    *(
        (
            f"space.stages.N.*ops.N.{name} *",
            {"space.stages": [OPS | {"ops": [UIB, OP | {"name": "b"}], "first_ops": [UIB]}]},
        )
        for name in ("start_kernel", "expand_groups")
    ),
    (
        "space.stages.N.skip_act *",
        {"space.stages": [OPS | {"ops": [OP, {"name": "s", "kind": "skip"}]}]},
    ),
    ("space.head.expand *", {"space.head": {"expand": 2}}),
    ("space.*(timm)", {"space": {"name": "timm", "model": NETWORKS[0], "resolutions": [64, 96]}}),
    (
        "space.network *",
        {"space": {"name": "timm", "network": NETWORK_DATA[0], "resolutions": [64, 96]}},
    ),
    ("space.*(mobilenet_v3)", {"space.resolutions": [128, 160]}),
    ("space.*(ofa_proxyless)", {"space.resolutions": [128, 160]}),
    ("space.*(attentive_nas)", {"space.resolutions": [192, 224]}),
    ("workers", {"data": {"name": "image_folder", "root": "@folders", "base_px": 16}}),
    ("data.*(cifar10)", {"data": {"name": "cifar10", "root": "@cifar10", "n_val": 20}}),
    ("data.*(cifar100)", {"data": {"name": "cifar100", "root": "@cifar100", "n_val": 200}}),
    ("data.download *", {"data.root": "/nowhere"}),
    ("data.*(image_folder)", {"data": {"name": "image_folder", "root": "@folders", "base_px": 16}}),
    ("data.*(npz_jpeg)", {"data": {"name": "npz_jpeg", "root": "@archives", "base_px": 16}}),
    (
        "data.*(text)",
        {"data": {"name": "text", "root": "@texts", "files": ["text.txt"], "steps": 5}},
    ),
    ("data.*(sign_digits)", {"data": {"name": "sign_digits", "base_px": 16}}),
    ("data.skip_broken (image_folder)", {"data.root": "@broken_folders"}),
    ("data.skip_broken (npz_jpeg)", {"data.root": "@broken_archives"}),
    (
        "train.sampler.device *",
        {"devices": ["local", "local_int8"], "train.sampler.metric": "latency_ms"},
    ),
    (
        "train.sampler.*(policy)",
        {"train.sampler.warmup": 0.1, "train.sampler.every": 1, "train.sampler.n_trials": 4},
    ),
    ("train.sampler.metric (policy)", {"train.sampler.cost_weight": 1.0}),
    ("train.sampler.device (policy)", {"train.sampler.cost_weight": 1.0}),
    ("train.sampler.memory *", {"train.sampler.baseline": "ema"}),
    (
        "train.sampler.phases.*",
        {
            "train.sampler.phases": [
                {"share": 0.5, "n_random": 1, "free": {"depth": 1}},
                {"share": 0.5, "n_random": 1, "free": {"depth": 9}},
            ]
        },
    ),
    ("*.optimizer.decay_*", {"*.optimizer.schedule": "step"}),
    ("*.optimizer.min_lr", {"*.optimizer.schedule": "cosine"}),
    ("*.optimizer.momentum", {"*.optimizer.name": "sgd"}),
    ("train.temperature", {"train.distillation": "kl"}),
    (
        "train.alpha_clip",
        {"train.distillation": "alpha", "train.optimizer.lr": 0.2, "train.steps": 6},
    ),
    ("train.ranking.*", {"train.ranking.pairs": 2}),
    ("train.ranking.prior.device *", {"devices": ["local", "local_int8"]}),
    (
        "train.ranking.prior.*(zen)",
        {"train.ranking.prior.repeats": 2, "train.ranking.prior.batch_size": 4},
    ),
    (
        "search.searcher.*(exact)",
        {"search.constraints": [{"metric": "macs", "max_fraction_of_largest": 0.8}]},
    ),
    ("predictor.*(mlp)", {f"predictor.training.{k}": v for k, v in ENSEMBLE.items()}),
    ("train.ranking.peak", {"train.ranking.schedule": "constant"}),
    (
        "train.teacher.*",
        {"train.teacher": {"model": "test_efficientnet", "weights": "@teacher.a", "px": 16}},
    ),
    ("train.ema.*", {"train.ema": {"decay": 0.5}}),
    ("train.tensorboard", {}),
    (
        "supernet.share_ops",
        {"space.stages": [OPS | {"ops": [OP, OP | {"name": "b", "kernel": 5}]}]},
    ),
    ("supernet.kernel_transform", {"space.stages.0.kernels": [3, 5]}),
    ("label.re*", {"label.trained": {"n": 0}}),
    ("label.reader", {"label.records": "@records"}),
    ("label.target", {"label.trained": {"n": 0}, "label.records": "@records"}),
    ("label.trained.*", {"label.trained": {"n": 1}, "label.n_archs": 3, **FEW_IMAGES}),
    ("label.trained.*", {f"label.trained.recipe.{k}": v for k, v in RECIPE.items()}),
    ("label.trained.recipe.drop_path", {"label.trained.n": 3}),  # some have residual blocks
    ("finetune.*", {f"finetune.{k}": v for k, v in RECIPE.items()} | FEW_IMAGES),
    ("finetune.average", {"finetune.optimizer.lr": 0.5}),  # what it loses the average gets back
    ("alone.*", {"alone.n": 1, **FEW_IMAGES}),
    ("predictor.training.*", {f"predictor.training.{k}": v for k, v in ENSEMBLE.items()}),
    ("predictor.*(gcn)", {f"predictor.training.{k}": v for k, v in ENSEMBLE.items()}),
    (
        "predictor.*(distilled)",
        {
            "predictor": {
                "name": "distilled",
                "n_archs": 64,
                "width": 8,
                "epochs": 2,
                "teacher": {"name": "gcn", "training": ENSEMBLE},
            }
        },
    ),
    *(
        (f"predictor.{part}training.{key} *", {f"predictor.{part}training.loss": "both"})
        for part in ("", "teacher.")
        for key in ("margin", "ranking_weight")
    ),
    ("export.*[!n] (litert)", {"export.1.precision": "int8"}),
    ("export.N.n_calibration (litert)", {"export.1.precision": "int8"}),
    ("search.searcher.*(evolution)", {"search.searcher.population": 8}),
    ("search.searcher.ema_decay *", {"search.searcher.baseline": "ema"}),
    (
        "search.acquisition.uncertain_every *",
        {"search.evaluate_every": 1, "search.n_evaluations": 8},
    ),
    ("search.n_initial", {"search.evaluator.records": "@records", "search.n_evaluations": 10}),
    ("search.searcher.keep *", {"search.searcher.candidates": 4, "search.searcher.completions": 1}),
    (
        "search.searcher.warm_start *",
        {"search.searcher.warm_probability": 0.9},
    ),  # choices are binary
    ("search.searcher.warm_probability *", {"search.searcher.warm_start": [0] * N_CHOICES}),
    ("search.evaluator.[!r]*", {"search.evaluator.records": "@records"}),
    ("search.evaluator.reader", {"search.evaluator.records": "@records"}),
    ("search.closing.*", {"search.closing.max_rounds": 2}),
    ("search.per_device", {"devices": ["local", "local_int8"]}),
    (
        "search.limits_met_on",
        {
            "devices": ["local", "local_int8"],
            "search.constraints": [
                {"metric": "latency_ms", "device": device, "max_fraction_of_largest": fraction}
                for device, fraction in (("local", 0.9), ("local_int8", 0.6))
            ],
        },
    ),
    (
        "search.stages.*",
        {"search.stages": [{"free": ["*.width"]}, {"free": ["*"]}], "search.constraints": []},
    ),
    ("search.held", {"search.stages": [{"free": ["*.width"]}], "search.constraints": []}),
    (
        "search.references.*",
        {"search.references": {"names": ["lcnet_050"], "train": ["test_resnet"]}},
    ),
]
"""Settings under which a setting (a pattern of key and variant) matters; `*.optimizer`: its own."""

VALUES: list[tuple[str, Any]] = [
    ("name", "other"),
    ("accelerator", "cuda"),
    ("restrict", {"resolution": [8]}),
    ("devices", ["local_int8"]),
    ("space", "mobilenet_tiny"),
    ("space.resolutions (fbnet)", [16]),
    ("space.widths (proxyless)", [8] * 9),
    ("space.model *", NETWORKS[1]),
    ("space.network *", NETWORK_DATA[1]),
    ("space.stages.N.*ops.N.name *", "other"),
    ("space.stages.N.*ops.N.kind *", "skip"),
    ("space.stages.N.*ops.N.start_kernel *", 5),
    ("data", {"name": "image_folder", "root": "@folders", "base_px": 16}),
    ("data.root (image_folder)", "@folders.b"),
    ("data.root (npz_jpeg)", "@archives.b"),
    ("data.root (cifar*)", "/nowhere"),
    ("data.root (text)", "@texts.b"),
    ("data.files *", ["other.txt"]),
    ("data.*.crop_scale *", [0.2, 0.4]),
    ("data.*.auto_augment *", "rand-m9-mstd0.5"),
    ("data.num_classes *", 4),
    ("data.classes *", "classes.txt"),
    ("data.repeat_to *", 200),
    ("data.train_file *", "other_train.npz"),
    ("data.test_file *", "other_val.npz"),
    ("train.sampler", "uniform"),
    ("train.teacher.model", "test_resnet"),
    ("train.sampler.device *", "local_int8"),
    ("train.teacher.weights", "@teacher.b"),
    ("*.optimizer.name", "sgd"),
    ("*.optimizer.clip_norm", 0.01),
    ("*.optimizer.warmup", 0.5),
    ("train.ranking.min_distance", 6),
    ("train.ranking.prior.device *", "local_int8"),
    ("train.ranking.prior.batch_size (naswot)", 8),
    ("train.ranking.prior.px *", 16),
    ("predictor.*.min_steps *", 30),
    ("predictor.*.max_steps *", 3),
    ("search.searcher.warm_start *", [0] * N_CHOICES),
    ("search.searcher.max_contexts *", 1),
    ("search.searcher.keep *", 1),
    ("search.closing.max_rounds", 1),
    ("search.n_initial", 4),
    ("search.references.epochs", 3),
    ("search.stages.N.free", ["*.expand"]),
    ("search.held", {"*.expand": 2}),
    ("search.references.names", ["lcnet_075"]),
    ("search.references.train", []),
    ("search.exploration", 50.0),
    ("search.acquisition", {"name": "thompson"}),
    ("search.acquisition.weight *", 50.0),
    ("search.acquisition.uncertain_every *", 2),
    ("space.width_ratios *", [0.5]),
    ("space.kernels (timm)", [1]),
    ("space.pad_mode *", "tf_same"),
    ("supernet.init", "@supernet"),
    ("label.records", "@records"),
    ("label.reader", "hwnas"),
    ("label.target", "top1"),
    ("search.evaluator.records", "@records"),
    ("search.evaluator.reader", "hwnas"),
    ("search.evaluator.target", "top1"),
    ("search.constraints", []),
    ("search.searcher", "random"),
    ("search.name", "other"),
    ("predictor", "forest"),
    ("export", ["onnx", "timm"]),
    ("train.ranking.prior", {"name": "params"}),
    ("export.N.batches *", [1, 2, 8]),
    ("export.N.capability *", "8.6"),
    ("export.N.opset *", 19),
    ("export.N.target (ort)", "amd64"),
]
"""Other values, where the type does not tell one."""

BUILD = digits.build
SETTINGS = list(settings_of(ExperimentConfig))


def name_of(setting: Setting) -> str:
    return f"{setting.key} ({', '.join(setting.variants)})" if setting.variants else setting.key


def matches(setting: Setting, pattern: str) -> bool:
    return fnmatchcase(name_of(setting), pattern)


def test_the_tables_name_settings_that_exist() -> None:
    patterns = [*CANNOT, *REFUSED, *(key for key, _ in [*UNDER, *VALUES])]
    unknown = [p for p in patterns if not any(matches(one, p) for one in SETTINGS)]
    assert not unknown


def probe_of(key: str) -> Any:
    """The probe of a setting.

    A new section has none.
    """
    parts = key.split(".")
    for n in range(len(parts), 0, -1):
        if (beginning := ".".join(parts[:n])) in PROBES:
            return PROBES[beginning]
    raise AssertionError(
        f"the setting {key} has no probe: add one to tests/probes.py that shows what it changes,"
        " or give the reason to CANNOT in this file"
    )


def test_a_setting_without_a_probe_is_noticed() -> None:
    with pytest.raises(AssertionError, match=r"new\.thing has no probe"):
        probe_of("new.thing")


def surroundings(setting: Setting) -> dict[str, Any]:
    """Settings under which a setting matters, its variants chosen."""
    changes = copy.deepcopy(SMALL)
    changes |= _chosen(setting)
    for pattern, under in UNDER:
        if matches(setting, pattern):
            section = setting.key.rpartition(".optimizer.")[0]
            changes |= {key.replace("*", section): value for key, value in under.items()}
    return changes


def _chosen(setting: Setting) -> dict[str, Any]:
    """The variants that the setting is of."""
    key = setting.key
    sections = [k for k, kind in REGISTERED.items() if key.startswith(f"{k}.")]
    changes = {}
    for section, variant in zip(sorted(sections, key=len), setting.variants, strict=False):
        if section == "export.N":
            formats = [*EXPORTED.get(variant, ()), {"name": variant}]
            changes["export"] = [{"name": "onnx"}] + formats * (variant != "onnx")
        else:
            changes[section] = {"name": variant}
    return changes


REGISTERED = {
    "space": "space", "data": "dataset", "train.sampler": "sampler",
    "train.ranking.prior": "proxy", "predictor": "predictor", "search.searcher": "searcher",
    "search.acquisition": "acquisition",
    "export.N": "exporter",
}  # fmt: skip
IN_8_BITS = {"name": "int8", "symmetric": True}
EXPORTED = {name: ({"name": "fp16"}, IN_8_BITS) for name in ("tensorrt", "tensorrt_rtx")}
EXPORTED["openvino"] = ({"name": "int8"},)
"""Formats that a format is made from."""


def at(config: ExperimentConfig, setting: Setting) -> tuple[str, Any]:
    """Key path of a setting in a configuration, items of lists numbered, and its value."""
    plain: Any = config.model_dump(mode="json")
    path = []
    for key in setting.key.split("."):
        if key == "N":
            is_export = path == ["export"]
            names = [one["name"] for one in plain] if is_export else []
            index = names.index(setting.variants[0]) if is_export else 0
            path.append(str(index))
            plain = plain[index]
        else:
            path.append(key)
            plain = plain[key]
    return ".".join(path), plain


def others(setting: Setting, now: Any) -> Iterator[Any]:
    """Values that may be other ones of this setting, by its type."""
    for pattern, value in VALUES:
        if matches(setting, pattern):
            yield value
            return
    kind = setting.type.removesuffix(" or null")
    if kind == "true or false":
        yield not now
    elif kind == "whole number":
        yield from ([1, 2, 3] if now is None else [now * 2, now + 1, now - 1, now // 2])
    elif kind == "number":
        yield from ([0.01, 0.5, 10.0] if now is None else [now * 2, now / 2, 0.5, 0.3, 2.0])
    elif kind.startswith("list of") and now:
        yield from ([*now[:-1], 2 * now[-1]], now[:-1], [*now, 1], [1, 2, 8])
    elif kind.startswith("list of"):
        yield from ([1], [1, 2], [32])
    elif " by text" in kind and now:
        yield {key: value + 1 for key, value in now.items()}
    elif " | " in kind:
        words = [word for word in kind.split(" | ") if word != str(now)]
        yield from words
        yield from (int(word) for word in words if word.isdigit())


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    found = Bench(tmp_path_factory.mktemp("bench"))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(found.packages))
        known = functools.cache(
            lambda text, context: BUILD(digits.Config.model_validate_json(text), context)
        )
        patch.setattr(
            digits, "build", lambda config, context: known(config.model_dump_json(), context)
        )
        devices = functools.cache(lambda paths: load_devices(list(paths)))
        patch.setattr(project, "load_devices", lambda paths: devices(tuple(paths)))
        yield found
    forget_modules(found.packages)


@pytest.fixture(scope="module")
def known() -> dict[str, Any]:
    """Observations, by probe and configuration."""
    return {}


def observed(bench: Bench, known: dict[str, Any], probe: Any, config: ExperimentConfig) -> Any:
    key = f"{probe.__name__} {config.model_dump_json()}"
    if key not in known:
        with pytest.MonkeyPatch.context() as patch:
            try:
                known[key] = json.dumps(probe(bench, config, patch), sort_keys=True)
            except UserError as error:
                known[key] = error
    return known[key]


@pytest.mark.parametrize("probe", {p: p for p in PROBES.values()}, ids=lambda p: p.__name__)
def test_what_is_seen_is_the_same_again(bench: Bench, probe: Any) -> None:
    """Else every setting would seem to matter."""
    section = next(key for key, one in PROBES.items() if one is probe)
    setting = next(one for one in SETTINGS if one.key.startswith(section))
    config = bench.config(surroundings(setting))
    first, second = (observed(bench, {}, probe, config) for _ in range(2))
    assert json.loads(first) == json.loads(second)


@pytest.mark.parametrize("setting", SETTINGS, ids=name_of)
def test_a_setting_matters(bench: Bench, known: dict[str, Any], setting: Setting) -> None:
    if name_of(setting) in CANNOT:
        return
    for section, kind in REGISTERED.items():
        if setting.key.startswith(f"{section}.") and setting.variants:
            missing = REGISTRIES[kind].describe(setting.variants[0]).missing
            if missing:
                pytest.skip(f"needs {', '.join(missing)}")
    under = surroundings(setting)
    before = bench.config(under)
    path, now = at(before, setting)
    problems = []
    for value in others(setting, now):
        try:
            after = bench.config(under | {path: value})
        except UserError as error:
            problems.append(f"{value!r}: {str(error)[:300]}")
            continue
        if at(after, setting)[1] != now:
            break
    else:
        raise AssertionError(
            f"no other value of {name_of(setting)} than {now!r}: add one to VALUES: {problems}"
        )
    probe = probe_of(setting.key)
    found = [observed(bench, known, probe, config) for config in (before, after)]
    may = next((text for key, text in REFUSED.items() if matches(setting, key)), None)
    for one in found:
        if isinstance(one, UserError) and (may is None or may not in str(one)):
            raise AssertionError(f"{name_of(setting)}: the probe is refused") from one
    first, second = map(str, found)
    assert first != second, f"{name_of(setting)}: {now!r} and {value!r} do the same"
