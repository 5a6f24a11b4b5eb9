// Every chart is a function of the data and the theme that gives plotly's arguments; `draw` keeps it, so that a change of
// theme, size or a switch draws it again.
const KINDS = new Set(["conv", "conv_transpose", "matmul", "attention", "elementwise", "activation", "norm", "pool", "reduce", "layout", "resize", "other"]);
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "x", "pentagon"];
const MOST_LAYERS = 20;
const MONO_WIDTH = 6.7; // of a character at 11 px, for margins: plotly's own guess doubles styled labels
// The bar of buttons is listed one by one, because plotly's own holds one that uploads the chart.
const CONFIG = {
  responsive: true, displaylogo: false, scrollZoom: false, plotlyServerURL: "",
  modeBarButtons: [["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]],
};
const STATIC = { ...CONFIG, modeBarButtons: [["toImage"]] };
const isSmall = () => innerWidth < 640 || matchMedia("(pointer: coarse)").matches;
// Under a finger a chart must let the page scroll, and there is no room for buttons.
const configOf = (shape) => (isSmall() ? { ...CONFIG, displayModeBar: false } : shape.dragmode === "zoom" ? CONFIG : STATIC);
const drawn = new Map();

function theme() {
  const style = getComputedStyle(document.documentElement);
  const get = (name) => style.getPropertyValue(name).trim();
  return {
    ink: get("--ink"), muted: get("--muted"), grid: get("--grid"), paper: get("--paper"), rule: get("--strong-rule"),
    accent: get("--accent"), sans: get("--sans"), mono: get("--mono"),
    target: (i) => get(`--c${i % 8}`),
    kind: (name) => get(`--k-${name}`),
  };
}

function axis(t, title, more) {
  return {
    title: { text: title, font: { size: 13, color: t.muted }, standoff: 10 }, gridcolor: t.grid, linecolor: t.rule, zeroline: false,
    showline: true, ticks: "outside", tickcolor: t.rule, ticklen: 4, tickfont: { size: 12, color: t.muted }, ...more,
  };
}

function layout(t, more) {
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false, hovermode: "closest", autosize: true,
    font: { family: t.sans, size: 13, color: t.ink }, margin: { l: 58, r: 16, t: 12, b: 52 },
    dragmode: isSmall() ? false : "zoom",
    hoverlabel: { align: "left", bgcolor: t.paper, bordercolor: t.rule, font: { family: t.sans, size: 13, color: t.ink } },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: t.muted, activecolor: t.accent }, ...more,
  };
}

function draw(node, build) {
  drawn.set(node, build);
  const { traces, layout: shape } = build(theme(), node.clientWidth, node.clientHeight);
  return Plotly.react(node, traces, shape, configOf(shape));
}

const redrawAll = () => Promise.all([...drawn].map(([node, build]) => draw(node, build)));

/* Accuracy against latency. */

function frontHover(r) {
  const [value, low, high] = r.latency_s;
  const lines = [
    `<b>${label(r.model)}</b>`, label(r.target), `${format.seconds(value)}  (95 %: ${format.interval(low, high)})`,
    `anchored ${format.seconds(r.anchored_s[0])}`, `top-1 ${r.top1.toFixed(2)} %`,
    `${format.count(r.macs)} MACs, ${format.count(r.params)} parameters`,
  ];
  if (isNumber(r.peak_bytes)) lines.push(`peak memory ${format.size(r.peak_bytes)}`);
  if (isNumber(r.energy_j)) lines.push(`energy ${format.joules(r.energy_j)}`);
  if (r.front) lines.push("on the front of its target");
  if (r.caveats.length) lines.push(`caveats: ${r.caveats.map((code) => label(code)).join(", ")}`);
  return lines.join("<br>");
}

