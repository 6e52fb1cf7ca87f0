"""The report of a run: converts plain values (`data`) to one self-contained HTML file (`html`)."""
