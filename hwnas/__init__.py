"""hwnas: hardware-aware architecture search for mobile networks, priced by measured latency."""

__version__ = "0.1.0"

__all__ = ["__version__"]
