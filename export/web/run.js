// Classifies a photo or the frames of the camera with the model next to this page. Nothing is sent.

import { open, start } from "./runtime_litert.js";
import { toInput } from "./pixels.js";

const SHOWN = 5; // classes
const TIMED_RUNS = 20; // per photo
const element = (id) => document.getElementById(id);
const settings = JSON.parse(element("settings").textContent);
const { input } = settings;
let model = null;
let stream = null;
let promised = ""; // what the manifest of the bundle says of its device

function show(logits) {
  const largest = Math.max(...logits);
  const powers = Array.from(logits, (logit) => Math.exp(logit - largest));
  const sum = powers.reduce((a, b) => a + b);
  const ranked = powers.map((power, index) => [power / sum, index]).sort((a, b) => b[0] - a[0]);
  const rows = ranked.slice(0, SHOWN).map(([share, index]) => {
    const row = document.createElement("tr");
    const bar = document.createElement("div");
    bar.style.width = `${100 * share}%`;
    row.insertCell().textContent = input.class_names[index] ?? `class ${index}`;
    row.insertCell().append(bar);
    row.insertCell().textContent = `${(100 * share).toFixed(1)} %`;
    return row;
  });
  element("classes").replaceChildren(...rows);
}

function showTime(times) {
  const sorted = [...times].sort((a, b) => a - b);
  const median = sorted[Math.floor(sorted.length / 2)];
  const text = `${median.toPrecision(2)} ms per image in this browser (median of ${sorted.length} runs)`;
  element("time").textContent = text + promised;
}

// The pixels of a drawable as RGBA, at its own size.
function pixelsOf(source, width, height) {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white"; // behind transparency, as in training
  context.fillRect(0, 0, width, height);
  context.drawImage(source, 0, 0, width, height);
  const side = Math.min(width, height);
  const seen = element("seen").getContext("2d");
  const place = [(width - side) / 2, (height - side) / 2, side, side];
  seen.clearRect(0, 0, 192, 192);
  seen.drawImage(canvas, ...place, 0, 0, 192, 192);
  return context.getImageData(0, 0, width, height);
}

async function classify(image, nRuns) {
  const values = toInput(image, input);
  const times = [];
  let logits = null;
  for (let i = 0; i < nRuns; i++) {
    const begin = performance.now();
    logits = await model.predict(values);
    times.push(performance.now() - begin);
  }
  show(logits);
  return times;
}

async function classifyFile(file) {
  stopCamera();
  element("problem").textContent = "";
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    element("problem").textContent = `This browser cannot read ${file.name} as an image.`;
    return;
  }
  const image = pixelsOf(bitmap, bitmap.width, bitmap.height);
  bitmap.close();
  showTime(await classify(image, TIMED_RUNS));
}

function stopCamera() {
  stream?.getTracks().forEach((track) => track.stop());
  stream = null;
  element("camera").textContent = "use the camera";
}

async function useCamera() {
  if (stream !== null) {
    stopCamera();
    return;
  }
  element("problem").textContent = "";
  try {
    const video = { facingMode: "environment" };
    stream = await navigator.mediaDevices.getUserMedia({ video });
  } catch (error) {
    element("problem").textContent = `No camera: ${error.message}. A page has one only on localhost or by https.`;
    return;
  }
  element("camera").textContent = "stop the camera";
  const video = document.createElement("video");
  video.muted = true;
  video.playsInline = true;
  video.srcObject = stream;
  await video.play();
  const times = [];
  while (stream !== null) {
    times.push(...(await classify(pixelsOf(video, video.videoWidth, video.videoHeight), 1)));
    showTime(times.slice(-TIMED_RUNS));
    await new Promise(requestAnimationFrame);
  }
}

function listen() {
  const drop = element("drop");
  for (const [name, isOver] of [["dragover", true], ["dragleave", false], ["drop", false]]) {
    drop.addEventListener(name, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", isOver);
    });
  }
  drop.addEventListener("drop", ({ dataTransfer }) => {
    if (dataTransfer.files.length) classifyFile(dataTransfer.files[0]);
  });
  element("file").addEventListener("change", ({ target }) => {
    if (target.files.length) classifyFile(target.files[0]);
  });
  element("camera").addEventListener("click", useCamera);
}

// The measured latency of the bundle, if this page is served together with it.
async function readManifest() {
  try {
    const { latency } = await (await fetch("../manifest.json")).json();
    const known = latency.find(({ measured_ms }) => measured_ms !== null);
    if (known) promised = `; ${known.measured_ms.toPrecision(2)} ms measured on ${known.device.name}`;
  } catch {
    promised = ""; // the folder is served alone
  }
}

element("card").textContent = settings.card;
element("time").textContent = "Loading the model.";
try {
  await start();
  const response = await fetch(settings.file);
  if (!response.ok) throw new Error(`${settings.file} is not next to this page`);
  model = await open(new Uint8Array(await response.arrayBuffer()), 1);
  await readManifest();
  listen();
  element("time").textContent = "Ready. Photos stay in this browser.";
  document.body.dataset.state = "ready";
} catch (error) {
  element("problem").textContent = `The model does not run here: ${error?.message ?? error}`;
  element("time").textContent = "";
}
