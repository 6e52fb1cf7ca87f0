"""Acquisitions: rules that select which archs a search evaluates next."""

from hwnas.core.registry import Registry
from hwnas.interfaces import AcquisitionModule

REGISTRY = Registry[AcquisitionModule](
    kind="acquisition", package="hwnas.acquisitions", contract=AcquisitionModule
)

__all__ = ["REGISTRY"]
