"""Names of costs: `macs`, `latency_ms@phone`, `energy_mj@phone`, or `latency_ms~0.9@phone`."""

from __future__ import annotations

from hwnas.core.errors import UserError

__all__ = ["OF_DEVICE", "MetricKey"]

LATENCIES = ("latency_ms", "latency_p95_ms")
OF_DEVICE = (*LATENCIES, "energy_mj")


class MetricKey(str):
    """A metric and, for latency and energy, its device. Immutable, hashable, and ordered as text.

    `latency_ms~0.9@phone` is the latency that an arch does not exceed with probability 0.9,
    according to the interval of its estimate.

    It is a `str`, so mappings by metric key are valid JSON, and files of earlier versions can be
    read. Use `parse` to get its parts.
    """

    __slots__ = ()

    def __new__(cls, metric: str, device: str | None = None) -> MetricKey:
        """The key of a metric; only latency and energy have a device.

        Raises:
            ValueError: a missing or superfluous device, or a probability outside (0.5, 1).
        """
        base, tilde, probability = metric.partition("~")
        if (base in OF_DEVICE) != bool(device) or "@" in metric:
            raise ValueError(f"not a metric and its device: {metric!r}, {device!r}")
        if tilde and not (base in LATENCIES and 0.5 < float(probability) < 1):
            raise ValueError(f"not a latency and a probability in (0.5, 1): {metric!r}")
        return super().__new__(cls, f"{metric}@{device}" if device else metric)

    @classmethod
    def parse(cls, text: str) -> MetricKey:
        """Inverse of `str`.

        Raises:
            UserError: a latency or energy has no device, or another metric has one.
        """
        metric, _, device = text.partition("@")
        try:
            return cls(metric, device or None)
        except ValueError as error:
            raise UserError(
                "not a metric",
                expected="latency_ms@DEVICE, latency_p95_ms@DEVICE or energy_mj@DEVICE; a latency"
                " with a probability between 0.5 and 1, e.g. latency_ms~0.9@DEVICE; or another"
                " metric without a device, e.g. macs",
                found=repr(text),
            ) from error

    @classmethod
    def of(cls, metric: str, device: str, probability: float | None = None) -> MetricKey:
        """The key of a metric, with the device if the metric depends on one."""
        chance = "" if probability is None else f"~{probability!r}"
        return cls(f"{metric}{chance}", device if metric in OF_DEVICE else None)

    @property
    def metric(self) -> str:
        """The metric: `macs`, `latency_ms`, `latency_ms~0.9`, ..."""
        return str(self).partition("@")[0]

    @property
    def base(self) -> MetricKey:
        """The key without a probability."""
        return MetricKey(self.metric.partition("~")[0], self.device)

    @property
    def probability(self) -> float | None:
        """The probability of not exceeding a latency; None for an estimate of the latency."""
        text = self.metric.partition("~")[2]
        return float(text) if text else None

    @property
    def device(self) -> str | None:
        """The device of a latency or an energy; None for other metrics."""
        return str(self).partition("@")[2] or None

    @property
    def is_latency(self) -> bool:
        """Whether the metric is a latency, with or without a probability."""
        return self.metric.partition("~")[0] in LATENCIES

    def __getnewargs__(self) -> tuple[str, str | None]:  # type: ignore[override]  # copies
        return self.metric, self.device
