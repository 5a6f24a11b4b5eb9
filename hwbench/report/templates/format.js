"use strict";
// Numbers for people, as hwbench.units writes them; the page's tables come from there, charts and layer tables from here.
const NA = "n/a";

function significant(value, digits) {
  if (value === 0) return "0";
  const decimals = Math.max(0, digits - 1 - Math.floor(Math.log10(Math.abs(value))));
  return value.toFixed(Math.min(decimals, 100));
}

function scaled(value, steps, digits) {
  for (const [factor, unit] of steps) {
    const rounded = Number((value / factor).toExponential(digits - 1)); // before the unit is chosen: 999.99 ms is 1.000 s
    if (Math.abs(rounded) >= 1) return `${significant(rounded, digits)} ${unit}`;
  }
  const [factor, unit] = steps[steps.length - 1];
  return `${significant(value / factor, digits)} ${unit}`;
}

const isNumber = (value) => typeof value === "number" && Number.isFinite(value);
const TIMES = [[1, "s"], [1e-3, "ms"], [1e-6, "µs"], [1e-9, "ns"]];
const JOULES = [[1, "J"], [1e-3, "mJ"], [1e-6, "µJ"]];
const SIZES = [[2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"], [1, "B"]];
const COUNTS = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"], [1, ""]];

const format = {
  seconds: (v, digits = 4) => (isNumber(v) ? scaled(v, TIMES, digits) : NA),
  joules: (v) => (isNumber(v) ? scaled(v, JOULES, 3) : NA),
  size: (v) => (!isNumber(v) ? NA : Math.abs(v) < 1023.5 ? `${v.toFixed(0)} B`
    : scaled(v, SIZES.slice(0, 3), 3)),
  count: (v) => (!isNumber(v) ? NA : Math.abs(v) < 999.5 ? v.toFixed(0) : scaled(v, [[1e9, "G"], [1e6, "M"], [1e3, "k"]], 3)),
  percent: (v, digits = 1) => (isNumber(v) ? `${(100 * v).toFixed(digits)} %` : NA),
  interval: (low, high) => (isNumber(low) && isNumber(high) ? `${format.seconds(low)} – ${format.seconds(high)}` : NA),
};

// Plotly reads tags and entities in its labels, so names from outside are escaped for it once more.
const label = (value) => String(value).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

function middle(value, most) {
  const all = Array.from(String(value));
  if (all.length <= most) return all.join("");
  const tail = Math.floor((most - 1) * 0.6);
  return `${all.slice(0, most - 1 - tail).join("")}…${all.slice(-tail).join("")}`;
}

// The unit in which an axis is drawn: the largest that keeps its greatest value at 1 or more.
function axisUnit(values, steps = TIMES) {
  const greatest = values.reduce((most, v) => (isNumber(v) && v > most ? v : most), 0);
  const [factor, unit] = steps.find(([f]) => greatest >= f) || steps[steps.length - 1];
  return { factor, unit };
}
