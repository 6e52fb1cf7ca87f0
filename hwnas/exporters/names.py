"""Checks names of formats as users write them, such as `litert:int8`, before anything is done."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from hwnas.core.command import command_line
from hwnas.core.errors import UserError
from hwnas.exporters import REGISTRY
from hwnas.exporters.every import ALL, precisions_of
from hwnas.exporters.sections import PRECISIONS_OF_ONNX, format_section

__all__ = ["one_per_call", "require_format", "section_of"]

SEPARATORS = re.compile(r"[\s,;|/+&]+")
ONE = "the name of one format, for example 'litert:int8'"


def require_format(given: str, *, where: str, or_all: bool = False) -> None:
    """Refuses what is not the name of one format, such as `onnx` or `litert:int8`.

    or_all: whether `all` stands for all formats there; then errors name it, too.

    Raises:
        UserError: unknown format, a precision that it does not have, or several names in one text.
    """
    if len(names := _parts(given)) > 1 and given not in REGISTRY.names:
        raise UserError(
            "names of formats are not separated by commas",
            expected="names separated by commas; in Python, a list of names",
            found=repr(given),
            where=where,
            fix=f"--formats {','.join(names)}; in Python, formats={names!r}",
        )
    name, colon, precision = given.strip().partition(":")
    if or_all and colon and name.lower() == ALL:
        raise UserError(
            f"{ALL!r} already includes the precisions of every format",
            expected=f"{ALL!r} alone, or names of formats such as 'litert:int8'",
            found=repr(given),
            where=where,
            fix=f"write {ALL} alone, or name the formats with this precision",
        )
    _require_known(name, where, rest=colon + precision, or_all=or_all)
    if colon:
        _require_precision(name, precision, where)


def section_of(given: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The section of the one format to which a network without a run is exported.

    Raises:
        UserError: as `require_format`; or `given` is `all`, or several formats.
    """
    if isinstance(given, str):
        if len(_parts(given)) > 1 and given not in REGISTRY.names:
            raise one_per_call(given)
        if given.strip().lower().partition(":")[0] == ALL:
            raise UserError(
                f"{ALL!r} stands for all formats of a run folder",
                expected=ONE,
                found=repr(given),
                where="format",
                fix="call hwnas.export(network, format, folder) once for each format; for a run"
                f" folder: hwnas.export(RUN, formats=[{ALL!r}])",
            )
        require_format(given, where="format")
    elif not isinstance(given, dict):
        if isinstance(given, (list, tuple, set)):
            raise one_per_call(given)
        REGISTRY.describe(given)  # an error
    first = format_section(given)
    if isinstance(precision := settings.get("precision"), str):
        _require_precision(first["name"], precision, "precision")
    section: dict[str, Any] = format_section({**first, **settings})
    return section


def one_per_call(found: object) -> UserError:
    """The error to raise if a network is to be exported to several formats at once."""
    return UserError(
        "a network is exported to one format per call",
        expected=ONE,
        found=repr(found),
        where="format",
        fix="call hwnas.export(network, format, folder) once for each format",
    )


def _parts(given: str) -> list[str]:
    return SEPARATORS.split(given.strip(" ,;"))


def _require_known(name: str, where: str, *, rest: str, or_all: bool) -> None:
    """Refuses an unknown format; names of formats are lower-case.

    Raises:
        UserError: as `Registry.describe`.
    """
    try:
        REGISTRY.describe(name)
    except UserError as error:
        if name.lower() == "mnn":
            error.fix = 'convert model.onnx yourself, see "MNN" in docs/deploy.md'
        elif (lower := name.lower()) in (*REGISTRY.names, ALL):
            error.fix = f"did you mean {ALL if lower == ALL else lower + rest.lower()!r}?"
        if or_all:
            error.expected = f"{ALL}, or {error.expected}"
        error.say_where(where)
        raise


def _require_precision(name: str, precision: str, where: str) -> None:
    """Refuses a precision that the format does not have.

    Raises:
        UserError: names the precisions of the format.
    """
    field = REGISTRY.declaration(name).Config.model_fields.get("precision")
    if name == "onnx":
        known, default = tuple(PRECISIONS_OF_ONNX), "fp32"
    elif field is not None:
        known, default = precisions_of(name), str(field.default)
    else:
        raise UserError(
            f"the format {name} has no precision to choose",
            expected=f"{name!r} without a precision",
            found=repr(f"{name}:{precision}"),
            where=where,
            fix=f"write {name}, or another format: see `{command_line('list', 'exporters')}`",
        )
    if precision in known or not known:
        return
    bits = re.search(r"\d*$", precision)
    near = [one for one in known if bits is not None and re.sub(r"\D", "", one) == bits[0]]
    raise UserError(
        f"the format {name} has no precision {precision!r}",
        expected=f"one of {', '.join(f'{name}:{one}' for one in known)}",
        found=repr(f"{name}:{precision}"),
        where=where,
        fix=f"did you mean {f'{name}:{near[0]}'!r}?"
        if near
        else f"write one of these; {name} alone is {name}:{default}",
    )
