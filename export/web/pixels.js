// From pixels to the input of a network, as in export/bundle_images.py (`preprocess`).

// RGBA pixels -> Float32Array [px, px, C] of the normalised image.
export function toInput({ data, width, height }, { shape, mean, std, resize_px }) {
  const [channels] = shape;
  let levels = { values: planes(data, channels), width, height };
  for (const [index, px] of resize_px.entries()) {
    if (levels.width === px && levels.height === px) continue;
    levels = resized(levels, px, channels);
    if (index === 0) levels.values = levels.values.map(Math.round); // stored in 8 bits
  }
  return Float32Array.from(levels.values, (level, at) => {
    const channel = at % channels;
    return (level / 255 - mean[channel]) / std[channel];
  });
}

// Colours [H, W, C] of RGBA pixels; one channel is the luma.
function planes(data, channels) {
  const n = data.length / 4;
  const values = new Float64Array(n * channels);
  for (let i = 0; i < n; i++) {
    if (channels === 1) {
      const [r, g, b] = [data[4 * i], data[4 * i + 1], data[4 * i + 2]];
      values[i] = Math.floor((19595 * r + 38470 * g + 7471 * b + 0x8000) / 0x10000);
    } else {
      for (let c = 0; c < channels; c++) values[channels * i + c] = data[4 * i + c];
    }
  }
  return values;
}

// The centre square, resized: bilinear, with antialiasing when it shrinks.
function resized({ values, width, height }, px, channels) {
  const side = Math.min(width, height);
  const columns = weights(width, px, side);
  const rows = weights(height, px, side);
  const narrow = new Float64Array(height * px * channels);
  for (let y = 0; y < height; y++) {
    for (const [x, { first, share }] of columns.entries()) {
      for (let c = 0; c < channels; c++) {
        let sum = 0;
        for (let k = 0; k < share.length; k++) {
          sum += share[k] * values[(y * width + first + k) * channels + c];
        }
        narrow[(y * px + x) * channels + c] = sum;
      }
    }
  }
  const found = new Float64Array(px * px * channels);
  for (const [y, { first, share }] of rows.entries()) {
    for (let k = 0; k < share.length; k++) {
      const from = (first + k) * px * channels;
      for (let i = 0; i < px * channels; i++) found[y * px * channels + i] += share[k] * narrow[from + i];
    }
  }
  return { values: found, width: px, height: px };
}

// For each of px outputs: the first input, and the weights of the inputs from there on.
function weights(size, px, side) {
  const scale = side / px;
  const reach = Math.max(scale, 1);
  return Array.from({ length: px }, (_, i) => {
    const centre = (size - side) / 2 + (i + 0.5) * scale;
    const first = Math.max(0, Math.ceil(centre - reach - 0.5));
    const last = Math.min(size - 1, Math.floor(centre + reach - 0.5));
    const share = [];
    for (let k = first; k <= last; k++) share.push(1 - Math.abs(k + 0.5 - centre) / reach);
    const sum = share.reduce((a, b) => a + b, 0);
    return { first, share: share.map((value) => value / sum) };
  });
}
