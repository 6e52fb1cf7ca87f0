"""Acquisitions: rules that select the archs of a search that are evaluated next."""

from hwnas.core.registry import Registry
from hwnas.interfaces import AcquisitionModule

REGISTRY = Registry[AcquisitionModule](
    kind="acquisition", package="hwnas.acquisitions", contract=AcquisitionModule
)

__all__ = ["REGISTRY"]
