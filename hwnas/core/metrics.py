"""Names of costs: `macs`, or `latency_ms@phone`, `energy_mj@phone` for a metric of one device."""

from __future__ import annotations

from hwnas.core.errors import UserError

__all__ = ["MetricKey"]

LATENCIES = ("latency_ms", "latency_p95_ms")
OF_DEVICE = (*LATENCIES, "energy_mj")


class MetricKey(str):
    """A metric and, for latency and energy, its device. Immutable, hashable, and ordered as text.

    It is a `str`, so mappings by metric key are valid JSON, and files of earlier versions can be
    read. Use `parse` to get its parts.
    """

    __slots__ = ()

    def __new__(cls, metric: str, device: str | None = None) -> MetricKey:
        """Raises ValueError for a metric of a device without one, or the other way round."""
        if (metric in OF_DEVICE) != bool(device) or "@" in metric:
            raise ValueError(f"not a metric and its device: {metric!r}, {device!r}")
        return super().__new__(cls, f"{metric}@{device}" if device else metric)

    @classmethod
    def parse(cls, text: str) -> MetricKey:
        """Inverse of `str`.

        Raises:
            UserError: a latency or energy without a device, or a device of another metric.
        """
        metric, _, device = text.partition("@")
        try:
            return cls(metric, device or None)
        except ValueError as error:
            raise UserError(
                "not a metric",
                expected="macs, params, ..., or latency_ms@DEVICE, latency_p95_ms@DEVICE, "
                "energy_mj@DEVICE",
                found=repr(text),
            ) from error

    @classmethod
    def of(cls, metric: str, device: str) -> MetricKey:
        """The key of a metric, with the device if the metric depends on one."""
        return cls(metric, device if metric in OF_DEVICE else None)

    @property
    def metric(self) -> str:
        """The metric: `macs`, `latency_ms`, ..."""
        return str(self).partition("@")[0]

    @property
    def device(self) -> str | None:
        """The device of a latency or an energy; None for other metrics."""
        return str(self).partition("@")[2] or None

    @property
    def is_latency(self) -> bool:
        """Whether the metric is timed on a device."""
        return self.metric in LATENCIES

    def __getnewargs__(self) -> tuple[str, str | None]:  # type: ignore[override]  # copies
        return self.metric, self.device
