"""Export formats of a trained subnet, one file per format; parity checks; bundles."""

from hwnas.core.registry import Registry
from hwnas.interfaces import ExporterModule

REGISTRY = Registry[ExporterModule](
    kind="exporter",
    package="hwnas.exporters",
    infrastructure=frozenset(
        {
            "artifact",
            "base",
            "bundle",
            "bundle_readme",
            "engine",
            "float_graph",
            "fold",
            "formats",
            "interpreter",
            "labels",
            "manifest",
            "mixed",
            "onnx_files",
            "opened",
            "ort_order",
            "own",
            "parity",
            "quantize",
            "samples",
            "sections",
        }
    ),
    contract=ExporterModule,
)

__all__ = ["REGISTRY"]
