"""What joins tables, builders and devices, and knows no run folder."""
