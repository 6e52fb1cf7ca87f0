"""Strict JSON that all readers interpret equally; core/json_data.py has the same rules."""

import json
import math


def strict_json(content):
    """The value of the bytes of a JSON file.

    Raises ValueError (RecursionError if nested too deeply) if it is not JSON in UTF-8, or has a
    duplicate key, an integer beyond 64 bits, a number that is not finite, or an unpaired surrogate.
    """
    value = json.loads(
        content.decode("utf-8"),
        object_pairs_hook=plain_object,
        parse_int=plain_int,
        parse_float=plain_float,
        parse_constant=refuse_constant,
    )
    json.dumps(value, ensure_ascii=False).encode()
    return value


def plain_object(pairs):
    """The object, after checking for duplicate keys."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("duplicate key")
    return found


def plain_int(text):
    """An integer of 64 bits."""
    if len(text) > 20 or not -(2**63) <= int(text) < 2**63:
        raise ValueError(f"an integer of more than 64 bits: {text:.30}")
    return int(text)


def plain_float(text):
    """A finite number."""
    if math.isinf(float(text)):
        raise ValueError(f"a number out of range: {text:.30}")
    return float(text)


def refuse_constant(name):
    """Refuses NaN and Infinity, which are not JSON."""
    raise ValueError(f"{name} is not allowed")