// 1, 2 and 5 of every decade in reach; on a narrow range also what lies between.
function logTicks(low, high) {
  const steps = high / low < 5 ? [1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9] : high / low > 2000 ? [1] : [1, 2, 5];
  const ticks = [];
  for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e += 1) {
    for (const s of steps) ticks.push(Number((s * 10 ** e).toPrecision(2)));
  }
  return ticks.filter((v) => v >= low && v <= high);
}

// Names beside the points of the fronts, as many as find room: plotly itself would print them over one another.
function placeNames(points, obstacles, place, box) {
  const buttons = [box[0] - 150, 0, box[0], 20];
  const taken = [buttons, ...obstacles.map(place).map(([x, y]) => [x - 6, y - 6, x + 6, y + 6])];
  const meets = (a, b) => a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3];
  const sides = [
    ["top left", -1, -1], ["bottom right", 1, 1], ["top right", 1, -1], ["bottom left", -1, 1],
    ["middle left", -1, 0], ["middle right", 1, 0],
  ];
  return points.map((r) => {
    const [x, y] = place(r);
    const width = Math.min(r.model.length, 28) * 6.5;
    for (const [position, h, v] of sides) {
      const left = h > 0 ? x + 7 : x - 7 - width;
      const top = v > 0 ? y + 6 : v < 0 ? y - 20 : y - 7;
      const area = [left, top, left + width, top + 14];
      const inside = left >= 0 && area[2] <= box[0] && top >= 0 && area[3] <= box[1];
      if (inside && !taken.some((other) => meets(area, other))) {
        taken.push(area);
        return { r, position };
      }
    }
    return null;
  }).filter(Boolean);
}

function frontChart(data, state) {
  return (t, width, height) => {
    const shown = data.results.filter((r) => r.charted && state.targets.has(r.target) && (r.front || !state.frontOnly));
    const { factor, unit } = axisUnit(shown.map((r) => r.latency_s[0]));
    const xs = shown.flatMap((r) => r.latency_s.filter(isNumber)).map((v) => v / factor).filter((v) => v > 0);
    const ys = shown.map((r) => r.top1);
    const [least, most] = [Math.min(...xs), Math.max(...xs)];
    const range = state.log ? [Math.log10(least / 1.25), Math.log10(most * 1.25)] : [0, most * 1.06];
    const pad = Math.max(1, (Math.max(...ys) - Math.min(...ys)) * 0.09);
    const yRange = [Math.min(...ys) - pad, Math.max(...ys) + pad];
    const size = [Math.max(100, width - 74), Math.max(100, height - 64)];
    const place = (r) => {
      const x = r.latency_s[0] / factor;
      return [((state.log ? Math.log10(x) : x) - range[0]) / (range[1] - range[0]) * size[0],
        (yRange[1] - r.top1) / (yRange[1] - yRange[0]) * size[1]];
    };
    const names = state.names && shown.length ? placeNames(shown.filter((r) => r.front), shown, place, size) : [];
    const traces = data.targets.flatMap((target, i) => {
      const mine = shown.filter((r) => r.target === target);
      return mine.length ? targetTraces(mine, names, t, t.target(i), SYMBOLS[i % SYMBOLS.length], factor) : [];
    });
    const ticks = state.log && shown.length ? { type: "log", tickvals: logTicks(10 ** range[0], 10 ** range[1]) } : { type: "linear" };
    if (ticks.tickvals) ticks.ticktext = ticks.tickvals.map(String);
    return {
      traces,
      layout: layout(t, {
        xaxis: axis(t, `Latency, raw median (${unit})`, shown.length ? { range, ...ticks } : {}),
        yaxis: axis(t, "Published top-1 accuracy (%)", shown.length ? { range: yRange } : {}),
      }),
    };
  };
}

