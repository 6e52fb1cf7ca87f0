"""The folder `web/` of a bundle in a real Chromium: a photo, the camera, and no network."""

from __future__ import annotations

import functools
import http.server
import importlib.util
import json
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import hwnas
from hwnas.core.errors import UserError
from hwnas.core.resources import resource
from hwnas.core.web_runtimes import fetch_runtime
from hwnas.devices.browser import CHROMIUMS
from hwnas.nets.bn import recalibrate
from hwnas.nets.subnet import build_subnet
from hwnas.spaces.space import SearchSpace

CHROMIUM = next(filter(None, map(shutil.which, CHROMIUMS)), None)
NAMES = [f"class <{i}>" for i in range(10)]
SPEC = {
    "shape": [3, 24, 24],
    "mean": [0.5, 0.4, 0.3],
    "std": [0.2, 0.3, 0.4],
    "resize_px": [32, 24],
    "class_names": NAMES,
}
OUTER = """<!doctype html><body style="margin:0">
<iframe src="bundle/web/%s.html" style="width:100%%;height:900px;border:0" allow="camera"></iframe>
<script type="module">
  const frame = document.querySelector("iframe");
  const inside = (id) => frame.contentDocument?.getElementById(id);
  const until = async (holds) => {
    while (!holds()) await new Promise((resolve) => setTimeout(resolve, 50));
  };
  await until(() => frame.contentDocument?.body?.dataset.state || inside("problem")?.textContent);
  const kind = "%s";
  if (kind === "camera") {
    inside("camera").click();
  } else {
    const blob = await (await fetch("photo.png")).blob();
    const file = new File([blob], "photo.png", { type: "image/png" });
    const given = new frame.contentWindow.DataTransfer();
    given.items.add(file);
    const options = { dataTransfer: given, bubbles: true, cancelable: true };
    const drop = new frame.contentWindow.DragEvent("drop", options);
    if (kind === "drop") inside("drop").dispatchEvent(drop);
    else {
      inside("file").files = given.files;
      inside("file").dispatchEvent(new Event("change"));
    }
  }
  await until(() => inside("time").textContent.includes("ms per") || inside("problem").textContent);
  const rows = [...inside("classes").rows].map((row) => [...row.cells].map((c) => c.textContent));
  const names = ["time", "problem", "card"];
  const texts = Object.fromEntries(names.map((id) => [id, inside(id).textContent]));
  await fetch("result", { method: "POST", body: JSON.stringify({ rows, ...texts }) });
</script>"""

pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium"),
]


@pytest.fixture(scope="module")
def site(tiny_space: SearchSpace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a bundle's `web/` (fp32 and int8) of a network whose outputs are known."""
    folder = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HWNAS_CACHE", str(tmp_path_factory.mktemp("runtimes")))
        try:
            fetch_runtime("litert")
        except UserError as error:
            pytest.skip(f"no LiteRT.js: {error}")
        x = torch.from_numpy(preprocessed(photo())[None])
        images = torch.randn(16, 3, 24, 24) * 0.5 + x
        network = recalibrate(build_subnet(tiny_space, tiny_space.largest()), [images])
        metadata = {
            "preprocessing": json.dumps(SPEC),
            "class_names": json.dumps(NAMES),
            "model_card": "A network of this test.",
        }
        for precision in ("fp32", "int8"):
            hwnas.export(
                network,
                "web",
                folder / "bundle" / "web",
                images=images.numpy(),
                metadata=metadata,
                precision=precision,
            )
    measured = {"measured_ms": 0.123, "device": {"name": "a phone"}}
    (folder / "bundle" / "manifest.json").write_text(json.dumps({"latency": [measured]}))
    with torch.inference_mode():
        logits = network(x).softmax(1)[0].numpy()
    np.save(folder / "expected.npy", logits)
    from PIL import Image

    Image.fromarray(photo()).save(folder / "photo.png")
    yield folder


def photo() -> np.ndarray:
    """uint8 [70, 90, 3]: smooth colours, and a square."""
    y, x = np.mgrid[0:70, 0:90]
    pixels = np.stack([2.5 * x, 3 * y, 255 - 2 * x], axis=-1)
    pixels[20:45, 30:60] = (250, 30, 60)
    return pixels.clip(0, 255).astype(np.uint8)


def preprocessed(pixels: np.ndarray) -> np.ndarray:
    """The input [C, px, px] by the code that ships in bundles."""
    path = resource("export", "bundle_images.py")
    spec = importlib.util.spec_from_file_location("bundle_images", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    found: np.ndarray = module.preprocess(pixels, SPEC)
    return found


class _Handler(http.server.SimpleHTTPRequestHandler):
    results: queue.Queue[dict[str, Any]]
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        super().do_GET()

    def do_POST(self) -> None:
        self.results.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        pass


def shown(site: Path, page: str, kind: str) -> dict[str, Any]:
    """What a page shows after a photo was given in this way."""
    (site / "outer.html").write_text(OUTER % (page, kind))
    handler = type("Handler", (_Handler,), {"results": queue.Queue(), "asked": []})
    serve = functools.partial(handler, directory=str(site))
    with (
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve) as server,
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile,
    ):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        command = [
            *(str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu"),
            *("--disable-dev-shm-usage", f"--user-data-dir={profile}"),
            *("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),
            *("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",),
            f"http://127.0.0.1:{server.server_address[1]}/outer.html",
        ]
        process = subprocess.Popen(command, stdout=-3, stderr=-3)
        try:
            found: dict[str, Any] = handler.results.get(timeout=90)
        finally:
            process.terminate()
            process.wait()
            server.shutdown()
    return {**found, "asked": handler.asked}


@pytest.mark.parametrize("kind", ["file", "drop"])
def test_a_photo_gets_the_classes_that_torch_gives(site: Path, kind: str) -> None:
    found = shown(site, "index", kind)
    assert found["problem"] == "" and found["card"] == "A network of this test."
    expected = np.load(site / "expected.npy")
    best = np.argsort(-expected)[:5]
    assert [row[0] for row in found["rows"]] == [NAMES[i] for i in best]
    shares = [float(row[2].removesuffix(" %")) for row in found["rows"]]
    assert shares == pytest.approx(100 * expected[best], abs=0.11)
    assert "(median of 20 runs); 0.12 ms measured on a phone" in found["time"]


def test_an_8_bit_network_runs(site: Path) -> None:
    found = shown(site, "int8", "file")
    assert found["problem"] == "" and len(found["rows"]) == 5
    assert "/bundle/web/web.int8.tflite" in found["asked"]


def test_the_camera_is_classified(site: Path) -> None:
    found = shown(site, "index", "camera")
    assert found["problem"] == "" and len(found["rows"]) == 5
    assert "ms per image in this browser" in found["time"]
