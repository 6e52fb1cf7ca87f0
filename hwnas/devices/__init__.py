"""devices: see ARCHITECTURE.md."""
