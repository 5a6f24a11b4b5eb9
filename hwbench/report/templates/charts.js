// Every chart is a function of the data and the theme that gives plotly's arguments; `draw` keeps it, so that a change of
// theme, size or a switch draws it again.
const KINDS = new Set(["conv", "conv_transpose", "matmul", "attention", "elementwise", "activation", "norm", "pool", "reduce", "layout", "resize", "other"]);
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "x", "pentagon"];
const symbolOf = (i) => SYMBOLS[(i + Math.floor(i / SYMBOLS.length)) % SYMBOLS.length]; // colours repeat after eight, too
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
const LEGEND = { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: { size: 12 }, itemclick: false, itemdoubleclick: false };

function theme() {
  const style = getComputedStyle(document.documentElement);
  const get = (name) => style.getPropertyValue(name).trim();
  return {
    ink: get("--ink"), muted: get("--muted"), grid: get("--grid"), paper: get("--paper"), panel: get("--panel"), rule: get("--strong-rule"),
    accent: get("--accent"), warn: get("--warn"), sans: get("--sans"), mono: get("--mono"),
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

// A logarithmic axis with plain numbers on it, for values that are drawn from `low` to `high`.
function logAxis(low, high) {
  const tickvals = logTicks(low, high);
  return { type: "log", range: [Math.log10(low), Math.log10(high)], tickvals, ticktext: tickvals.map(String) };
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
