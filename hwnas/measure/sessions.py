"""Times only the models that earlier sessions on the same device have not timed.

A space that gains an operator keeps most of its models. The new session times the missing models,
and with them `N_REFERENCES` models of the first session, from the fastest to the slowest. For each
of these, the new timing is divided by the old one. The median ratio is the pace of the machine. The
new timings are divided by the pace. If it is off by more than a quarter (`measure.drift`), or
processor or runtime have changed, the sessions cannot be compared, and all models are timed again.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from hwnas.core.progress import Parts, Progress
from hwnas.interfaces import DeviceSpec, Transport
from hwnas.latency.plan import TimedFile, plan_data, plan_in, write_plan
from hwnas.latency.samples import Samples, read_samples
from hwnas.latency.sections import ProfileConfig
from hwnas.measure.session_files import Session, best_chain, joined, known_in, store
from hwnas.measure.timed import Apart, Timed

__all__ = ["LEAST_KEPT", "N_REFERENCES", "time_all", "time_missing"]

log = logging.getLogger(__name__)

N_REFERENCES = 16
LEAST_KEPT = 0.5  # share of the models; with fewer, all are timed again
KIT_UNITS = 100  # units of progress for the timing

Models = Mapping[str, bytes | TimedFile]


def time_all(
    models: Models,
    *,
    device: DeviceSpec,
    folder: Path,
    config: ProfileConfig,
    seed: int,
    progress: Progress,
    transport: Transport,
) -> Samples:
    """Times models together in one session, and resumes it after an interruption.

    Raises:
        UserError: the device cannot be reached, or its kit failed.
    """
    plan = write_plan(models, device, folder, config, seed=seed)
    transport.run_bench(plan.path, plan.results, progress=_of_kit(progress))
    return read_samples(plan)


def _of_kit(progress: Progress) -> Progress:
    """Combines the progress of the two steps of the kit: loading models, then timing them.

    Loading does not advance it, because its speed says nothing about the time left.
    """
    timing = Parts(progress, [KIT_UNITS]).part(0)

    def show(done: int, total: int, note: str = "") -> None:
        if note == "loading models":
            timing(0, 1, f"{note}: {done}/{total}")
        else:
            timing(done, total, note) if total else timing(0, 1, note)

    return show


def time_missing(
    models: Models,
    device: DeviceSpec,
    folder: Path,
    config: ProfileConfig,
    *,
    around: Mapping[str, Sequence[str]],
    earlier: Sequence[Path] = (),
    seed: int,
    progress: Progress,
    transport: Transport,
) -> Timed:
    """Times the models that no earlier session has timed, or else all models.

    around: maps a model to other models that must be timed in the same session.
    earlier: other folders of timings. Sessions that are used are copied into `folder`.

    Raises:
        UserError: as `time_all`.
    """
    whole = plan_data(models, device, config, seed=seed)
    start = partial(
        time_all,
        device=device,
        folder=folder,
        config=config,
        seed=seed,
        progress=progress,
        transport=transport,
    )
    if not plan_in(folder, whole).results.is_file():
        chain = best_chain(folder, whole, device, earlier)
        names = _to_time(chain, whole, around)
        if len(chain) > 1 and names == []:  # the last session can resume, for more rounds
            again = _to_time(chain[:-1], whole, around)
            plan = plan_data(
                {name: models[name] for name in again or ()}, device, config, seed=seed
            )
            if plan_in(folder, plan) == chain[-1].plan:
                chain, names = chain[:-1], again
        if names is not None:
            store(folder, chain)
            base = joined(chain)
            if not names:
                return base
            log.info("%s", _cost(names, whole, chain))
            try:
                return base.joined(Timed.of(start({name: models[name] for name in names})))
            except Apart as apart:
                log.warning(
                    "timing all models again, because the earlier timings cannot be combined with"
                    " new ones: %s",
                    apart,
                )
    return Timed.of(start(models))


def _to_time(
    chain: Sequence[Session], whole: Mapping[str, Any], around: Mapping[str, Sequence[str]]
) -> list[str] | None:
    """Models of a plan to time in a session after these, networks last; None: all models."""
    known = known_in(chain, whole)
    names = [item["id"] for item in whole["items"]]
    if not known or len(known) < LEAST_KEPT * len(names):
        return None
    missing = [name for name in names if name not in known]
    if not missing:
        return []
    first = chain[0].timed.timings
    ranked = sorted(known & first.keys(), key=lambda name: (first[name].median_ms, name))
    spread = np.linspace(0, len(ranked) - 1, min(N_REFERENCES, len(ranked)))
    beside = {ranked[int(position)] for position in spread.round()}
    beside |= {name for new in missing for name in around.get(new, ())}
    return sorted({*missing, *beside}, key=lambda name: (name.startswith("net-"), name))


def _cost(names: Sequence[str], whole: Mapping[str, Any], chain: Sequence[Session]) -> str:
    n_new = len(set(names) - known_in(chain, whole))
    return (
        f"times {n_new} of {len(whole['items'])} models; {len(names) - n_new} models of earlier"
        " sessions are timed again, to compare the speed of the machine"
    )
