"""Estimates how long each stage takes on this machine, before the first one runs.

Passes through networks are counted, and multiplied by the measured time of a few passes
(`training.speed`). The times of other work are constants that were fitted to runs of shipped
configurations on idle machines. On a slow or busy machine they are scaled (`core.speed.slowness`).
The estimates should be within a factor of two. None: unknown, because the images are missing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

import numpy as np

from hwnas.controller.constraints import metric_key
from hwnas.controller.result import MAX_EVALUATED
from hwnas.core.errors import UserError
from hwnas.core.speed import Speed, guessed_speed, slowness
from hwnas.core.store import content_hash
from hwnas.interfaces import FloatArray
from hwnas.latency.sections import N_ANCHORS, ProfileConfig
from hwnas.latency.session_time import profile_s, session_s
from hwnas.measure.references.graphs import has_data, reference_macs
from hwnas.pipeline.data_checks import known_data
from hwnas.pipeline.exports import formats_for
from hwnas.pipeline.foreign_tables import table_file, timed_devices
from hwnas.pipeline.format_time import formats_s, tested_s
from hwnas.pipeline.network_time import NetworkTime
from hwnas.pipeline.project import Project
from hwnas.pipeline.reference_training import recipe
from hwnas.pipeline.start import starts_averaged
from hwnas.pipeline.winners import role_names, targets
from hwnas.spaces.cost import cost
from hwnas.spaces.lowering import lower

__all__ = ["Durations"]

GPU = Path("/dev/nvidiactl")
N_RANDOM = 64  # random archs that represent all drawn archs
N_PARITY_PASSES = 5 * 256  # images that an exported file and its network run on
PREDICT_S = {"gcn": 4e-4}  # per arch; others need a tenth of it
FIT_S = {"gcn": (2.0, 0.012), "mlp": (1.0, 0.01)}  # fixed, and per label
CONVERT_S = 0.06  # per operator of an exported network
START_S = 1.0  # seconds to start a training
PER_POINT = 100  # proposals per point of a front, in searches of 60 to 6400
BUILD_S, EXPORT_S = 0.25, 5.0  # a published network from the data of hwnas, and by torch


@dataclass(frozen=True)
class _Timed:
    """The project whose speed is measured; projects with equal keys have the same speed."""

    key: str
    project: Project = field(compare=False)


@cache
def _speed(timed: _Timed) -> Speed | None:
    """The speed for a project, measured once per process, so that all estimates agree.

    If a dry run has not imported torch and there is no GPU, the speed is guessed.
    """
    project = timed.project
    try:
        project.space.macro.require("supernet", space=project.space.name)
        if project.is_plan and "torch" not in sys.modules and not GPU.exists():
            return guessed_speed(len(lower(project.space, project.space.largest()).ops))
        from hwnas.training.speed import measure_speed

        data = project.config.data
        window = (1 + getattr(data, "context", 0), getattr(data, "steps", 1))
        return measure_speed(project.new_supernet(), project.accelerator, window)
    except UserError:
        return None


@dataclass(frozen=True)
class Durations:
    """Estimates the seconds of each stage of a project, from its beginning; None if unknown."""

    project: Project

    def of(self, stage: str) -> Callable[[], float | None]:
        """Returns the function that estimates the stage with this name."""
        kind, _, rest = stage.partition("/")
        if kind == "profile":
            return lambda: self.profile(rest)
        estimates: dict[str, Callable[[], float | None]] = {
            "train": self.train,
            "label": self.label_trained if rest else self.label,
            "predictor": self.predictor,
            "search": self.search,
            "finetune": self.finetune,
            "export": self.export,
            "verify": self.verify,
            "references": self.references,
        }
        return estimates[kind]

    @cached_property
    def speed(self) -> Speed | None:
        """The speed of this machine; None for a space that has no supernet."""
        config = self.project.config
        network = [self.project.space.fingerprint, config.supernet.model_dump(mode="json")]
        key = content_hash([network, config.threads, config.accelerator])
        return _speed(_Timed(key, self.project))

    @cached_property
    def n_images(self) -> dict[str, int] | None:
        """Number of images by split; None if the data are missing."""
        data = known_data(self.project)
        return None if data.awaited else {str(split): n for split, n in data.n_images.items()}

    def profile(self, device: str) -> float:
        """Seconds to load the models and to time them, at the speed of this machine."""
        space, config = self.project.space, self.project.config.profile
        is_copied = table_file(self.project, device) is not None
        return 0.1 if is_copied else profile_s(space, config, per_mac_s=self._per_mac_s)

    def train(self) -> float | None:
        """Seconds to train a new classifier and the supernet, and to evaluate training curves."""
        config, ends, network = self.project.config.train, self._macs_of_ends, self._network
        if network is None:
            return None
        n_random = getattr(config.sampler, "n_random", 2)
        has_ends = getattr(config.sampler, "ends", True)
        n_random += 2 * config.ranking.pairs if config.ranking is not None else 0
        nets = np.array([ends[1], ends[0]] * has_ends + [self._mean_macs] * n_random)
        opened = nets + (ends[1] - nets) * config.elastic_warmup / 2
        if len(nets):  # lifted archs become equal, and equal archs are trained once
            opened[1:] *= 1 - config.elastic_warmup / 2
        part = config.batch_size / config.accumulation / self.project.ranks.size
        step = network.speed.train(opened, part, config.accumulation)
        n_seen = min(config.curve_images, network.n_images["val"])
        curve = sum(
            network.score(macs, config.calibration, n_seen) for macs in (*ends, self._mean_macs)
        )
        n_curves = -(-config.steps // config.curve_every)
        return START_S * slowness() + self._head + config.steps * step + n_curves * curve

    def label(self) -> float | None:
        """Seconds to score random subnets on the images from which labels are computed."""
        section = self.project.config.label
        if section.records is not None:
            return 1.0
        return self._times(section.n_archs, self._evaluation)

    def label_trained(self) -> float | None:
        """Seconds to train random archs from fresh weights, and to score them."""
        section, network = self.project.config.label.trained, self._network
        if network is None:
            return None
        return section.n * network.trained(self._mean_macs, section.recipe, "val")

    def predictor(self) -> float | None:
        """Seconds of two fits, and of scoring the held-out subnets."""
        config = self.project.config
        fixed, per_label = FIT_S.get(config.predictor.name, (0.2, 1e-3))
        fits = 2 * (fixed + per_label * config.label.n_archs) * slowness()
        scored = self._times(max(4, config.label.n_archs // 5), self._evaluation)
        return fits if config.label.records is not None or scored is None else fits + scored

    def search(self) -> float | None:
        """Seconds of all searches and re-measurements, and to evaluate archs of the fronts."""
        config = self.project.config
        section, n = config.search, len(targets(self.project))
        devices = timed_devices(self.project)
        limits = [metric_key(one) for one in section.constraints if one.device in devices]
        timed = any(limit.is_latency for limit in limits) and section.closing.max_rounds > 0
        n_searches = n * (2 if timed else 1) + 1
        per_arch = PREDICT_S.get(config.predictor.name, 1e-4)
        proposals = n_searches * section.n_predictions * per_arch * slowness()
        n_timed = section.closing.n_retimed
        retimed = n * 2 * self._timing([self._limited_macs] * n_timed) if timed else 0.0
        if section.evaluator.records is not None:
            return 1.0 + proposals + retimed
        fronts = n * min(MAX_EVALUATED, 2 + section.n_predictions // PER_POINT)
        evaluated = self._times(n_searches * section.n_evaluations + fronts, self._evaluation)
        return None if evaluated is None else 1.0 + proposals + retimed + evaluated

    def finetune(self) -> float | None:
        """Seconds to fine-tune every network, average its weights, and train archs stand-alone."""
        config, network = self.project.config, self._network
        if network is None:
            return None
        recipe, (smallest, largest) = config.finetune, map(float, self._macs_of_ends)
        others = [smallest, *[self._limited_macs] * (len(role_names(self.project)) - 2)]
        teacher = largest if recipe.has_teacher else None
        taught = None if recipe.teacher == "tuned" else teacher
        seconds = network.training(largest, recipe, teacher_macs=taught)
        seconds += sum(network.training(macs, recipe, teacher_macs=teacher) for macs in others)
        if starts_averaged(config):
            seconds += self._head
            seconds += sum(network.averages(n, recipe.calibration) for n in (largest, *others))
        alone = recipe.model_copy(update={"epochs": config.alone.epochs})
        return seconds + config.alone.n * network.trained(self._limited_macs, alone, "val")

    def export(self) -> float | None:
        """Seconds to write the files of every network, and to compare them with torch."""
        if self.speed is None:
            return None
        n, n_winners = len(role_names(self.project)), len(targets(self.project))
        converted = n * (2.0 + CONVERT_S * len(self.project.space.choices))
        for count, is_winner in ((n_winners, True), (n - n_winners, False)):
            converted += count * formats_s(formats_for(self.project, is_winner=is_winner)[1:])
        converted *= slowness()
        return converted + n * self.speed.infer(self._limited_macs, N_PARITY_PASSES)

    def verify(self) -> float | None:
        """Seconds to time every network on every device, and to run it on the test images."""
        n = len(role_names(self.project))
        if self.speed is None or self.n_images is None:
            return None
        timed = len(timed_devices(self.project)) * self._timing(n * [self._limited_macs])
        tested = n * self.speed.infer(self._limited_macs, self.n_images["test"])
        of_formats = tested_s(formats_for(self.project, is_winner=True))
        return timed + tested + len(targets(self.project)) * of_formats

    def references(self) -> float | None:
        """Seconds to time published networks on every device, and to train some of them."""
        config = self.project.config.search.references
        assert config is not None  # otherwise there is no such stage
        space = self.project.space
        own = [space.macro.resolutions[code] for code in space.allowed[0]]
        chosen = [(name, px) for name in config.all_names for px in config.sizes(own)]
        made = sum(BUILD_S if has_data(name) else EXPORT_S for name, _ in chosen) * slowness()
        protocol = config.protocol(self.project.config.profile)
        timed = made + self._timing([reference_macs(*one) for one in chosen], protocol)
        timed *= len(timed_devices(self.project))
        network, how = self._network, recipe(self.project, config)
        if network is None or not config.train:
            return None if config.train else timed
        teacher = float(self._macs_of_ends[1]) if how.has_teacher else None
        macs = [reference_macs(name, max(own)) for name in config.train]
        return timed + sum(
            network.training(one, how, teacher_macs=teacher)
            + network.speed.infer(one, network.n_images["test"])
            for one in macs
        )

    # --- one network --------------------------------------------------------------------------

    def _timing(self, macs: Sequence[float], protocol: ProfileConfig | None = None) -> float:
        """Seconds of one session that times whole networks, and networks of the table."""
        config = self.project.config.profile if protocol is None else protocol
        anchors = [float(self._macs_of_ends.mean())] * N_ANCHORS
        return session_s(np.array([*macs, *anchors]), config.retiming, per_mac_s=self._per_mac_s)

    @property
    def _per_mac_s(self) -> float | None:
        return self.speed.inference[1] if self.speed else None

    @cached_property
    def _macs_of_ends(self) -> FloatArray:
        space = self.project.space
        return cost(space, space.codes([space.smallest(), space.largest()]), "macs").astype(float)

    @cached_property
    def _mean_macs(self) -> float:
        space = self.project.space
        return float(cost(space, space.sample(N_RANDOM, seed=0), "macs").mean())

    @cached_property
    def _limited_macs(self) -> float:
        """Approximate MACs of a network within the limits: the tightest fraction of the largest."""
        given = self.project.config.search.constraints
        shares = [c.max_fraction_of_largest for c in given if c.max_fraction_of_largest is not None]
        return float(self._macs_of_ends[1]) * min(shares) if shares else self._mean_macs

    @cached_property
    def _network(self) -> NetworkTime | None:
        """Time of networks with weights; None without a supernet, or if the data are missing."""
        if self.speed is None or self.n_images is None:
            return None
        return NetworkTime(self.speed, self.n_images)

    @cached_property
    def _head(self) -> float:
        """Seconds to train a new classifier on features of the largest network."""
        if self._network is None or not self.project.config.train.head_epochs:
            return 0.0
        speed, n = self._network.speed, self._network.n_images["train"]
        return speed.infer(self._macs_of_ends[1], n)

    @cached_property
    def _evaluation(self) -> float | None:
        """Seconds for scoring a random arch on the images from which labels are computed."""
        if (network := self._network) is None:
            return None if self.n_images is None else 0.0  # nothing is evaluated without weights
        label = self.project.config.label
        n = network.n_images["val"] + min(label.agreement, network.n_images["train"])
        return network.score(self._mean_macs, label.calibration, n)

    @staticmethod
    def _times(n: int, one: float | None) -> float | None:
        return None if one is None else n * one
