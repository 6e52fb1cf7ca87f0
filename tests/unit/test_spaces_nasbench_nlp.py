"""Cells of NAS-Bench-NLP: canonical codes, the network of a recipe, its published parameters."""

from __future__ import annotations

import json
import random
from functools import partial
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hwnas
from hwnas.api.profile import profile_plan
from hwnas.builders.onnx import micro, network
from hwnas.core.errors import UserError
from hwnas.core.rng import rng
from hwnas.nets.supernet import Supernet
from hwnas.spaces.arch import Arch
from hwnas.spaces.cost import cost
from hwnas.spaces.graphs import graph, live_graph
from hwnas.spaces.index import enumerate_ops
from hwnas.spaces.load import build_space, read_arch
from hwnas.spaces.lowering import lower, lower_named
from hwnas.spaces.nlp_recipes import INPUTS, MAX_NODES, OPS, Cell, read_recipe, write_recipe

Recipe = dict[str, dict[str, Any]]

SPACE = build_space("nasbench_nlp", {"width": 8}, num_classes=10)


def recipe(**nodes: str) -> Recipe:
    """A recipe in short: each node is its operator and its inputs."""
    return {
        name: {"op": text.split()[0], "input": text.split()[1:]} for name, text in nodes.items()
    }


RNN = recipe(f="linear x h_prev_0", h_new_0="activation_tanh f")
GRU = recipe(
    r="linear x h_prev_0",
    r_act="activation_sigm r",
    z="linear x h_prev_0",
    z_act="activation_sigm z",
    rh="elementwise_prod r_act h_prev_0",
    h_tilde="linear x rh",
    h_tilde_act="activation_tanh h_tilde",
    h_new_0="blend z_act h_prev_0 h_tilde_act",
)
THREE_STATES = recipe(
    a="linear x h_prev_0 h_prev_1",
    h_new_0="elementwise_sum a h_prev_2",
    h_new_1="activation_leaky_relu a",
    h_new_2="elementwise_prod h_new_1 h_prev_2",
)


def shuffled(given: Recipe, seed: int, *, swap: bool = False) -> Recipe:
    """The same cell with other names and orders; `swap`: states 1 and 2 change places."""
    draw = random.Random(seed)
    names = [name for name in given if not name.startswith("h_new")]
    new = dict(zip(names, draw.sample([f"q{i}" for i in range(len(names))], len(names))))
    if swap:
        new |= {f"{a}_{k}": f"{a}_{3 - k}" for a in ("h_new", "h_prev") for k in (1, 2)}
    items = []
    for name, node in given.items():
        inputs = [new.get(source, source) for source in node["input"]]
        if node["op"] != "blend":
            draw.shuffle(inputs)
        items.append((new.get(name, name), {"input": inputs, "op": node["op"]}))
    draw.shuffle(items)
    return dict(items)


def codes_of(given: Recipe) -> tuple[int, ...]:
    codes = SPACE.macro.codes_of(json.dumps(given))
    assert codes is not None
    return codes


# --- canonical codes ------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [RNN, GRU, THREE_STATES], ids=["rnn", "gru", "three"])
def test_names_and_orders_do_not_matter(given: Recipe) -> None:
    codes = codes_of(given)
    swaps = (False, True) if given is THREE_STATES else (False,)
    for seed in range(10):
        assert {codes_of(shuffled(given, seed, swap=swap)) for swap in swaps} == {codes}
    assert SPACE.check(Arch(SPACE.id, codes)).codes == codes


@pytest.mark.parametrize(
    "change",
    [
        {"h_new_0": "blend z_act h_tilde_act h_prev_0"},  # the order of a and b
        {"h_new_0": "blend h_prev_0 z_act h_tilde_act"},  # another gate
        {"rh": "elementwise_sum r_act h_prev_0"},
        {"h_tilde": "linear x r_act"},
        {"z_act": "activation_sigm r"},  # one gate for both
    ],
)
def test_other_cells_have_other_codes(change: dict[str, str]) -> None:
    assert codes_of(GRU | recipe(**change)) != codes_of(GRU)


