"""Writes docs/configuration.md from the settings themselves: `make docs`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hwnas

PAGE = Path(__file__).with_name("configuration.md")
HEAD = """# Configuration

Every setting of a YAML file, as `hwnas config explain` has it; this page is generated from the code
(`make docs`). `hwnas config show FILE` lists what a file makes of them; `hwnas config schema`
writes a JSON Schema, with which editors complete and check YAML. `--set KEY=VALUE` on any command
changes one; in Python `settings={"KEY": VALUE}`. An item of a list has its number in place of `N`.
A setting of one choice alone, such as a searcher's, stands below the name of that choice."""


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
        cells = [f"`{row['key']}`", row["type"], f"`{row['default']}`", row["range"] or ""]
        if row["default"] == "(required)":
            cells[2] = "required"
        meaning = " ".join(row["meaning"].split())
        line = " | ".join(cell.replace("|", "\\|") for cell in [*cells, meaning])
        lines.append(f"| {line} |")
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(text(), encoding="utf-8")
