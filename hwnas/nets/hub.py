"""Weights that timm publishes: from the local cache, or downloaded on request."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from hwnas.core.command import command_line
from hwnas.core.errors import UserError, did_you_mean
from hwnas.nets.origin import Origin, spdx

__all__ = ["PREFIX", "cached_file", "fetched_file", "origin_of_timm"]

log = logging.getLogger(__name__)

PREFIX = "timm:"
_FILES = ("model.safetensors", "pytorch_model.bin")


def cached_file(name: str) -> Path | None:
    """The cached weights of `name` (a name in timm, with or without a tag); None if not cached.

    Raises:
        UserError: timm publishes no weights of this name.
    """
    from huggingface_hub import try_to_load_from_cache

    repository = _config(name).hf_hub_id
    for file in _FILES:
        found = try_to_load_from_cache(repository, file)
        if isinstance(found, str):
            return Path(found)
    return None


def fetched_file(name: str) -> Path:
    """Weights of `name`, downloaded if they are not cached; logs name and size before a download.

    Raises:
        UserError: as in `cached_file`, or the download fails; explains how to get the file by hand.
    """
    found = cached_file(name)
    return _fetch(name) if found is None else found


def _fetch(name: str) -> Path:
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

    config, file = _config(name), _FILES[0]
    try:
        size = get_hf_file_metadata(hf_hub_url(config.hf_hub_id, file)).size or 0
        log.warning(
            "fetching %s of huggingface.co/%s: %.1f MB, licence %s",
            *(file, config.hf_hub_id, size / 1e6, spdx(config.license or "not stated")),
        )
        return Path(hf_hub_download(config.hf_hub_id, file))
    except Exception as error:  # the HTTP client of the hub can raise any exception
        raise absent(name, str(error).split("\n")[0][:120] or type(error).__name__) from error


def absent(name: str, found: str) -> UserError:
    """The error for timm weights that are not on this machine."""
    config = _config(name)
    return UserError(
        f"the weights of {PREFIX}{name} are not on this machine",
        expected=f"{_FILES[0]} of {config.hf_hub_id} in the cache of huggingface_hub",
        found=found,
        where=PREFIX + name,
        fix="with internet access, run "
        + command_line("pretrained", "import", PREFIX + name, "--out", "W.safetensors")
        + "; without it, download"
        f" https://huggingface.co/{config.hf_hub_id}/resolve/main/{_FILES[0]} on another machine,"
        f" and give the path of that file instead of {PREFIX}{name}",
    )


def origin_of_timm(name: str, file: Path, sha256: str) -> Origin:
    """Origin of the timm weights in `file`."""
    config = _config(name)
    return Origin(
        network=f"{config.architecture}.{config.tag}".rstrip("."),
        licence=spdx(config.license or "not stated"),
        home=f"https://huggingface.co/{config.hf_hub_id}",
        file=file.name,
        sha256=sha256,
        mean=tuple(map(float, config.mean)),
        std=tuple(map(float, config.std)),
    )


def _config(name: str) -> Any:
    """The configuration that timm has for published weights.

    Raises:
        UserError: unknown name.
    """
    from timm.models import get_pretrained_cfg, list_pretrained

    try:
        found = get_pretrained_cfg(name)
    except (KeyError, ValueError, RuntimeError):  # unknown tag
        found = None
    if found is None or not found.hf_hub_id:
        names = list_pretrained()
        raise UserError(
            f"timm publishes no weights of {name!r}",
            expected="a name from timm.list_pretrained(), e.g. mobilenetv2_100 or"
            " mobilenetv2_100.ra_in1k",
            where=PREFIX + name,
            fix=did_you_mean(name, names, otherwise="see `hwnas pretrained list`"),
        )
    return found
