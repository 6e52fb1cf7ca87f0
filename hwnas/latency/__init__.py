"""latency: see ARCHITECTURE.md."""
