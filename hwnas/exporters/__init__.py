"""Export formats of a trained subnet, one file per format; parity checks; bundles."""

from hwnas.core.registry import Registry
from hwnas.interfaces import ExporterModule

REGISTRY = Registry[ExporterModule](
    kind="exporter",
    package="hwnas.exporters",
    infrastructure=frozenset(
        {
            "apart",
            "apart_network",
            "apart_server",
            "artifact",
            "base",
            "bundle",
            "bundle_readme",
            "bundle_usage",
            "by_name",
            "capture",
            "engine",
            "every",
            "float_graph",
            "fold",
            "formats",
            "interpreter",
            "labels",
            "last_words",
            "layer_calls",
            "logit_scale",
            "manifest",
            "mil",
            "mil_layers",
            "mixed",
            "mlpackage",
            "names",
            "onnx_files",
            "opened",
            "ort_order",
            "own",
            "own_images",
            "own_network",
            "own_outputs",
            "parity",
            "pt2e",
            "pte",
            "quantize",
            "samples",
            "sections",
            "step",
            "time_limits",
            "weight_rounding",
        }
    ),
    contract=ExporterModule,
)

__all__ = ["REGISTRY"]
