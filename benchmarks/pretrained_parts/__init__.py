"""Parts of `quickstart.py` and `pretrained.py`."""
