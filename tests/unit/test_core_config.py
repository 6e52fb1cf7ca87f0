"""Config loading: every problem at once, with key paths; hostile YAML is refused."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, model_validator

from hwnas.core.config import LATER, StrictModel, build_model, settled, variant
from hwnas.core.errors import UserError
from hwnas.core.overrides import assignments, override
from hwnas.core.yaml_data import parse_yaml, read_yaml, yaml_text
from hwnas.spaces import REGISTRY as SPACES


class Inner(StrictModel):
    rate: float = Field(0.1, gt=0)
    names: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Inner:
        if len(self.names) > 2:
            raise ValueError(f"{len(self.names)} names, more than 2")
        return self


class Outer(StrictModel):
    steps: int = 3
    inner: Inner = Inner()
    space: variant(SPACES) = Field(default={"name": "mobilenet_tiny"}, validate_default=True)


def problems(data: dict) -> str:
    with pytest.raises(UserError) as caught:
        build_model(Outer, data, where="test.yaml")
    return str(caught.value)


def test_a_wrong_section_is_shown_as_in_yaml():
    text = problems({"inner": {"names": {"max": None}, "rate": [True, "x"]}})
    assert "inner.rate: expected a number, found [true, x]\n" in text
    assert "inner.names: expected a list, found {max: null}\n" in text


def test_a_message_on_several_keys_does_not_repeat_their_section():
    text = problems({"inner": {"names": ["a", "b", "c"]}})
    assert "    inner: 3 names, more than 2\n  where: test.yaml" in text


def test_a_section_without_a_name_is_shown():
    text = problems({"space": 3})
    assert "space: expected one of attentive_nas, " in text
    assert ", or a section with such a `name:`, found 3\n" in text


def test_numbers_with_a_leading_zero_are_explained():
    assert "found '08'; write 8, without a leading zero" in problems(
        parse_yaml("steps: 08", where="x")
    )
    with pytest.raises(UserError, match=r"octal in YAML; write 10.* \(line 1, column 8") as caught:
        parse_yaml("steps: 010", where="x")
    assert "unicode string" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "a: 1\nb:\n  c: 2\n  on: 3\n",
            "the key on means true in YAML; put it into quotes (line 4, column 3",
        ),
        ("a: 1\n~: 2\n", "the key ~ means null in YAML; put it into quotes (line 2, column 1"),
        ("a: 1\n1: 2\n", "the key 1 is not text; put it into quotes (line 2, column 1"),
        ("a: 1\n? [b]\n: 2\n", "keys must be text (line 2, column 3"),
        ("a: 1\nb: 2\na: 3\n", "duplicate key 'a' (line 3, column 1"),
    ],
)
def test_a_wrong_key_is_shown_as_written_where_it_is(text: str, says: str):
    with pytest.raises(UserError) as caught:
        parse_yaml(text, where="x")
    assert says in str(caught.value)


def test_all_problems_are_listed_with_paths_and_nearest_names():
    text = problems({"stpes": 3, "inner": {"rate": -1, "raet": 2}, "steps": "many"})
    assert "4 problems" in text
    assert "stpes: unknown key; did you mean 'steps'?" in text
    assert "inner.raet: unknown key; did you mean 'rate'?" in text
    assert "inner.rate: expected a number above 0" in text
    assert "steps: " in text and "'many'" in text


@pytest.mark.parametrize(
    ("data", "changes", "where"),
    [
        ({"steps": "many"}, ["steps"], "--set steps"),
        ({"inner": {"raet": 2}}, ["steps", "inner.raet"], "--set inner.raet"),
        ({"inner": {"rate": -1}}, ["inner"], "--set inner"),
        ({"inner": 3}, ["inner.rate"], "--set inner.rate"),  # a part of it is given
        ({"inner": {"rate": -1}}, ["inner.names", "steps"], "my.yaml"),
        ({"steps": "many", "inner": {"rate": -1}}, ["inner.rate"], "--set inner.rate, my.yaml"),
    ],
)
def test_a_problem_is_located_where_the_value_was_given(
    data: dict[str, Any], changes: list[str], where: str
):
    with pytest.raises(UserError) as caught:
        build_model(Outer, data, where="my.yaml", changes=changes)
    assert caught.value.where == where


def test_an_unknown_variant_lists_the_known_ones():
    text = problems({"space": {"name": "mobilenet_tinny"}})
    assert "unknown space 'mobilenet_tinny'" in text and "did you mean 'mobilenet_tiny'?" in text


def test_a_variant_validates_its_own_keys():
    assert "width_mult" in problems({"space": {"name": "mobilenet_tiny", "width_mult": "wide"}})
    text = problems({"space": {"name": "mobilenet_tiny", "width_mlut": 1.0}})
    assert "space.width_mlut: unknown key; did you mean 'width_mult'?" in text
    model = build_model(Outer, {"space": "mobilenet_tiny"}, where="test")
    assert model.space.resolutions == (24, 28, 32)


def test_a_model_survives_a_round_trip_through_json():
    model = build_model(Outer, {"space": {"name": "mobilenet_tiny", "resolutions": [16]}}, where="")
    assert build_model(Outer, model.model_dump(mode="json"), where="") == model


@pytest.mark.parametrize(
    "data",
    [{"steps": "3"}, {"steps": 3.5}, {"steps": True}, {"inner": {"rate": "0.5"}}, {"inner": 1}],
)
def test_types_are_not_guessed(data: dict):
    assert "1 problem in" in problems(data)


def test_override_reaches_nested_keys_and_list_items():
    data = {"a": {"b": [{"c": 1}, {"c": 2}]}, "s": "random"}
    changed = override(data, assignments(["a.b.1.c=5", "x.y=[1, 2]", "s.k=true"]))
    assert changed == {
        "a": {"b": [{"c": 1}, {"c": 5}]},
        "x": {"y": [1, 2]},
        "s": {"name": "random", "k": True},
    }
    assert data == {"a": {"b": [{"c": 1}, {"c": 2}]}, "s": "random"}


def test_the_last_of_equal_assignments_wins():
    texts = ["a=1", "a.b=2", "a={c: 3}"]
    assert override({"a": {}}, assignments(texts)) == {"a": {"c": 3}}


@pytest.mark.parametrize("bad", ["a", "=1", "a.b.7.c=1", "a.b.x=1", "n.m=1", "a=[1"])
def test_a_malformed_override_is_refused(bad: str):
    with pytest.raises(UserError):
        override({"a": {"b": [1]}, "n": 3}, assignments([bad]))


@pytest.mark.parametrize(
    "text",
    [
        "a: &x [1]\nb: *x",
        "a: 1\na: 2",
        "a: !!python/object/apply:os.system ['true']",
        "- 1",
        "just text",
        "1: a",
        "a: " + "[" * 60 + "]" * 60,
        "a: [",
        "? {a: 1}\n: b",
    ],
)
def test_yaml_that_is_not_plain_data_is_refused(text: str):
    with pytest.raises(UserError):
        parse_yaml(text, where="test")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("1e-3", 1e-3), ("1e6", 1e6), ("5E-4", 5e-4), ("1.5e3", 1.5e3), (".5e1", 5.0)),
        *(("1_000", 1000), ("0x10", 16), ("0", 0), ("-3", -3), ("0.5", 0.5), ("1.", 1.0)),
        *(("e3", "e3"), ("1e", "1e"), ("1e-3 s", "1e-3 s"), ("'1e3'", "1e3"), ("'010'", "010")),
    ],
)
def test_numbers_are_read_as_people_read_them(text: str, value: object):
    found = parse_yaml(f"a: {text}", where="test")["a"]
    assert found == value and type(found) is type(value)
    assert parse_yaml(yaml_text({"a": found}), where="test")["a"] == value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("010", ("octal", "write 10")),
        ("[016, 024]", ("octal", "write 16")),
        ("-007", ("octal", "write -7")),
        ("1:30", ("90", "quotes")),
        ("12:30:45.5", ("45045.5", "quotes")),
    ],
)
def test_numbers_that_yaml_reads_otherwise_are_refused(text: str, words: tuple[str, ...]):
    for where in (f"a: {text}", f"a: {{b: {text}}}"):
        with pytest.raises(UserError) as caught:
            parse_yaml(where, where="test")
        assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("inner: {rate: '0.5'}", "remove the quotes around the number"),
        ("inner: {rate: '0,005'}", "write 0.005"),
        ("inner: {names: [on]}", "put the word into quotes"),
        ("inner: {names: [no]}", "put the word into quotes"),
        ("steps: many", "found 'many'"),
        ("steps: '1,000'", "write 1000: digits have no separators"),
        ("steps: 1 000 000", "write 1000000"),
        ("steps: 20.0", "write 20"),
        ("steps: 2e1", "write 20"),
        ("steps: '1,5'", "write 1.5"),
        ("inner: {rate: 50%}", "write 0.5: shares are numbers from 0 to 1"),
        ("inner: {rate: '2.5 %'}", "write 0.025"),
        ("inner: {rate: '1,000'}", "write 1.000: decimals"),
        ("inner: {rate: 0.5 ms}", "write 0.5, without a unit"),
        ("inner: {names: a}", "write [a]"),
        ("inner: {names: 'a, b;c d'}", "write [a, b, c, d]"),
    ],
)
def test_what_people_mean_is_hinted_at(text: str, hint: str):
    assert hint in problems(parse_yaml(text, where="test"))


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**63 - 1)
        | st.text(max_size=8)
        | st.floats(allow_nan=False, allow_infinity=False),
        lambda x: st.lists(x, max_size=3),
    )
)
def test_what_is_written_is_read_again(value: object):
    with contextlib.suppress(UnicodeEncodeError):  # a lone surrogate
        yaml_text({"a": value}).encode()
        assert parse_yaml(yaml_text({"a": value}), where="test") == {"a": value}


def test_unreadable_yaml_files_are_user_errors(tmp_path: Path):
    with pytest.raises(UserError):
        read_yaml(tmp_path / "none.yaml")
    binary = tmp_path / "b.yaml"
    binary.write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(UserError):
        read_yaml(binary)


@given(st.text(max_size=200))
def test_no_text_ends_in_a_traceback(text: str):
    with contextlib.suppress(UserError):
        build_model(Outer, parse_yaml(text, where="fuzz"), where="fuzz")


@given(
    st.dictionaries(
        st.sampled_from(["steps", "inner", "space", "other"]),
        st.recursive(
            st.none() | st.integers() | st.text(max_size=5) | st.floats(),
            lambda x: (
                st.lists(x, max_size=3)
                | st.dictionaries(st.sampled_from(["rate", "names", "name"]), x, max_size=3)
            ),
            max_leaves=8,
        ),
    )
)
def test_no_plain_data_ends_in_a_traceback(data: dict):
    try:
        model = build_model(Outer, data, where="fuzz")
    except UserError:
        return
    assert model.inner.rate > 0 and isinstance(model.steps, int)


class Part(StrictModel):
    old: int = 1
    new: Annotated[int, LATER] = 2


class Whole(StrictModel):
    inner: Part = Part()
    optional: Annotated[Part | None, LATER] = None


def test_settled_leaves_out_what_came_later_and_has_its_default():
    assert settled(Whole()) == {"inner": {"old": 1}}
    assert settled(Whole(inner=Part(new=3))) == {"inner": {"old": 1, "new": 3}}
    assert settled(Whole(optional=Part())) == {"inner": {"old": 1}, "optional": {"old": 1}}
    with pytest.raises(UserError, match="did you mean 'old'"):
        build_model(Whole, {"optional": {"olds": 3}}, where="test")
