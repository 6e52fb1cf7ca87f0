"""What a score is worth: rank quality, bias per choice, and the verdict in words."""
