"""Parts of benchmarks/predictors.py."""
