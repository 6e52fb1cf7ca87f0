"""The loop: budgets, winners, resume, against brute force where the space can be enumerated."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from hwnas.controller import controller
from hwnas.controller.archive import FILES
from hwnas.controller.constraints import Limit, metric_key
from hwnas.controller.controller import Rescoring, run_search
from hwnas.controller.result import MAX_EVALUATED, SearchResult, to_evaluate
from hwnas.controller.reward import RewardConfig
from hwnas.controller.sections import SearchConfig
from hwnas.core.errors import UserError
from hwnas.core.metrics import MetricKey
from hwnas.core.records import dump, load
from hwnas.core.stats import accuracy_text
from hwnas.interfaces import Constraint, Evaluation, FloatArray, Searcher, SearcherContext
from hwnas.searchers import evolution, policy_gradient, random
from hwnas.spaces import mobilenet_tiny
from hwnas.spaces.arch import Arch
from hwnas.spaces.cost import cost
from hwnas.spaces.space import Codes, SearchSpace

FULL = mobilenet_tiny.build(mobilenet_tiny.Config(resolutions=(16, 20)), num_classes=10)
TINY = FULL.restrict(
    {choice.name: choice.values[:1] for choice in FULL.choices}
    | {
        "resolution": (16, 20),
        "stem.width": (8, 16),
        "stage0.width": (16, 24, 32),
        "stage1.depth": (1, 2),
        "stage1.block1.expand": (2, 4, 6),
        "stage2.block0.expand": (2, 4, 6),
    }
)
CONFIG = SearchConfig(
    constraints=(Constraint("macs", max_fraction_of_largest=0.5),),
    n_predictions=640,
    generation_size=32,
    n_evaluations=10,
    evaluate_every=3,
    top_k=4,
)


def macs(codes: Codes) -> FloatArray:
    return cost(FULL, codes, "macs").astype(np.float64)


def params(codes: Codes) -> FloatArray:
    return cost(FULL, codes, "params").astype(np.float64)


METRICS = {"macs": macs, "params": params}


def truth(codes: Codes) -> FloatArray:
    """A made-up accuracy in [0, 1]: separable, growing in cost, with diminishing returns."""
    weights = np.cumsum(np.random.default_rng(0).random((len(FULL.choices), 3)) * [1, 0.5, 0.2], 1)
    chosen = weights[np.arange(codes.shape[1]), codes] * FULL.active(codes)
    return np.asarray(chosen.sum(axis=1) / weights.max(axis=1).sum())


def predict(codes: Codes) -> tuple[FloatArray, FloatArray]:
    return truth(codes), np.zeros(len(codes))


N_IMAGES = 100  # of one evaluation


class Oracle:
    """An Evaluator that is the forecast's opposite in one choice; counts its calls."""

    def __init__(self, fail_after: int = 10**9) -> None:
        self.journal: dict[Arch, Evaluation] = {}
        self.n_runs, self.fail_after = 0, fail_after

    def evaluate(self, arch: Arch) -> Evaluation:
        if arch not in self.journal:
            if self.n_runs == self.fail_after:
                raise KeyboardInterrupt
            self.n_runs += 1
            codes = np.array([arch.codes], dtype=np.int16)
            top1 = float(truth(codes)[0] - 0.1 * codes[0, 2])
            self.journal[arch] = Evaluation(arch, max(top1, 0.0), "supernet", "val", N_IMAGES, 0)
        return self.journal[arch]


class ByOracle(Rescoring):
    """Evaluations by an oracle, whose word counts three quarters."""

    def __init__(self, oracle: Oracle) -> None:
        self._oracle = oracle

    def evaluate(self, archs: list[Arch]) -> list[Evaluation]:
        return [self._oracle.evaluate(arch) for arch in archs]

    def label(self, evaluation: Evaluation) -> float:
        return evaluation.top1

    def blend(self, mean: FloatArray, std: FloatArray, label: FloatArray) -> FloatArray:
        return 0.25 * mean + 0.75 * label


def make(kind: str, space: SearchSpace, seed: int = 0) -> Searcher:
    if kind == "random":
        return random.build(random.Config(), SearcherContext(space, seed))
    if kind == "evolution":
        return evolution.build(evolution.Config(population=16), SearcherContext(space, seed))
    return policy_gradient.build(policy_gradient.Config(), SearcherContext(space, seed))