def isomorphic(a: Cell, b: Cell) -> bool:
    """Whether some order of nodes and of the states 1 and 2 turns a into b, by trying all."""
    n, k = len(a.nodes), len(a.states)
    if (n, k) != (len(b.nodes), len(b.states)):
        return False

    def plain(op: str, sources: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
        return op, sources if op == "blend" else tuple(sorted(sources))

    goal = [plain(*node) for node in b.nodes]
    for others in permutations(range(1, k)):
        state = dict(enumerate((0, *others)))
        for order in permutations(range(n)):
            number = {4 + old: 4 + new for new, old in enumerate(order)}
            number |= {1 + old: 1 + new for old, new in state.items()}
            moved = [a.nodes[old] for old in order]
            nodes = [plain(op, tuple(number.get(s, s) for s in read)) for op, read in moved]
            states = [0] * k
            for old, new in state.items():
                states[new] = order.index(a.states[old])
            if nodes == goal and tuple(states) == b.states:
                return True
    return False


def random_cell(draw: random.Random, n: int) -> Cell:
    """A cell of few operators, so that many pairs of cells are equal or nearly so."""
    nodes = []
    for i in range(n):
        op = draw.choice(["elementwise_sum", "activation_tanh", "blend"][: 2 + (i == n - 1)])
        n_inputs = OPS[op].start
        values = [1, 2, 3, *range(4, 4 + i)]
        nodes.append((op, tuple(draw.choice(values) for _ in range(n_inputs))))
    return Cell(tuple(nodes), tuple(draw.sample(range(n), 3)))


def test_canonical_forms_are_equal_exactly_for_isomorphic_cells() -> None:
    """The oracle tries all orders of four nodes."""
    draw = random.Random(0)
    cells = [random_cell(draw, 4) for _ in range(60)]
    cells += [cell.canonical() for cell in cells[:30]]
    n_equal = 0
    for a, b in zip(cells, [*cells[30:], *cells[:30]], strict=True):
        assert (a.canonical() == b.canonical()) == isomorphic(a, b)
        n_equal += a.canonical() == b.canonical()
    assert n_equal >= 30
    assert all(isomorphic(cell, cell.canonical()) for cell in cells)


@pytest.mark.parametrize("n_pairs", [3, 6])
def test_many_equal_nodes_have_one_canonical_form(n_pairs: int) -> None:
    """Pairs of nodes that are all alike have n! symmetries, which are not tried one by one."""
    pairs = {
        name: text
        for i in range(n_pairs)
        for name, text in ((f"a{i}", "linear x h_prev_0"), (f"b{i}", f"activation_tanh a{i}"))
    }
    given = recipe(**pairs, h_new_0="activation_sigm h_prev_0")
    assert len({codes_of(shuffled(given, seed)) for seed in range(4)}) == 1


def test_the_notation_of_an_arch_is_a_recipe() -> None:
    for given in (RNN, GRU, THREE_STATES):
        arch = read_arch(SPACE, json.dumps(given))
        text = SPACE.macro.text_of(arch.codes)
        assert codes_of(json.loads(text)) == arch.codes
        cell = read_recipe(given, where="test")
        assert read_recipe(write_recipe(cell), where="test") == cell
    view = SPACE.view(read_arch(SPACE, json.dumps(RNN)))
    assert (view["node0.op"], view["node0.input0"], view["node0.input1"]) == (
        "linear_2",
        "x",
        "h_prev_0",
    )
    assert (view["node1.op"], view["node1.input0"], view["state0.input"]) == (
        "activation_tanh",
        "node0",
        "node1",
    )
    assert SPACE.macro.codes_of("0,1") is None
    assert SPACE.macro.text_of(SPACE.smallest().codes) == ""  # no node at all
    with pytest.raises(UserError, match="not JSON"):
        SPACE.macro.codes_of("{")


# --- the network ----------------------------------------------------------------------------------


def evaluated(arch: Arch) -> list[Any]:
    """The expressions that the network of an arch computes: the output, then the states."""
    net, slots = lower_named(SPACE, arch)
    values: list[Any] = []
    states: dict[int, Any] = {}
    for op, sources, slot in zip(net.ops, net.sources, slots, strict=True):
        read = [values[source] for source in sources]
        if op.kind == "embed":
            values.append("x")
        elif op.kind == "recall":
            values.append(f"h_prev_{op.mid_channels // 8}")
        elif op.kind == "concat":
            values.append(tuple(read))
        elif op.kind == "identity":
            values.append(read[0] if len(read) == 1 else ("elementwise_sum", *read))
        elif op.kind == "store":
            states[op.mid_channels // 8] = read[0]
            values.append(slot)
        elif op.kind in ("cut", "linear") and slot in ("cut", "classifier"):
            assert op.kind == "linear" or set(read) == {f"state{k}" for k in states}
            values.append(states[0])
        else:
            (value,) = read
            name = {"product": "elementwise_prod", "activation": f"activation_{op.act}"}
            text = name.get(op.kind, op.kind).replace("sigmoid", "sigm")
            values.append((text, *(value if op.in_channels > 8 else (value,))))
    assert op.kind == "linear" and values[-1] == states[0]
    return [states[k] for k in sorted(states)]


def expression(given: Recipe, name: str) -> Any:
    """The expression of a node of a recipe."""
    if name not in given:
        return name
    return given[name]["op"], *(expression(given, source) for source in given[name]["input"])


@pytest.mark.parametrize("given", [RNN, GRU, THREE_STATES], ids=["rnn", "gru", "three"])
def test_the_network_computes_the_recipe(given: Recipe) -> None:
    arch = read_arch(SPACE, json.dumps(given))
    written = write_recipe(read_recipe(given, where="test"))
    names = [name for name in sorted(written) if name.startswith("h_new")]
    assert evaluated(arch) == [expression(written, name) for name in names]


@pytest.mark.parametrize(("given", "published"), [(RNN, 15_066_078), (GRU, 18_509_278)])
def test_parameters_of_a_recipe_are_those_published(given: Recipe, published: int) -> None:
    assert published_params(read_arch(SPACE, json.dumps(given))) == published


def published_params(arch: Arch) -> int:
    """Parameters of the benchmark's network of a cell, from the operators of the arch.

    Three layers read 400, 600 and 600 units, and have 600, 600 and 400. A linear operator has one
    matrix per input and one bias. The 33,278 words have an embedding of 400 units, tied to the
    classifier, which has a bias.
    """
    net, slots = lower_named(SPACE, arch)
    sizes = [(400, 600), (600, 600), (600, 400)]
    total = 33_278 * 401
    linears = [(op, s) for op, s in zip(net.ops, slots, strict=True) if op.kind == "linear"]
    for op, slot in linears[:-1]:
        from_token = sum(name.startswith(f"{slot}.") and name.endswith(".x") for name in slots)
        n_inputs = op.in_channels // 8
        for token, width in sizes:
            total += width * (from_token * token + (n_inputs - from_token) * width + 1)
    return total


def test_its_networks_are_not_timed_and_a_plan_says_so() -> None:
    for call in (hwnas.profile, partial(hwnas.profile_pack, out="kit.zip"), planned):
        with pytest.raises(UserError, match=r"(?s)networks of this space cannot be built.*recall"):
            call("local", space="nasbench_nlp")


def planned(device: str, space: str) -> None:
    profile_plan(
        device, space, resolutions=None, settings=None, num_classes=None, profile_settings=None
    )


def test_all_published_parameters_are_reproduced(test_data: Path) -> None:
    """Every one of the 172 recipes has exactly the published parameters."""
    rows = json.loads((test_data / "nasbench_nlp_wikitext2" / "records.json").read_text())
    assert len(rows) == 172
    for row in rows:
        arch = read_arch(SPACE, json.dumps(row["recipe"]))
        assert published_params(arch) == row["params"], row["id"]


def test_the_costs_are_those_of_one_layer() -> None:
    """One step of a GRU of width w has 6 w^2 MACs, 3 biases, and the classifier."""
    codes = SPACE.codes([read_arch(SPACE, json.dumps(GRU))])
    assert cost(SPACE, codes, "macs").tolist() == [6 * 8**2 + 8 * 10]
    assert cost(SPACE, codes, "params").tolist() == [6 * 8**2 + 3 * 8 + 8 * 10 + 10]


# --- what predictors see --------------------------------------------------------------------------


def test_predictors_see_nodes_gates_and_their_edges() -> None:
    arch = read_arch(SPACE, json.dumps(GRU))
    nodes, edges = graph(SPACE, arch)
    assert [op.kind for op in nodes] == [
        *("embed", "recall", "recall", "recall"),
        *("linear", "linear", "activation", "activation", "product", "linear", "activation"),
        *("identity", "blend", "store", "cut", "linear"),
    ]
    by_kind = {(nodes[reader].kind, nodes[source].kind) for source, reader in edges}
    assert ("identity", "activation") in by_kind and ("blend", "identity") in by_kind
    blend = [op.kind for op in nodes].index("blend")
    sources = sorted(nodes[source].kind for source, reader in edges if reader == blend)
    assert sources == ["activation", "identity", "recall"]
    gate = [source for source, reader in edges if reader == blend - 1]
    assert [nodes[source].act for source in gate] == ["sigmoid"]


def test_states_that_an_arch_lacks_are_not_in_its_graph() -> None:
    codes = SPACE.codes([read_arch(SPACE, json.dumps(given)) for given in (RNN, THREE_STATES)])
    ops = enumerate_ops(SPACE)
    slots, edges = live_graph(SPACE, codes)
    kinds = [[ops[i].kind for i in row if i >= 0] for row in slots]
    assert [(k.count("recall"), k.count("store")) for k in kinds] == [(1, 1), (3, 3)]
    assert len(kinds[0]) == 1 + 1 + 2 + 1 + 2
    places = [ops[i].mid_channels for i in slots[1] if i >= 0 and ops[i].kind == "store"]
    assert places == [0, 8, 16]
    assert (edges.sum(axis=2)[:, -1] == 1).all()


def test_nodes_on_no_path_to_the_states_are_not_in_the_graph() -> None:
    """Codes can have such nodes, and nodes without an operator, which are zero."""
    given = RNN | recipe(dead="activation_sigm f")
    codes = SPACE.codes([read_arch(SPACE, json.dumps(g)) for g in (RNN, given)])
    slots, _ = live_graph(SPACE, codes)
    assert (slots >= 0).sum(axis=1).tolist() == [7, 7]
    for row in SPACE.sample(50, rng=rng(0, "nlp")):
        nodes, edges = graph(SPACE, SPACE.arch(row))
        assert all(source < reader < len(nodes) for source, reader in edges)


def test_networks_are_neither_trained_nor_built() -> None:
    with pytest.raises(UserError, match="only read from records"):
        Supernet(SPACE, seed=0)
    arch = read_arch(SPACE, json.dumps(GRU))
    with pytest.raises(UserError, match=r"cannot be built[\s\S]*blend, product, recall, store"):
        network(lower(SPACE, arch))
    blend = next(op for op in enumerate_ops(SPACE) if op.kind == "blend")
    with pytest.raises(UserError, match="cannot be built"):
        micro(blend)
    assert [str(op) for op in enumerate_ops(SPACE) if op.kind in ("blend", "store")] == [
        "blend 24>8",
        "store 8>24",
        "store 8>24 from8",
        "store 8>24 from16",
    ]


# --- recipes that are refused ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"f": "conv x h_prev_0"}, r"unknown operator[\s\S]*linear, blend[\s\S]*'conv'[\s\S]*f"),
        (
            {"f": "linear x g"},
            r"unknown input[\s\S]*x, h_prev_0, f, h_new_0[\s\S]*'g'[\s\S]*f",
        ),
        ({"f": "linear x h_prev_1"}, r"unknown input[\s\S]*'h_prev_1'"),  # no h_new_1
        ({"f": "linear x h_new_0"}, r"cycle[\s\S]*2 nodes"),
        ({"f": "linear x f"}, r"cycle"),
        ({"f": "blend x h_prev_0"}, r"number of inputs[\s\S]*3 inputs of blend[\s\S]*2 inputs"),
        ({"f": "linear x"}, r"number of inputs[\s\S]*2 or 3 inputs of linear[\s\S]*1 inputs"),
        ({"h_new_0": "activation_tanh f x"}, r"1 input of activation_tanh[\s\S]*2 inputs"),
        ({"x": "activation_tanh f"}, r"name of an input[\s\S]*x"),
        ({"h_new_2": "activation_tanh f"}, r"lacks a state[\s\S]*h_new_0, h_new_2"),
        ({f"n{i}": "activation_tanh f" for i in range(13)}, r"at most 14 nodes[\s\S]*15 nodes"),
    ],
)
def test_malformed_recipes_are_refused(change: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        read_recipe(RNN | recipe(**change), where="here")
    assert "here" in str(caught.value.where) and caught.value.fix
    with pytest.raises(UserError, match=message):
        codes_of(RNN | recipe(**change))


@pytest.mark.parametrize(
    "given",
    [
        None,
        {},
        [1],
        {"f": RNN["f"]},
        {"h_new_0": None},
        {"h_new_0": {"op": "linear"}},
        {"h_new_0": {"op": ["linear"], "input": ["x", "x"]}},
        {"h_new_0": {"op": "linear", "input": ["x", ["x"]]}},
        {"h_new_0": {"op": "linear", "input": {"x": 1}}},
    ],
)
def test_other_data_are_not_recipes(given: Any) -> None:
    with pytest.raises(UserError) as caught:
        read_recipe(given, where="here")
    assert caught.value.expected and caught.value.fix


def test_the_largest_recipe_is_read() -> None:
    chain = {f"n{i}": f"activation_tanh {f'n{i - 1}' if i else 'f'}" for i in range(12)}
    given = recipe(f="linear x h_prev_0", **chain, h_new_0="activation_sigm n11")
    assert len(given) == MAX_NODES
    codes = np.array([codes_of(given)], dtype=np.int16)
    assert SPACE.validate(codes).all()
    assert (live_graph(SPACE, codes)[0] >= 0).sum() == MAX_NODES + 5
    assert len(INPUTS) == 4
