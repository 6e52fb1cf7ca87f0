// onnxruntime-web: runs .onnx files in WebAssembly, on one thread.

import * as ort from "./ort.wasm.min.mjs";

const ARRAYS = { float32: Float32Array, int8: Int8Array, uint8: Uint8Array, int32: Int32Array };

export const layout = "NCHW";

export async function start() {
  ort.env.wasm.wasmPaths = new URL("./", import.meta.url).href;
  ort.env.wasm.numThreads = 1;
}

// `run` runs the model once on its input; `predict` runs it on values in the model's own layout.
export async function open(bytes, batch) {
  const session = await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"] });
  const [{ name, type, shape }] = session.inputMetadata;
  const [first, ...rest] = shape;
  if (typeof first === "number" && first > 0 && first !== batch) {
    throw new Error(`the model's batch is ${first}, the plan's ${batch}`);
  }
  const sizes = [batch, ...rest];
  const feed = { [name]: new ort.Tensor(type, random(ARRAYS[type], sizes), sizes) };
  const run = async () => {
    await session.run(feed);
  };
  const predict = async (values) => {
    const found = await session.run({ [name]: new ort.Tensor(type, values, sizes) });
    return Float32Array.from(found[session.outputNames[0]].data);
  };
  return { run, predict };
}

function random(kind, sizes) {
  const values = new kind(sizes.reduce((a, b) => a * b, 1));
  const scale = kind === Float32Array ? 1 : 100;
  return values.map(() => scale * (Math.random() + Math.random() + Math.random() - 1.5) * 2);
}
