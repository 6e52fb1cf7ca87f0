"""predictors: see ARCHITECTURE.md."""