function targetTraces(mine, names, t, colour, symbol, factor) {
  const front = mine.filter((r) => r.front).sort((a, b) => a.latency_s[0] - b.latency_s[0]);
  const x = (rows) => rows.map((r) => r.latency_s[0] / factor);
  const reach = (r, i) => (isNumber(r.latency_s[i]) ? Math.abs(r.latency_s[i] - r.latency_s[0]) / factor : 0);
  const named = names.filter((n) => mine.includes(n.r));
  return [
    { type: "scatter", mode: "lines", x: x(front), y: front.map((r) => r.top1), hoverinfo: "skip",
      line: { color: colour, width: 1.5, shape: "hv" }, opacity: 0.55 },
    { type: "scatter", mode: "markers", x: x(mine), y: mine.map((r) => r.top1), customdata: mine.map((r) => r.id),
      hoverinfo: "text", hovertext: mine.map(frontHover),
      error_x: { type: "data", symmetric: false, array: mine.map((r) => reach(r, 2)), arrayminus: mine.map((r) => reach(r, 1)),
        color: colour, thickness: 1.4, width: 4 },
      marker: { symbol, size: mine.map((r) => (r.front ? 10 : 8)), opacity: 1,
        color: mine.map((r) => (r.front ? colour : t.paper)), line: { color: colour, width: 1.6 } } },
    // The markers are not seen: plotly keeps a text off the marker of its own trace only.
    { type: "scatter", mode: "markers+text", marker: { size: 10, opacity: 0 }, x: x(named.map((n) => n.r)), y: named.map((n) => n.r.top1), hoverinfo: "skip",
      text: named.map((n) => label(middle(n.r.model, 28))), textposition: named.map((n) => n.position),
      textfont: { size: 11.5, color: colour } },
  ];
}

/* One result. */

function layersChart(result) {
  return (t, width) => {
    const l = result.layers;
    const order = l.shown_s.map((v, i) => i).filter((i) => isNumber(l.shown_s[i])).sort((a, b) => l.shown_s[b] - l.shown_s[a]);
    const narrow = width < 700;
    const bars = order.slice(0, MOST_LAYERS).map((i) => ({
      value: l.shown_s[i], kind: KINDS.has(l.kind[i]) ? l.kind[i] : "other",
      words: [middle(l.module[i] || l.name[i], width < 500 ? 18 : 40), width < 500 ? "" : middle(l.op[i], 22)],
      hover: layerHover(l, i),
    }));
    const rest = order.slice(MOST_LAYERS);
    if (rest.length) {
      const value = rest.reduce((sum, i) => sum + l.shown_s[i], 0);
      bars.push({ value, kind: `${rest.length} others`, words: [`${rest.length} other layers`],
        hover: `<b>${rest.length} other layers</b><br>${format.seconds(value)}, ${format.percent(value / l.whole_s)}` });
    }
    if (isNumber(l.residual_s) && l.residual_s >= 0) {
      bars.push({ value: l.residual_s, kind: "residual", words: ["residual"],
        hover: `<b>residual</b><br>un-profiled latency less all layers<br>${format.seconds(l.residual_s)}, ${format.percent(l.residual_s / l.whole_s)}` });
    }
    const { factor, unit } = axisUnit(bars.map((b) => b.value));
    const height = 24 * bars.length + (narrow ? 60 : 92);
    return { traces: barTraces(bars, l, t, factor), layout: layout(t, {
      height, barmode: "overlay", dragmode: false, showlegend: !narrow, // the table of ops below is a key to the kinds, too
      legend: { orientation: "h", x: 0, y: 1, yanchor: "bottom", xref: "container", font: { size: 12, color: t.muted }, itemclick: false, itemdoubleclick: false },
      margin: { l: 16 + MONO_WIDTH * Math.max(...bars.map((b) => b.words.join(" ").length)), r: 58, t: narrow ? 8 : 40, b: 52 },
      xaxis: axis(t, `Latency (${unit})`, { rangemode: "tozero", fixedrange: true }),
      yaxis: axis(t, "", { range: [bars.length - 0.4, -0.6], tickvals: bars.map((b, i) => i), ticktext: bars.map((b) => tickName(b.words)),
        ticks: "", showgrid: false, fixedrange: true, tickfont: { family: t.mono, size: 11, color: t.ink } }),
    }) };
  };
}

