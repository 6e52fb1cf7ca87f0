"""Registries with variants of other packages: installed, broken, clashing, and unfit ones."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, Protocol

import pytest

from hwnas.core.config import StrictModel, build_model, variant
from hwnas.core.errors import UserError
from hwnas.core.registry import Registry, VariantModule

GOOD = '''"""A good one."""
from typing import Literal
from hwnas.core.config import StrictModel
class Config(StrictModel):
    name: Literal["{name}"] = "{name}"
    legs: int = 4
def build(config, context): return config.legs
'''
Install = Callable[..., None]


class AnimalModule(VariantModule, Protocol):
    def build(self, config: Any, context: int) -> int: ...


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Installs a distribution: entry points of the group `hwnas.animals`, and modules' sources."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(site)
    before = set(sys.modules)

    def make(name: str, points: dict[str, str], **sources: str) -> None:
        info = site / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = [f"{point} = {module}" for point, module in points.items()]
        (info / "entry_points.txt").write_text("\n".join(["[hwnas.animals]", *lines, ""]))
        for module, text in sources.items():
            package = site / module
            package.mkdir()
            (package / "__init__.py").write_text("raise SystemExit('imported too early')\n")
            (package / "it.py").write_text(text)

    yield make
    for added in set(sys.modules) - before:
        del sys.modules[added]


@pytest.fixture
def registry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, install: Install
) -> Registry[AnimalModule]:
    """One kind with one variant of its own, `cat`."""
    own = tmp_path / "own" / "own_animals"
    own.mkdir(parents=True)
    (own / "__init__.py").write_text("")
    (own / "cat.py").write_text(GOOD.format(name="cat"))
    monkeypatch.syspath_prepend(own.parent)
    return Registry(kind="animal", package="own_animals", contract=AnimalModule)


def importable(site: Path, package: str) -> None:
    (site / package / "__init__.py").write_text("")


def test_a_package_adds_a_variant_that_is_imported_when_it_is_chosen(
    registry: Registry[AnimalModule], install: Install, tmp_path: Path
):
    install("zoo-dogs", {"dog": "dogs.it"}, dogs=GOOD.format(name="dog"))
    assert registry.names == ("cat", "dog")
    described = registry.describe("dog")
    assert (described.summary, described.package) == ("A good one.", "zoo-dogs 1.0")
    importable(tmp_path / "site", "dogs")
    module = registry.load("dog")
    assert module.build(module.Config(), 0) == 4
    with pytest.raises(UserError, match="did you mean 'dog'"):
        registry.load("dogg")


def test_its_settings_are_validated_like_our_own(
    registry: Registry[AnimalModule], install: Install, tmp_path: Path
):
    install("zoo-dogs", {"dog": "dogs.it"}, dogs=GOOD.format(name="dog"))
    importable(tmp_path / "site", "dogs")

    class Section(StrictModel):
        animal: variant(registry)  # type: ignore[valid-type]

    section = build_model(Section, {"animal": {"name": "dog", "legs": 3}}, where="test")
    assert section.animal.legs == 3
    with pytest.raises(UserError, match=r"animal\.leg: unknown key; did you mean 'legs'"):
        build_model(Section, {"animal": {"name": "dog", "leg": 3}}, where="test")


@pytest.mark.parametrize(
    ("value", "source", "reason"),
    [
        ("no_such_module_x.it", "", "no module no_such_module_x.it"),
        ("broken.no_such", "", "no module broken.no_such"),
        ("broken.it:thing", "", "no module"),
        ("broken.it", "def (", "cannot be read"),
        ("broken.it", "REQUIRES = some_call()", "cannot be read"),
        ("broken.it", "REQUIRES = 3", "REQUIRES must be a tuple of names"),
        ("broken.it", "REQUIRES = (3,)", "REQUIRES must be a tuple of names"),
        ("broken.it", "EXTRA = 3", "EXTRA must be a name"),
    ],
)
def test_a_broken_package_is_named_and_breaks_no_other(
    registry: Registry[AnimalModule],
    install: Install,
    tmp_path: Path,
    value: str,
    source: str,
    reason: str,
):
    install("zoo-broken", {"newt": value}, broken=source)
    install("zoo-dogs", {"dog": "dogs.it"}, dogs=GOOD.format(name="dog"))
    (tmp_path / "site" / "half-2.0.dist-info").mkdir()  # an interrupted installation
    importable(tmp_path / "site", "dogs")
    assert registry.names == ("cat", "dog")
    assert registry.load("dog").build(registry.load("dog").Config(), 0) == 4
    (problem,) = registry.problems
    assert (problem.name, problem.package) == ("newt", "zoo-broken 1.0")
    assert reason in problem.problem and "no:" in problem.available
    with pytest.raises(UserError, match=r"'newt' of zoo-broken 1\.0[\s\S]*uninstall zoo-broken"):
        registry.load("newt")


def test_our_own_variant_wins_a_clash_and_says_so(
    registry: Registry[AnimalModule], install: Install, caplog: pytest.LogCaptureFixture
):
    install("zoo-cats", {"cat": "cats.it"}, cats=GOOD.format(name="cat"))
    assert registry.load("cat").__name__ == "own_animals.cat"
    registry.load("cat")
    (record,) = caplog.records  # once, however often it is loaded
    assert "'cat' of zoo-cats 1.0 is ignored: the name is taken by hwnas itself" in record.message
    assert [problem.name for problem in registry.problems] == ["cat"]


def test_two_packages_that_claim_a_name_are_both_named(
    registry: Registry[AnimalModule], install: Install
):
    install("zoo-dogs", {"dog": "dogs.it"}, dogs=GOOD.format(name="dog"))
    install("more-dogs", {"dog": "hounds.it"}, hounds=GOOD.format(name="dog"))
    assert registry.names == ("cat",)
    with pytest.raises(UserError, match=r"claimed by (zoo|more)-dogs and (zoo|more)-dogs"):
        registry.load("dog")


@pytest.mark.parametrize(
    ("source", "lack"),
    [
        ("", "no `Config`; no `build`"),
        (GOOD.format(name="dog").replace("def build(config, context)", "def build(config)"),
         r"`build` does not take \(config, context\)"),
        (GOOD.format(name="wolf"), "`Config` has no `name"),
        (GOOD.format(name="dog").replace("class Config(StrictModel)", "class Config(dict)"),
         "`Config` is no pydantic model"),
        (GOOD.format(name="dog").replace("    legs", "    model_config = {'extra': 'allow'}; legs"),
         "`Config` accepts unknown keys"),
    ],
)  # fmt: skip
def test_a_module_that_is_not_what_its_kind_asks_for_is_refused(
    registry: Registry[AnimalModule], install: Install, tmp_path: Path, source: str, lack: str
):
    install("zoo-dogs", {"dog": "dogs.it"}, dogs=source)
    importable(tmp_path / "site", "dogs")
    with pytest.raises(UserError, match=lack) as caught:
        registry.load("dog")
    text = str(caught.value)
    assert "zoo-dogs 1.0" in text and "AnimalModule" in text
    assert all(word in text for word in ("expected:", "found:", "where:", "fix:"))


def test_a_module_that_does_not_import_names_its_package(
    registry: Registry[AnimalModule], install: Install
):
    install("zoo-dogs", {"dog": "dogs.it"}, dogs=GOOD.format(name="dog"))  # its package exits
    with pytest.raises(UserError, match=r"dogs 1\.0 cannot be imported[\s\S]*imported too early"):
        registry.load("dog")


def test_a_missing_package_is_told_with_the_distributions_own_extra(
    registry: Registry[AnimalModule], install: Install
):
    needs = 'REQUIRES = ("no_such_package_x",)\n'
    install("zoo-dogs", {"dog": "dogs.it", "eel": "eels.it"},
            dogs=needs + 'EXTRA = "fast"\n', eels=needs)  # fmt: skip
    assert registry.describe("dog").install == "pip install 'zoo-dogs[fast]'"
    assert registry.describe("eel").install == "pip install no_such_package_x"
    with pytest.raises(UserError, match="needs a package that is not installed") as error:
        registry.load("dog")
    assert "no_such_package_x" in str(error.value.expected) and error.value.found
    assert sys.prefix in str(error.value.where) and "[fast]" in str(error.value.fix)


def test_names_are_literal(registry: Registry[AnimalModule]):
    assert registry.load("cat").Config.model_fields["name"].annotation == Literal["cat"]
