"""nets: see ARCHITECTURE.md."""
