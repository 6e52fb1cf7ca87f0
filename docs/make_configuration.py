"""Writes docs/configuration.md from the settings themselves: `make docs`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import hwnas

PAGE = Path(__file__).with_name("configuration.md")
HEAD = """# Configuration

This page lists every setting of a YAML configuration. It is generated from the code (`make docs`)
and has the same text as `hwnas config explain`. `hwnas config show FILE` lists the values of a
file, including defaults. `hwnas config schema` writes a JSON Schema, with which editors complete
and check YAML. To change a setting, use `--set KEY=VALUE` with any command, or `settings={"KEY":
VALUE}` in Python. In the key of a list item, `N` stands for its number. Settings that belong to
one variant, such as one searcher, are listed below the name of the variant. Terms are defined in
the [glossary](concepts.md#glossary)."""


def text() -> str:
    """The page."""
    sections: dict[str, list[dict[str, Any]]] = {"General": []}
    for row in map(dict, hwnas.config_explain()):
        sections.setdefault(str(row["key"]).split(".")[0], []).append(row)
    for name in [*sections]:
        if len(sections[name]) == 1:
            sections["General"] += sections.pop(name)
    parts = [HEAD]
    for name, rows in sections.items():
        parts.append(f"## {name if name == 'General' else f'`{name}`'}")
        variants: dict[str, list[dict[str, Any]]] = {}
        for row in rows:
            variants.setdefault(row["of"] or "", []).append(row)
        for variant, own in sorted(variants.items(), key=lambda item: bool(item[0])):
            parts += [f"`{variant}`:"] * bool(variant) + [_table(own)]
    return "\n\n".join(parts) + "\n"


def _table(rows: list[dict[str, Any]]) -> str:
    lines = ["| key | type | default | range | meaning |", "| --- | --- | --- | --- | --- |"]
    for row in rows:
        limits = re.sub(r"matches (\S+)", r"matches `\1`", row["range"] or "")
        cells = [f"`{row['key']}`", row["type"], f"`{row['default']}`", limits]
        if row["default"] == "(required)":
            cells[2] = "required"
        meaning = " ".join(row["meaning"].split())
        line = " | ".join(cell.replace("|", "\\|") for cell in [*cells, meaning])
        lines.append(f"| {line} |")
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(text(), encoding="utf-8")
