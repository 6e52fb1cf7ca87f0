"""The pipeline of a run: configuration, run folder, stages, and the engine that runs them."""