def everything(space: SearchSpace) -> Codes:
    grid = np.array(list(itertools.product(*space.allowed)), dtype=np.int16)
    codes = np.unique(space.normalise(grid), axis=0)
    assert len(codes) == space.size()
    return codes


KINDS = ("policy_gradient", "evolution", "random")


@pytest.mark.parametrize("kind", KINDS)
def test_winner_of_an_enumerable_space_is_the_brute_force_one(kind: str, tmp_path: Path) -> None:
    codes = everything(TINY)
    limit = 0.5 * macs(TINY.codes([TINY.largest()]))[0]
    feasible = codes[macs(codes) <= limit]
    assert 20 < len(feasible) < len(codes) - 20
    best = feasible[truth(feasible).argmax()]
    result = run_search(
        TINY, make(kind, TINY), predict=predict, metrics=METRICS, config=CONFIG, seed=0,
        folder=tmp_path,
    )  # fmt: skip
    assert result.winner.arch == TINY.arch(best)
    assert result.winner.feasible
    assert result.winner.costs == {"macs": macs(best[None])[0], "params": params(best[None])[0]}
    assert result.limits == {"macs": limit}
    if kind == "random":  # it saw every arch, so the fronts are those of the whole space
        assert result.n_predictions == len(codes)
        cheaper = [macs(codes) < p.costs["macs"] for p in result.fronts["macs"]]
        for point, mask in zip(result.fronts["macs"], cheaper, strict=True):
            assert not (truth(codes[mask]) >= point.score).any()


def test_what_one_would_take_without_a_search_is_evaluated_first(tmp_path: Path) -> None:
    """The last one within the limits, as part of the budget; the winner is at least as good."""
    oracle = Oracle()
    unchanged = np.repeat(FULL.codes([FULL.largest()]), 3, axis=0)
    unchanged[1:, 2:] = FULL.sample(2, seed=5)[:, 2:]
    unchanged = unchanged[np.argsort(macs(unchanged))]
    limit = float(macs(unchanged)[1])
    config = CONFIG.model_copy(update={"constraints": (Constraint("macs", max=limit),)})
    result = run_search(
        FULL, make("random", FULL), predict=predict, metrics=METRICS, config=config, seed=0,
        folder=tmp_path, rescoring=ByOracle(oracle), unchanged=unchanged,
    )  # fmt: skip
    first, best = next(iter(oracle.journal.values())), oracle.journal[result.winner.arch]
    assert first.arch == FULL.arch(unchanged[1])
    assert result.n_evaluations == len(oracle.journal) == config.n_evaluations
    rows = FULL.codes([first.arch])
    own = 0.25 * truth(rows)[0] + 0.75 * first.top1
    assert result.winner.score >= own and best.arch in oracle.journal


def test_long_fronts_are_evaluated_at_even_steps_with_both_ends(tmp_path: Path) -> None:
    found = run_search(
        TINY, make("random", TINY), predict=predict, metrics=METRICS, config=CONFIG, seed=0,
        folder=tmp_path,
    )  # fmt: skip
    short = found.fronts["macs"]
    assert set(to_evaluate(found)) >= {point.arch for point in short} | {found.winner.arch}
    archs = [FULL.arch(row) for row in FULL.sample(3 * MAX_EVALUATED, seed=0)]
    long = tuple(replace(short[0], arch=arch) for arch in archs)
    chosen = set(to_evaluate(replace(found, fronts={"macs": long}))) - {found.winner.arch}
    places = [place for place, arch in enumerate(archs) if arch in chosen]
    assert len(places) == MAX_EVALUATED and (places[0], places[-1]) == (0, len(archs) - 1)
    assert set(np.diff(places)) == {3, 4} or set(np.diff(places)) == {3}
    both = to_evaluate(replace(found, fronts={"macs": long, "params": long}))
    assert len(set(both) - {found.winner.arch}) == MAX_EVALUATED // 2


