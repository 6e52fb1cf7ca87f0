"""Lists and removes the kits that earlier plans left on a remote device."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping

from hwnas.core.errors import UserError
from hwnas.core.leftover import Leftover
from hwnas.devices.reach import Reach, call

__all__ = ["leftovers"]

# Only folders with the name of a plan's results, `try`, and runtime folders belong to hwnas. A
# runtime folder is busy if any kit runs.
BUSY = """
busy=no
case $d in runtime-*) kits=$(ls -d results-* try 2>/dev/null) ;; *) kits=$d ;; esac
for k in $kits; do
  p=$(cat "$k/pid" 2>/dev/null)
  if [ -n "$p" ] && grep -q bench.py "/proc/$p/cmdline" 2>/dev/null; then busy=yes; fi
done
"""
_HEX = "[0-9a-f]" * 16
LIST = f"""
for d in results-* try runtime-*; do
  case $d in
    try | results-{_HEX} | runtime-{_HEX} | runtime-{_HEX}.part) [ -d "$d" ] || continue ;;
    runtime-{_HEX}.tar) [ -f "$d" ] || continue ;;
    *) continue ;;
  esac
  {BUSY}
  n=$(wc -c 2>/dev/null < "$d/results.jsonl" || echo 0)
  others=$(ls -A "$d" | grep -vcx results.jsonl)
  aside=$(ls -A "$d" | grep -c '^aside-.*[.]jsonl$')
  echo "$d $(du -sk "$d" | cut -f1) $n $others $aside $busy"
done
"""
# Samples are removed last, so that an interrupted removal loses none
REMOVE = f"""
{BUSY}
[ $busy = no ] || exit 3
for f in "$d"/* "$d"/.[!.]*; do
  [ "$f" = "$d/results.jsonl" ] || rm -rf "$f"
done
"""
LINE = re.compile(
    r"((?:results|runtime)-[0-9a-f]{16}(?:\.part|\.tar)?|try)"
    r" ([0-9]{1,12}) +([0-9]{1,15}) +([0-9]{1,9}) +([0-9]{1,9}) (yes|no)"
)


def leftovers(reach: Reach, folder: str, home: Mapping[str, int]) -> list[Leftover]:
    """See `interfaces.CleaningTransport.leftovers`; `folder` on the device has a kit per plan."""
    script = f"cd {shlex.quote(folder)} 2>/dev/null || exit 0\n{LIST}"
    lines = call(reach.command(script), where=reach.where).splitlines()
    found = []
    for line in lines:
        if (match := LINE.fullmatch(line.strip())) is None:
            raise UserError(
                "unexpected output from the remote shell",
                expected="the kits on the device and their sizes",
                found=line[:200],
                where=reach.where,
                fix="make the shell of the device print nothing when it starts",
            )
        name, kilobytes, n_samples, n_others, n_aside, busy = match.groups()
        found.append(
            _leftover(
                reach,
                (folder, name),
                n_bytes=int(kilobytes) * 1024,
                n_samples=int(n_samples),
                n_others=int(n_others),
                n_aside=int(n_aside),
                is_busy=busy == "yes",
                is_home=int(n_samples) <= home.get(name, 0),
            )
        )
    return found


def _leftover(
    reach: Reach,
    place: tuple[str, str],
    *,
    n_bytes: int,
    n_samples: int,
    n_others: int,
    n_aside: int,
    is_busy: bool,
    is_home: bool,
) -> Leftover:
    folder, name = place
    script = f"cd {shlex.quote(folder)} || exit\nd={name}\n{REMOVE}"
    kept = ""
    if is_home:
        script += '[ ! -e "$d/results.jsonl" ] || rm "$d/results.jsonl"\n'
        script += 'if [ -d "$d" ]; then rmdir "$d"; else rm -f "$d"; fi\n'
    else:
        kept = f"{n_samples / 1e6:.1f} MB of samples that are in no run folder given here"
        n_bytes = max(0, n_bytes - n_samples) if n_others else 0
    if is_busy:
        kept, n_bytes = "its kit is running", 0

    def remove() -> None:
        call(reach.command(script), where=f"{reach.where}:{folder}/{name}")

    kinds = {"try": "models tried on a device", "runtime": "Python and a runtime on a device"}
    what = kinds.get(name.partition("-")[0], "models and kit on a device")
    if n_aside:
        what += f", {n_aside} file{'s' * (n_aside > 1)} of samples set aside for other folders"
    return Leftover(what, f"{reach.where}:{folder}/{name}", n_bytes, remove, kept)
