"""Metric keys: text on disk, two fields in code."""

from __future__ import annotations

import copy
import json

import pytest

from hwnas.core.errors import UserError
from hwnas.core.metrics import MetricKey

KEYS = ("macs", "latency_ms@local", "latency_p95_ms@amd-epyc_2.4@x")


@pytest.mark.parametrize("text", KEYS)
def test_a_key_is_its_text(text: str) -> None:
    key = MetricKey.parse(text)
    assert key == text and hash(key) == hash(text) and str(key) == f"{key}" == text
    assert json.loads(json.dumps({key: 1.0})) == {text: 1.0}
    assert {text: 1}[key] == 1
    for other in (copy.deepcopy(key), copy.copy(key)):
        assert type(other) is MetricKey and other == key
    assert MetricKey(key.metric, key.device) == key
    assert type(key.metric) is str


def test_only_latencies_have_a_device() -> None:
    key = MetricKey("latency_ms", "phone")
    assert (key.metric, key.device, key.is_latency) == ("latency_ms", "phone", True)
    macs = MetricKey.of("macs", "phone")
    assert (macs, macs.device, macs.is_latency) == ("macs", None, False)
    assert MetricKey.of("latency_p95_ms", "phone") == "latency_p95_ms@phone"
    assert sorted([macs, key]) == [key, macs]
    for metric, device in (("latency_ms", None), ("macs", "phone"), ("latency_ms@phone", None)):
        with pytest.raises(ValueError, match="not a metric"):
            MetricKey(metric, device)
    with pytest.raises(UserError, match="latency_ms@DEVICE"):
        MetricKey.parse("latency_ms")
