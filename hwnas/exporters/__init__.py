"""exporters: see ARCHITECTURE.md."""
