"""Drawings of networks that are no chains."""

from __future__ import annotations

from itertools import combinations
from xml.etree import ElementTree

import pytest

from hwnas.core.rng import rng
from hwnas.reporting.drawing import draw_network
from hwnas.spaces.load import build_space
from hwnas.spaces.lowering import lower
from hwnas.spaces.network import Network

CELLS = build_space("nasbench201", num_classes=10)
NETS = [lower(CELLS, CELLS.arch(row)) for row in CELLS.sample(6, rng=rng(0, "draw"))]


def number(element: ElementTree.Element, *names: str) -> tuple[float, ...]:
    return tuple(float(element.get(name, "")) for name in names)


@pytest.mark.parametrize("net", [lower(CELLS, CELLS.largest()), *NETS])
def test_a_graph_shows_every_live_operator_and_one_dot_per_sum(net: Network) -> None:
    svg = ElementTree.fromstring(draw_network(net))
    live = net.live()
    titles = [title.text for title in svg.iter("title")]
    assert titles == [str(op) for op in live]
    sums = {sources for sources in live.sources if len(sources) > 1}
    assert len(list(svg.iter("circle"))) == len(sums)
    # a line into the first operator, one per term of a sum, one into every other operator
    lines = [path for path in svg.iter("path") if path.get("class") == "skip"]
    assert len(lines) == 1 + sum(map(len, sums)) + sum(bool(s) for s in live.sources)


@pytest.mark.parametrize("net", NETS)
def test_boxes_of_a_graph_are_on_the_page_apart_and_from_left_to_right(net: Network) -> None:
    svg = ElementTree.fromstring(draw_network(net))
    width, height = map(float, svg.get("viewBox", "").split()[2:])
    boxes = [number(box, "x", "y", "width", "height") for box in svg.iter("rect")]
    assert all(0 < x < x + w < width and 0 < y < y + h < height for x, y, w, h in boxes)
    for (x0, y0, w, h), (x1, y1, _, _) in combinations(boxes, 2):
        assert abs(x0 - x1) > w or abs(y0 - y1) > h
    for reader, sources in enumerate(net.live().sources):
        assert all(boxes[source][0] < boxes[reader][0] for source in sources)
