// LiteRT.js: runs .tflite files with XNNPACK in WebAssembly, on one thread.

import { Tensor, loadAndCompile, loadLiteRt } from "./litert.js";

const ARRAYS = { float32: Float32Array, int32: Int32Array, int8: Int8Array, uint8: Uint8Array };

export const layout = "NHWC";

export const start = () => loadLiteRt(new URL("./", import.meta.url).href);

// `run` runs the model once on its input; `predict` runs it on values in the model's own layout.
export async function open(bytes, batch) {
  const model = await loadAndCompile(bytes, { accelerator: "wasm" });
  const [{ shape, dtype }] = model.getInputDetails();
  const sizes = [...shape];
  if (sizes[0] !== batch) throw new Error(`the model's batch is ${sizes[0]}, the plan's ${batch}`);
  const given = random(ARRAYS[dtype], sizes);
  const input = new Tensor(given, sizes);
  const run = async () => {
    for (const output of await model.run(input)) output.delete();
  };
  const predict = async (values) => {
    const tensor = new Tensor(values, sizes);
    const [output] = await model.run(tensor);
    const found = Float32Array.from(output.toTypedArray());
    output.delete();
    tensor.delete();
    return found;
  };
  return { run, predict };
}

function random(kind, sizes) {
  const values = new kind(sizes.reduce((a, b) => a * b, 1));
  const scale = kind === Float32Array ? 1 : 100;
  return values.map(() => scale * (Math.random() + Math.random() + Math.random() - 1.5) * 2);
}