const tickName = ([name, op]) => (op === undefined ? `<i>${label(name)}</i>` : `${label(name)} <span style="opacity:.65">${label(op)}</span>`);

function layerHover(l, i) {
  const lines = [`<b>${label(middle(l.name[i], 60))}</b>`];
  if (l.module[i]) lines.push(label(middle(l.module[i], 60)));
  lines.push(`${label(l.op[i])}, ${label(l.kind[i])}`);
  lines.push(`${format.seconds(l.shown_s[i])}, ${isNumber(l.whole_s) ? format.percent(l.shown_s[i] / l.whole_s) : "share n/a"}`);
  if (l.macs && isNumber(l.macs[i])) lines.push(`${format.count(l.macs[i])} MACs`);
  return lines.join("<br>");
}

function barTraces(bars, l, t, factor) {
  const kinds = [...new Set(bars.map((b) => b.kind))];
  return kinds.map((kind) => {
    const at = bars.map((b, i) => i).filter((i) => bars[i].kind === kind);
    const known = KINDS.has(kind);
    return {
      type: "bar", orientation: "h", width: 0.74, name: label(kind), showlegend: known, x: at.map((i) => bars[i].value / factor), y: at,
      hoverinfo: "text", hovertext: at.map((i) => bars[i].hover), textposition: "outside", cliponaxis: false,
      text: at.map((i) => (isNumber(l.whole_s) ? format.percent(bars[i].value / l.whole_s) : "")), textfont: { size: 11, color: t.muted },
      marker: known ? { color: t.kind(kind) }
        : { color: t.grid, line: { color: t.rule, width: 1 }, pattern: { shape: kind === "residual" ? "/" : "", fgcolor: t.rule, size: 5 } },
    };
  });
}

function sessionsChart(result) {
  return (t) => {
    const s = result.sessions;
    const colour = t.target(data.targets.indexOf(result.target));
    const [value, low, high] = result.latency_s;
    const { factor, unit } = axisUnit([...s.median_s, ...s.anchored_s]);
    const hover = (name, column) => column.map((v, i) =>
      `<b>session ${i + 1}</b>, ${name}<br>${format.seconds(v)}${isNumber(s.samples[i]) ? `<br>${s.samples[i]} samples` : ""}${s.started_at[i] ? `<br>${label(s.started_at[i])}` : ""}`);
    const trace = (name, column, marker) => ({
      type: "scatter", mode: "markers", name, x: column.map((v, i) => i + 1), y: column.map((v) => (isNumber(v) ? v / factor : null)),
      hoverinfo: "text", hovertext: hover(name, column), marker: { size: 8, ...marker },
    });
    const across = { type: "rect", xref: "paper", x0: 0, x1: 1, layer: "below", line: { width: 0 } };
    const shapes = [];
    if (isNumber(low) && isNumber(high)) shapes.push({ ...across, y0: low / factor, y1: high / factor, fillcolor: colour, opacity: 0.13 });
    if (isNumber(value)) shapes.push({ ...across, type: "line", y0: value / factor, y1: value / factor, line: { color: colour, width: 1.2 } });
    return {
      traces: [
        trace("raw", s.median_s, { color: colour }),
        trace("anchored", s.anchored_s, { color: t.paper, symbol: "circle", line: { color: colour, width: 1.6 } }),
      ],
      layout: layout(t, {
        shapes, height: 240, dragmode: false, showlegend: true, margin: { l: 62, r: 12, t: 28, b: 44 },
        legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: { size: 12, color: t.muted }, itemclick: false, itemdoubleclick: false },
        xaxis: axis(t, "Session", { dtick: Math.max(1, Math.ceil(s.median_s.length / 10)), fixedrange: true, showgrid: false }),
        yaxis: axis(t, `Median (${unit})`, { fixedrange: true, nticks: 5 }),
      }),
    };
  };
}
