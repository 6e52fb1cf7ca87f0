"""The parts of `benchmarks/scale.py`: each prepares an input of some size, then works on it."""

from __future__ import annotations

from scale_parts import data, learning, runs, texts
from scale_parts.part import Part

PARTS: dict[str, Part] = {
    "archive": Part((1_250_000, 5_000_000), runs.make_archive, runs.resume_archive),
    "journal": Part((125_000, 1_000_000), runs.make_journal, runs.read_journal),
    "photos": Part((12_500, 100_000), data.make_photos, data.index_photos, data.imports),
    "classes": Part((125, 1_000), data.make_classes, data.plan_classes, data.imports),
    "space": Part((20, 60), learning.nothing, learning.use_space, learning.imports),
    "labels": Part((1_250, 5_000), learning.nothing, learning.fit_gcn, learning.imports),
    "networks": Part((125, 1_000), learning.nothing, learning.fit_table, learning.imports),
    "report": Part((5_000, 100_000), runs.make_report, runs.write_report),
    "disk": Part((12_500, 100_000), runs.make_files, runs.measure_disk),
    "small files of huge spaces": Part((1,), texts.make_spaces, texts.run_commands),
    "configurations": Part((60_000,), texts.make_configs, texts.run_commands),
}
