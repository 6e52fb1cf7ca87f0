"""Supernet training, data sets, fine-tuning and evaluation."""
