"""The command line that ort_run.py, trt_run.py and device_run.py share."""

import argparse
import contextlib
import json
import os
import sys
from pathlib import Path

import numpy as np
from bundle_checks import show
from bundle_files import BundleError, read_bundle
from bundle_images import preprocess, read_image


def main(doc, check, open_predictor, choice, arguments=None):
    """Checks a bundle, or classifies images; returns the exit status.

    check: `check(folder, manifest, chosen, data, with_latency)` returns findings (see
        bundle_checks).
    open_predictor: `open_predictor(folder, manifest, chosen)` returns a function from inputs to
        logits. `chosen` is the path in the bundle of the only model to use, or None.
    choice: name of the option for `chosen`.
    """
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "images", nargs="*", type=Path, help="images to classify, or the bundle with --check"
    )
    parser.add_argument("--check", action="store_true", help="check the bundle on this device")
    parser.add_argument(
        "--data",
        type=Path,
        help="with --check: measure the accuracy on these images: a folder per class, or .npz",
    )
    parser.add_argument(
        "--limit", type=int, help=("--data: number of images, balanced over the classes")
    )
    parser.add_argument("--no-latency", action="store_true", help="with --check: skip timing")
    parser.add_argument(
        f"--{choice}",
        dest="chosen",
        help="use only this one of the bundle, given by its path in the bundle",
    )
    parser.add_argument("--json", type=Path, help="also write the findings of --check to this file")
    parser.add_argument("--bundle", type=Path, default=Path(__file__).resolve().parent)
    parser.add_argument("--top", type=int, default=3, help="number of classes printed per image")
    options = parser.parse_args(arguments)
    if not options.check and not options.images:
        parser.error("give images, or --check")
    if options.limit is not None and (options.data is None or options.limit < 1):
        parser.error("--limit takes a number of images, beside --data")
    if options.check and len(options.images) > 1:
        parser.error("--check takes one bundle")
    folder = options.images[0] if options.check and options.images else options.bundle
    with visible_streams():
        return run(options, folder, check, open_predictor)


def run(options, folder, check, open_predictor):
    """Runs `main` with parsed options."""
    try:
        manifest = read_bundle(folder)
        if options.check:
            print(f"{manifest['name']}: {len(manifest['files'])} files, checksums ok", flush=True)
            data = options.data if options.limit is None else (options.data, options.limit)
            found = check(folder, manifest, options.chosen, data, not options.no_latency)
            if options.json:
                options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
            return show(found)
        predict = open_predictor(folder, manifest, options.chosen)
        return classify(options.images, predict, manifest["input"], options.top)
    except (BundleError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def classify(images, predict, spec, top):
    """Prints the `top` classes of every image; returns 1 if some of them cannot be read, else 0."""
    status = 0
    for image in images:
        try:
            x = preprocess(read_image(image), spec)
        except BundleError as error:
            print(f"error: {error}", file=sys.stderr)
            status = 1
            continue
        best = ranked(predict(x[None])[0], spec["class_names"], top)
        print(f"{image}: " + ", ".join(f"{name} {share:.1%}" for name, share in best), flush=True)
    return status


class Visible:
    """A stream that escapes control characters, which names may contain."""

    def __init__(self, stream):
        self._stream = stream
        if hasattr(stream, "reconfigure"):  # a limited console escapes letters
            stream.reconfigure(errors="backslashreplace")

    def write(self, text):
        """Writes text; everything except newlines and printable characters is escaped."""
        codes = (c if c == "\n" or c.isprintable() else ascii(c)[1:-1] for c in text)
        return self._stream.write("".join(codes))

    def __getattr__(self, name):
        return getattr(self._stream, name)


@contextlib.contextmanager
def visible_streams():
    """Context in which printed text cannot control the terminal; closed streams take everything."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (Visible(one or open(os.devnull, "w")) for one in before)  # noqa: SIM115
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def ranked(logits, names, top):
    """The `top` classes by logits [classes], best first: (name, softmax probability)."""
    powers = np.exp(logits.astype(np.float64) - logits.max())
    best = np.argsort(-powers, kind="stable")[:top]
    return [(names[i], float(powers[i] / powers.sum())) for i in best]
