"""The report of a run: plain values (`data`) into one self-contained HTML file (`html`)."""