@pytest.mark.parametrize("kind", KINDS)
def test_budgets_and_rescoring(kind: str, tmp_path: Path) -> None:
    oracle, seen = Oracle(), []
    result = run_search(
        FULL, make(kind, FULL), predict=predict, metrics=METRICS, config=CONFIG, seed=0,
        folder=tmp_path, rescoring=ByOracle(oracle),
        progress=lambda done, total, note="": seen.append((done, total)),
    )  # fmt: skip
    assert result.n_proposals == CONFIG.n_predictions
    assert result.n_generations == 20
    assert result.n_evaluations == oracle.n_runs == CONFIG.n_evaluations
    assert result.n_predictions <= CONFIG.n_predictions + 2  # the feasible anchor and the mode
    assert seen[0] == (32, 640) and seen[-1] == (640, 640)
    blended = {
        arch: 0.25 * truth(FULL.codes([arch]))[0] + 0.75 * evaluation.top1
        for arch, evaluation in oracle.journal.items()
    }
    ranked = sorted(blended, key=lambda arch: -blended[arch])
    assert [candidate.arch for candidate in result.top] == ranked[:4]
    assert result.winner == result.top[0]
    assert all(candidate.feasible for candidate in result.top)
    assert (result.mode is not None) == (kind == "policy_gradient")
    assert load(SearchResult, dump(result), where="test") == result


