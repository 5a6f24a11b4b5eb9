// Which results are points, which of them are shown, which nothing beats, and the same as CSV. No drawing here.
const COSTS = {
  latency: { title: "Latency, raw median", short: "Median", read: (r) => r.latency_s, steps: TIMES, show: format.seconds },
  anchored: { title: "Latency, anchored", short: "Anchored", read: (r) => r.anchored_s, steps: TIMES, show: format.seconds },
  energy: { title: "Energy per inference, net", short: "Energy", read: (r) => r.energy_j, steps: JOULES, show: format.joules },
  memory: { title: "Peak memory", short: "Peak memory", read: (r) => [r.peak_bytes, null, null], steps: SIZES, show: format.size },
};
const costOf = (r, cost) => COSTS[cost].read(r)[0];
const hasCost = (r, cost) => r.comparable && isNumber(costOf(r, cost)) && costOf(r, cost) > 0;

// The points that the switches let through and that keep every limit except the one on the axis, which is a line to look past.
function shownPoints(results, state) {
  const limits = Object.entries(state.limits).filter(([cost, limit]) => isNumber(limit) && cost !== state.cost);
  return results.filter((r) => hasCost(r, state.cost) && !state.hidden.target.has(r.target) && !state.hidden.family.has(r.family)
    && !state.hidden.precision.has(r.precision) && !state.hidden.origin.has(r.predicted ? "predicted" : "measured")
    && limits.every(([cost, limit]) => isNumber(costOf(r, cost)) && costOf(r, cost) <= limit));
}

const withinBudget = (points, state) => {
  const limit = state.limits[state.cost];
  return isNumber(limit) ? points.filter((r) => costOf(r, state.cost) <= limit) : points;
};

// For each target the points that no other of it beats, by rising cost; equal points stay together. As hwbench.pareto.
function frontsOf(points, cost) {
  const fronts = new Map();
  const sorted = [...points].sort((a, b) => costOf(a, cost) - costOf(b, cost) || b.top1 - a.top1);
  for (const r of sorted) {
    if (!fronts.has(r.target)) fronts.set(r.target, []);
    const front = fronts.get(r.target);
    const last = front[front.length - 1];
    if (!last || r.top1 > last.top1 || (r.top1 === last.top1 && costOf(r, cost) === costOf(last, cost))) front.push(r);
  }
  return fronts;
}

/* Export. */

const CSV_COLUMNS = [
  ["model", (r) => r.model], ["identity", (r) => r.identity], ["family", (r) => r.family], ["target", (r) => r.target],
  ["precision", (r) => r.precision], ["origin", (r) => (r.predicted ? "predicted" : "measured")],
  ["top1_percent", (r) => r.top1], ["top1_source", (r) => r.top1_source],
  ["latency_s", (r) => r.latency_s[0]], ["latency_low_s", (r) => r.latency_s[1]], ["latency_high_s", (r) => r.latency_s[2]],
  ["anchored_s", (r) => r.anchored_s[0]], ["anchored_low_s", (r) => r.anchored_s[1]], ["anchored_high_s", (r) => r.anchored_s[2]],
  ["energy_j", (r) => r.energy_j[0]], ["peak_bytes", (r) => r.peak_bytes], ["macs", (r) => r.macs], ["params", (r) => r.params],
  ["caveats", (r) => r.caveats.join(" ")],
];

// A text that a spreadsheet would take for a formula gets a quote in front, as OWASP advises.
function csvCell(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "number") return String(value);
  const text = /^[=+\-@\t\r\n'＝＋－＠]/.test(value) ? `'${value}` : value; // as hwbench.formats.csv, where ' can be undone
  return /[",\r\n]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
}

function csvOf(points) {
  const lines = [CSV_COLUMNS.map(([name]) => name), ...points.map((r) => CSV_COLUMNS.map(([, read]) => csvCell(read(r))))];
  return lines.map((cells) => cells.join(",")).join("\r\n") + "\r\n";
}

function save(name, text) {
  const link = make("a", { href: URL.createObjectURL(new Blob([text], { type: "text/csv" })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
