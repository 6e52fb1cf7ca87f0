// Takes the turns that web_bench.py orders (see bench_protocol.py), and sends their samples.

const LEAST_WARMUP_RUNS = 10; // WebAssembly is compiled again while it warms up
const STEPS = 40; // of the clock, at least, in a sample
const MESSAGE_MS = 500; // of turns, per message
const WAIT_MS = 2000;

const tab = crypto.randomUUID?.() ?? String(Math.random());
const element = (id) => document.getElementById(id);
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
let plan = null;

function show(text, share) {
  element("state").textContent = text;
  element("progress").value = share;
}

class Refused extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

class Unanswered extends Error {}

async function send(name, message) {
  const body = JSON.stringify({ tab, plan_hash: plan?.plan_hash ?? null, ...message });
  let response, answer;
  try {
    const headers = { "Content-Type": "application/json" };
    response = await fetch(name, { method: "POST", headers, body });
    answer = await response.json();
  } catch (error) {
    throw new Unanswered(error.message);
  }
  if (!response.ok) throw new Refused(response.status, answer.refused ?? response.statusText);
  return answer;
}

async function facts() {
  const data = navigator.userAgentData;
  const keys = ["architecture", "bitness", "model", "platformVersion", "fullVersionList"];
  const known = data ? await data.getHighEntropyValues(keys) : {};
  const brands = (known.fullVersionList ?? []).filter(({ brand }) => !/not.?a.?brand/i.test(brand));
  const brand = brands.find((b) => b.brand !== "Chromium") ?? brands[0];
  const firefox = navigator.userAgent.match(/(Firefox|Version)\/([\d.]+)/);
  const platform = data?.platform || navigator.platform || "unknown";
  const other = firefox ? `${firefox[1] === "Version" ? "Safari" : "Firefox"} ${firefox[2]}` : "";
  return {
    browser: brand ? `${brand.brand} ${brand.version}` : other || "an unknown browser",
    system: `${platform} ${known.platformVersion ?? ""}`.trim(),
    device: known.model || "browser",
    machine: [known.architecture, known.bitness].filter(Boolean).join(" ") || "unknown",
    n_cpus: navigator.hardwareConcurrency || 1,
  };
}

// The step of the clock in ms: the smallest difference of two readings.
function clockStep() {
  let step = Infinity;
  for (let i = 0; i < 50; i++) {
    const start = performance.now();
    let end = start;
    while (end === start) end = performance.now();
    step = Math.min(step, end - start);
  }
  return step;
}

// Warms a model up; gives the runs per sample, so that a sample is much longer than the clock's step.
async function warmUp(run, step) {
  const n = Math.max(LEAST_WARMUP_RUNS, plan.warmup_runs);
  let fastest = Infinity;
  for (let i = 0; i < n; i++) {
    const start = performance.now();
    await run();
    fastest = Math.min(fastest, performance.now() - start);
  }
  const wanted = Math.ceil((STEPS * step) / Math.max(fastest, step));
  return Math.max(1, Math.min(Math.floor(plan.hot_samples / 2), wanted));
}

const toNs = (ms) => Math.max(1, Math.round(ms * 1e6));

// A cold run, then hot ones: plan.hot_samples in all, `repeats` of them per sample.
async function takeTurn({ run, repeats }) {
  const n = Math.max(2, Math.ceil(plan.hot_samples / repeats));
  const deadline = performance.now() + plan.turn_budget_s * 1e3;
  let start = performance.now();
  await run();
  let end = performance.now();
  const samples = [toNs(end - start)];
  for (let i = 1; i <= n; i++) {
    start = performance.now();
    for (let k = 0; k < repeats; k++) await run();
    end = performance.now();
    samples.push(toNs((end - start) / repeats));
    if (end > deadline && i >= 2) break;
  }
  return samples;
}

async function loadAll() {
  const runtime = await import(`./runtime_${plan.runtime}.js`);
  await runtime.start();
  const step = clockStep();
  const models = [];
  for (const [index, name] of plan.names.entries()) {
    show(`Loading model ${index + 1} of ${plan.names.length}.`, index / plan.names.length);
    try {
      const response = await fetch(`models/${index}`);
      if (!response.ok) throw new Error(`the model was not sent (${response.status})`);
      const model = await runtime.open(new Uint8Array(await response.arrayBuffer()), plan.batch);
      models.push({ run: model.run, repeats: await warmUp(model.run, step) });
    } catch (error) {
      throw new Error(`${plan.runtime} cannot run ${name}: ${error?.message ?? error}`);
    }
    await send("loaded", { n: models.length });
  }
  return models;
}

async function whileHidden() {
  while (document.hidden) {
    show("Paused: bring this page to the front.", 0);
    await send("alive", {});
    await pause(WAIT_MS);
  }
}

async function timeAll() {
  const reference = plan.reference;
  const models = await loadAll();
  if (plan.only_try) return;
  let taken = { seconds: 0, turns: [] };
  let count = 0;
  for (;;) {
    const { is_done, orders } = await send("turns", taken);
    if (is_done) return;
    await whileHidden();
    const begin = performance.now();
    const turns = [];
    for (const [round, index] of orders) {
      turns.push([round, index, ...(await takeTurn(models[index >= 0 ? index : reference]))]);
      if (performance.now() - begin > MESSAGE_MS) break;
    }
    count += turns.length;
    show(`Round ${orders[0][0] + 1}: ${count} turns in this page.`, 0.5);
    taken = { seconds: (performance.now() - begin) / 1e3, turns };
  }
}

addEventListener("pagehide", () => {
  if (plan !== null) {
    const body = JSON.stringify({ tab, plan_hash: plan.plan_hash });
    navigator.sendBeacon("bye", new Blob([body], { type: "application/json" }));
  }
});

// The address stays the same, so an open page takes the next plan when there is one.
for (;;) {
  try {
    plan = await send("hello", await facts());
    element("problem").textContent = "";
    if (!plan.is_done) await timeAll();
    show("Done. This page takes the next plan, too.", 1);
    plan = null;
    await pause(WAIT_MS);
    location.reload(); // frees the memory of the models
    break;
  } catch (error) {
    if (error instanceof Unanswered) {
      show("Waiting for hwnas.", 0);
    } else if (error instanceof Refused) {
      element("problem").textContent = error.message;
    } else {
      const text = String(error?.message || error);
      element("problem").textContent = text;
      if (plan !== null) await send("failed", { message: text }).catch(() => {});
    }
    plan = null;
    await pause(WAIT_MS);
  }
}
