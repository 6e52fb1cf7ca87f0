"""Readers: file formats of labelled archs. One file per format, with one `READER`."""

from hwnas.core.registry import Registry
from hwnas.interfaces import ReaderModule

REGISTRY = Registry[ReaderModule](
    kind="reader", package="hwnas.predictors.readers", contract=ReaderModule
)

__all__ = ["REGISTRY"]