def test_evaluations_are_spread_over_the_search(tmp_path: Path) -> None:
    """A share of 10 after every third of 20 generations: 10 * rounds // 7; the rest at the end."""
    oracle, spent = Oracle(), []
    run_search(
        FULL, make("evolution", FULL), predict=predict, metrics=METRICS, config=CONFIG, seed=0,
        folder=tmp_path, rescoring=ByOracle(oracle),
        progress=lambda done, total, note="": spent.append(oracle.n_runs),
    )  # fmt: skip
    assert spent == [10 * ((g + 1) // 3) // 7 for g in range(20)] + [10]


class Killed(Exception):
    pass


def files(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES}


@pytest.mark.parametrize("save_every_s", [0.0, 1e9])
@pytest.mark.parametrize("kind", KINDS)
def test_resume_after_any_kill_ends_as_if_there_was_none(
    kind: str, save_every_s: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(controller, "SAVE_EVERY_S", save_every_s)
    config = CONFIG.model_copy(update={"n_predictions": 256})

    def search(folder: Path, oracle: Oracle, kill_at: float = np.inf) -> SearchResult:
        def progress(done: int, total: int, note: str = "") -> None:
            if done >= kill_at:
                raise Killed

        return run_search(
            FULL, make(kind, FULL), predict=predict, metrics=METRICS, config=config, seed=0,
            folder=folder, rescoring=ByOracle(oracle), progress=progress,
        )  # fmt: skip

    straight = search(tmp_path / "straight", Oracle())
    whole = files(tmp_path / "straight")
    for kill_at in (32, 128, 160, 256):  # after a generation
        folder, oracle = tmp_path / f"kill{kill_at}", Oracle()
        with pytest.raises(Killed):
            search(folder, oracle, kill_at)
        assert search(folder, oracle) == straight
        assert files(folder) == whole
    for n in (0, 3, 9):  # in the middle of evaluating
        folder, oracle = tmp_path / f"evaluation{n}", Oracle(fail_after=n)
        with pytest.raises(KeyboardInterrupt):
            search(folder, oracle)
        oracle.fail_after = 10**9
        assert search(folder, oracle) == straight
        assert oracle.n_runs == 10  # nothing was evaluated twice
    assert search(tmp_path / "straight", Oracle()) == straight  # a finished one, once more
    assert files(tmp_path / "straight") == whole


def test_kill_between_archive_and_state_is_repaired(tmp_path: Path) -> None:
    def search(folder: Path) -> SearchResult:
        return run_search(
            FULL, make("evolution", FULL), predict=predict, metrics=METRICS, config=CONFIG, seed=0,
            folder=folder,
        )  # fmt: skip

    straight = search(tmp_path / "a")
    folder = tmp_path / "b"
    folder.mkdir()
    for name, content in files(tmp_path / "a").items():
        (folder / name).write_bytes(content[:5000] + b"torn")  # no state was written yet
    assert search(folder) == straight
    assert files(folder) == files(tmp_path / "a")


def test_folder_of_another_search_is_refused(tmp_path: Path) -> None:
    def search(seed: int, kind: str = "random") -> SearchResult:
        return run_search(
            FULL, make(kind, FULL), predict=predict, metrics=METRICS, config=CONFIG, seed=seed,
            folder=tmp_path,
        )  # fmt: skip

    search(0)
    for seed, kind in ((1, "random"), (0, "evolution")):
        with pytest.raises(UserError, match="another search"):
            search(seed, kind)


def test_a_state_that_the_searcher_cannot_load_is_named(tmp_path: Path) -> None:
    """Not sealed, as states of earlier versions."""

    def search() -> SearchResult:
        return run_search(
            FULL, make("evolution", FULL), predict=predict, metrics=METRICS, config=CONFIG, seed=0,
            folder=tmp_path,
        )  # fmt: skip

    search()
    state = json.loads((tmp_path / "state.json").read_text())
    kept = {key: value for key, value in state.items() if key not in ("check", "archive")}
    (tmp_path / "state.json").write_text(json.dumps(kept | {"searcher": {}}))
    with pytest.raises(UserError, match="the searcher cannot load its stored state") as caught:
        search()
    assert (caught.value.expected, caught.value.found) == (
        "the key 'generation'",
        "no key 'generation'",
    )


def test_cost_steers_the_policy(tmp_path: Path) -> None:
    """MACs of the policy's mode fall with the weight of the cost term (papers.md 1, claim 3)."""
    modes = []
    for weight in (0.0, 1.0, 4.0, 16.0):
        config = SearchConfig(
            constraints=(Constraint("macs", max_fraction_of_largest=1.0),),
            reward=RewardConfig(form="additive", weight=weight, excess_weight=0.0),
            n_predictions=2560,
            generation_size=64,
        )
        result = run_search(
            FULL, make("policy_gradient", FULL), predict=predict, metrics=METRICS, config=config,
            seed=0, folder=tmp_path / str(weight),
        )  # fmt: skip
        assert result.mode is not None
        modes.append(result.mode.costs["macs"])
    assert modes == sorted(modes, reverse=True)
    assert modes[-1] < 0.2 * modes[0]


@pytest.mark.parametrize("form", ["hard", "additive", "exponent", "log_barrier"])
def test_every_reward_form_finds_a_good_feasible_winner(form: str, tmp_path: Path) -> None:
    """Better than the best feasible one of 20,000 uniform archs, from 3,840 proposals."""
    config = SearchConfig(
        constraints=(Constraint("macs", max_fraction_of_largest=0.3),),
        reward=RewardConfig(form=form),  # type: ignore[arg-type]
        n_predictions=3840,
        generation_size=64,
    )
    result = run_search(
        FULL, make("policy_gradient", FULL), predict=predict, metrics=METRICS, config=config,
        seed=0, folder=tmp_path,
    )  # fmt: skip
    uniform = FULL.sample(20_000, rng=np.random.default_rng(0))
    feasible = uniform[macs(uniform) <= result.limits["macs"]]
    assert result.winner.feasible
    assert result.winner.score > truth(feasible).max()


@pytest.mark.parametrize("kind", KINDS)
def test_a_winner_exists_even_if_no_proposal_is_feasible(kind: str, tmp_path: Path) -> None:
    only = macs(FULL.codes([FULL.smallest()]))[0]
    config = SearchConfig(
        constraints=(Constraint("macs", max=float(only)),), n_predictions=8, generation_size=4
    )
    oracle = Oracle()
    result = run_search(
        FULL, make(kind, FULL), predict=predict, metrics=METRICS, config=config, seed=0,
        folder=tmp_path, rescoring=ByOracle(oracle),
    )  # fmt: skip
    assert result.winner.arch == FULL.smallest()
    assert result.winner.supernet == oracle.journal[FULL.smallest()].top1


def test_impossible_constraint_leaves_no_trace(tmp_path: Path) -> None:
    config = SearchConfig(constraints=(Constraint("macs", max=1.0),))
    with pytest.raises(UserError, match="nearest reachable"):
        run_search(
            FULL, make("random", FULL), predict=predict, metrics=METRICS, config=config, seed=0,
            folder=tmp_path / "search",
        )  # fmt: skip
    assert not (tmp_path / "search").exists()


def test_forecasts_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not finite"):
        run_search(
            FULL, make("random", FULL), metrics=METRICS, config=CONFIG, seed=0, folder=tmp_path,
            predict=lambda codes: (np.full(len(codes), np.nan), np.zeros(len(codes))),
        )  # fmt: skip


def test_seconds_bound_the_search_and_an_exhausted_space_ends_it(tmp_path: Path) -> None:
    hurried = CONFIG.model_copy(update={"max_seconds": 1e-9})
    result = run_search(
        FULL, make("random", FULL), predict=predict, metrics=METRICS, config=hurried, seed=0,
        folder=tmp_path / "a",
    )  # fmt: skip
    assert result.n_generations == 0 and result.winner.arch == FULL.smallest()
    result = run_search(
        TINY, make("random", TINY), predict=predict, metrics=METRICS, config=CONFIG, seed=0,
        folder=tmp_path / "b",
    )  # fmt: skip
    assert result.n_proposals == TINY.size() < CONFIG.n_predictions


def test_seconds_bound_evaluations_too_but_one_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """10 evaluations of a second each; the clock stops them after three."""
    now = [100.0]

    class Slowly(ByOracle):
        def evaluate(self, archs: list[Arch]) -> list[Evaluation]:
            now[0] += len(archs)
            return super().evaluate(archs)

    monkeypatch.setattr(controller, "time", SimpleNamespace(monotonic=lambda: now[0]))
    for name, max_seconds, n in (("some", 3.0, 3), ("one", 1e-9, 1)):
        oracle = Oracle()
        result = run_search(
            FULL, make("evolution", FULL), predict=predict, metrics=METRICS, seed=0,
            config=CONFIG.model_copy(update={"max_seconds": max_seconds, "n_predictions": 64}),
            folder=tmp_path / name, rescoring=Slowly(oracle),
        )  # fmt: skip
        assert result.n_evaluations == oracle.n_runs == n
        assert result.winner.supernet is not None


def test_repeats_are_forecast_once(tmp_path: Path) -> None:
    seen: list[bytes] = []

    def counting(codes: Codes) -> tuple[FloatArray, FloatArray]:
        seen.extend(FULL.keys(codes))
        return predict(codes)

    result = run_search(
        TINY, make("policy_gradient", TINY), predict=counting, metrics=METRICS, config=CONFIG,
        seed=0, folder=tmp_path,
    )  # fmt: skip
    assert result.n_predictions <= TINY.size() < result.n_proposals
    assert len(seen) == result.n_predictions + 256  # and those that set the reward's scale


def test_result_holds_no_clock(tmp_path: Path) -> None:
    """Two runs of one search are equal records, so a stage that is repeated changes nothing."""
    one, two = (
        run_search(
            FULL, make("policy_gradient", FULL), predict=predict, metrics=METRICS, config=CONFIG,
            seed=0, folder=tmp_path / name,
        )
        for name in ("one", "two")
    )  # fmt: skip
    assert one == two != replace(one, name="other")


def test_a_search_without_forecasts_needs_evaluations_that_teach_some(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="that learns predictions"):
        run_search(
            FULL, make("random", FULL), predict=None, metrics=METRICS, config=CONFIG, seed=0,
            folder=tmp_path, rescoring=ByOracle(Oracle()),
        )  # fmt: skip


def test_the_progress_states_the_score_with_its_unit_and_the_accuracy_beside(
    tmp_path: Path,
) -> None:
    notes: list[str] = []
    found = run_search(
        FULL, make("evolution", FULL), predict=predict, metrics=METRICS, config=CONFIG, seed=0,
        folder=tmp_path, rescoring=ByOracle(Oracle()), unit="minus log of the loss",
        progress=lambda done, total, note="": notes.append(note),
    )  # fmt: skip
    score, top1 = found.winner.score, found.winner.accuracy.top1
    shown = f"val top-1 {accuracy_text(top1, N_IMAGES)}, "
    assert f"best score {score:.3f} (minus log of the loss), {shown}" in notes[-1]
    assert len(notes) > 1 and all("best score" in note for note in notes)


def test_searches_of_earlier_versions_keep_their_fingerprint() -> None:
    """Fields that they did not know count only if they are set."""
    plain = Limit(Constraint("macs", max=1.0), MetricKey("macs"), 1.0)
    likely = Constraint("latency_ms", "phone", max=1.0, probability=0.95)
    other = Limit(likely, metric_key(likely), 1.0, share=0.5)
    assert set(controller._plain(plain)) == {"constraint", "key", "max"}
    assert "probability" not in controller._plain(plain)["constraint"]  # type: ignore[operator]
    assert controller._plain(other)["share"] == 0.5
    assert controller._plain(other)["constraint"]["probability"] == 0.95  # type: ignore[index]
