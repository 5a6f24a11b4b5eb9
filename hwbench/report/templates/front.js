// Accuracy against a cost: the chart, its switches, and the budget line.
const FRONT_MARGIN = { l: 58, r: 16, t: 12, b: 52 };
const MOST_BARS = 400; // points with an interval drawn; with more of them only the fronts have theirs
const SLIDER_END = 1000;

function frontHover(r) {
  const [value, low, high] = r.latency_s;
  const lines = [
    `<b>${label(middle(r.model, 60))}</b>`, label(r.target), `${format.seconds(value)}  (${r.predicted ? "interval" : "95 %"}: ${format.interval(low, high)})`,
    `top-1 ${r.top1.toFixed(2)} %`, `${format.count(r.macs)} MACs, ${format.count(r.params)} parameters`,
  ];
  if (r.predicted) lines.splice(3, 0, "<b>predicted</b>, not measured");
  else if (isNumber(r.anchored_s[0])) lines.splice(3, 0, `anchored ${format.seconds(r.anchored_s[0])}`);
  if (isNumber(r.peak_bytes)) lines.push(`peak memory ${format.size(r.peak_bytes)}`);
  if (isNumber(r.energy_j[0])) lines.push(`energy ${format.joules(r.energy_j[0])}`);
  if (r.caveats.length) lines.push(`caveats: ${r.caveats.map((code) => label(code)).join(", ")}`);
  return lines.join("<br>");
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
    const cost = COSTS[state.cost];
    const points = shownPoints(data.results, state);
    const fronts = frontsOf(points, state.cost);
    const best = new Set([...fronts.values()].flat());
    const shown = state.frontOnly ? [...best] : points;
    const { factor, unit } = state.unit[state.cost];
    const bars = shown.length <= MOST_BARS ? shown : [...best];
    const xs = [...shown.map((r) => costOf(r, state.cost)), ...bars.flatMap((r) => cost.read(r))].filter((v) => isNumber(v) && v > 0);
    const [least, most] = [xs.reduce((a, b) => Math.min(a, b), Infinity) / factor, xs.reduce((a, b) => Math.max(a, b), 0) / factor];
    const ys = shown.map((r) => r.top1);
    const [lowest, highest] = [ys.reduce((a, b) => Math.min(a, b), Infinity), ys.reduce((a, b) => Math.max(a, b), -Infinity)];
    const pad = Math.max(1, (highest - lowest) * 0.09);
    const range = state.log ? [Math.log10(least / 1.25), Math.log10(most * 1.25)] : [0, most * 1.06];
    const size = [Math.max(100, width - FRONT_MARGIN.l - FRONT_MARGIN.r), Math.max(100, height - FRONT_MARGIN.t - FRONT_MARGIN.b)];
    const place = (r) => {
      const x = costOf(r, state.cost) / factor;
      return [((state.log ? Math.log10(x) : x) - range[0]) / (range[1] - range[0]) * size[0],
        (highest + pad - r.top1) / (highest - lowest + 2 * pad) * size[1]];
    };
    const obstacles = shown.length > MOST_BARS ? [...best] : shown;
    const names = state.names && shown.length ? placeNames([...best], obstacles, place, size) : [];
    const traces = data.targets.flatMap((target, i) => {
      const mine = shown.filter((r) => r.target === target);
      return mine.length ? targetTraces({ mine, best, bars, names, t, factor, cost, colour: t.target(i), symbol: symbolOf(i) }) : [];
    });
    const xaxis = !shown.length ? {} : state.log ? logAxis(10 ** range[0], 10 ** range[1]) : { type: "linear", range };
    return { traces, layout: layout(t, {
      margin: FRONT_MARGIN,
      xaxis: axis(t, `${cost.title} (${unit})`, xaxis),
      yaxis: axis(t, "Top-1 accuracy (%)", shown.length ? { range: [lowest - pad, highest + pad] } : {}),
    }) };
  };
}

// Four traces a target with one style each: plotly is quick with those, also where there are thousands of points.
function targetTraces({ mine, best, bars, names, t, factor, cost, colour, symbol }) {
  const x = (rows) => rows.map((r) => cost.read(r)[0] / factor);
  const reach = (r, i) => (isNumber(cost.read(r)[i]) ? Math.abs(cost.read(r)[i] - cost.read(r)[0]) / factor : 0);
  const front = mine.filter((r) => best.has(r)).sort((a, b) => cost.read(a)[0] - cost.read(b)[0]);
  const barred = new Set(bars);
  const named = names.filter((n) => n.r.target === mine[0].target);
  const marks = (rows, marker) => (!rows.length ? [] : [{
    type: "scatter", mode: "markers", x: x(rows), y: rows.map((r) => r.top1), customdata: rows.map((r) => r.id), hoverinfo: "text",
    hovertext: rows.map(frontHover), marker: { opacity: 1, line: { color: colour, width: 1.6 }, ...marker },
    ...(rows.some((r) => barred.has(r)) ? { error_x: { type: "data", symmetric: false, color: colour, thickness: 1.4, width: 4,
      array: rows.map((r) => reach(r, 2)), arrayminus: rows.map((r) => reach(r, 1)) } } : {}),
  }]);
  const small = mine.length > 1500 ? 5 : 8;
  const rest = mine.filter((r) => !best.has(r));
  return [
    { type: "scatter", mode: "lines", x: x(front), y: front.map((r) => r.top1), hoverinfo: "skip",
      line: { color: colour, width: 1.5, shape: "hv" }, opacity: 0.55 },
    ...marks(rest.filter((r) => r.predicted), { symbol: "x-thin", size: small - 2, line: { color: colour, width: 1.2 } }),
    ...marks(rest.filter((r) => !r.predicted), { symbol, size: small, color: t.paper }),
    ...marks(front.filter((r) => r.predicted), { symbol: "x-thin", size: 8, line: { color: colour, width: 2.6 } }),
    ...marks(front.filter((r) => !r.predicted), { symbol, size: 10, color: colour }),
    // The markers are not seen: plotly keeps a text off the marker of its own trace only.
    { type: "scatter", mode: "markers+text", marker: { size: 10, opacity: 0 }, x: x(named.map((n) => n.r)), y: named.map((n) => n.r.top1), hoverinfo: "skip",
      text: named.map((n) => label(middle(n.r.model, 28))), textposition: named.map((n) => n.position),
      textfont: { size: 11.5, color: colour } },
  ];
}

/* What the switches and the budget do to the rest of the section. */

function frontTable(target, rows, state) {
  const cost = COSTS[state.cost];
  const cell = (tag, more, children) => make(tag, more, children);
  const body = rows.map((r) => {
    const name = make("bdi", { textContent: r.model });
    return make("tr", {}, [
      cell("th", { scope: "row" }, [r.open ? make("a", { href: `#${r.id}` }, [name]) : name, ...(r.predicted ? [make("small", { textContent: "predicted" })] : [])]),
      cell("td", { className: "num", textContent: cost.show(costOf(r, state.cost)) }, []),
      cell("td", { className: "num", textContent: `${r.top1.toFixed(2)} %` }, []),
    ]);
  });
  const head = ["Model", cost.short, "Top-1"].map((text, i) => make("th", { scope: "col", className: i ? "num" : "", textContent: text }));
  const swatch = make("span", { className: `swatch c${data.targets.indexOf(target) % 8}`, ariaHidden: "true" });
  const caption = make("caption", {}, [swatch, " Front on ", make("bdi", { textContent: target })]);
  const table = make("table", { className: "compact" }, [caption, make("thead", {}, [make("tr", {}, head)]), make("tbody", {}, body)]);
  return make("div", { className: "scroll", role: "region", tabIndex: 0, ariaLabel: `Front on ${target}` }, [table]);
}

function limitWords(state) {
  const words = Object.entries(state.limits).filter(([, limit]) => isNumber(limit))
    .map(([cost, limit]) => `${COSTS[cost].short.toLowerCase()} at most ${COSTS[cost].show(limit)}`);
  return words.length ? words.join(", ") : "no limit";
}

function tellFront(state, parts) {
  const shown = shownPoints(data.results, state);
  const within = withinBudget(shown, state);
  const all = data.results.filter((r) => hasCost(r, state.cost)).length;
  const best = within.reduce((a, b) => (!a || b.top1 > a.top1 || (b.top1 === a.top1 && costOf(b, state.cost) < costOf(a, state.cost)) ? b : a), null);
  const pick = best ? ` Most accurate: ${best.model}, ${best.top1.toFixed(2)} % at ${COSTS[state.cost].show(costOf(best, state.cost))} on ${best.target}.` : "";
  parts.status.textContent = `${within.length} of ${all} points with ${limitWords(state)}.${pick}`;
  const fronts = frontsOf(within, state.cost);
  parts.tables.replaceChildren(...data.targets.filter((target) => fronts.has(target)).map((target) => frontTable(target, fronts.get(target), state)));
  state.exported = { front: [...fronts.values()].flat(), points: within };
}

/* The budget line is an element over the chart, so that moving it draws nothing again. */

function startBudget(node, state, parts, changed) {
  const { line, beyond, slider, said } = parts;
  const span = () => {
    const range = node.layout && node.layout.xaxis && node.layout.xaxis.range;
    return range ? range.map(Number) : [0, 1];
  };
  const factor = () => state.unit[state.cost].factor;
  const toAxis = (value) => (state.log ? Math.log10(value / factor()) : value / factor());
  const toValue = (x) => Number(((state.log ? 10 ** x : x) * factor()).toPrecision(3));
  const place = (moved) => {
    const limit = state.limits[state.cost];
    const [from, to] = span();
    const share = isNumber(limit) ? Math.min(1, Math.max(0, (toAxis(limit) - from) / (to - from))) : 1;
    const width = (node.layout.width || node.clientWidth) - FRONT_MARGIN.l - FRONT_MARGIN.r; // paper has its own width
    line.style.left = `${FRONT_MARGIN.l + share * width}px`;
    beyond.style.left = line.style.left;
    beyond.style.width = `${(1 - share) * width}px`;
    line.classList.toggle("off", !isNumber(limit));
    said.textContent = isNumber(limit) ? `≤ ${COSTS[state.cost].show(limit, 3)}` : "";
    said.classList.toggle("left", share > 0.8);
    if (moved !== slider) slider.value = Math.round(share * SLIDER_END); // else a rounded limit would hold it back
    slider.setAttribute("aria-valuetext", isNumber(limit) ? `at most ${COSTS[state.cost].show(limit)}` : "no limit");
  };
  const set = (share, moved) => {
    const [from, to] = span();
    state.limits[state.cost] = share >= 1 ? null : Math.max(toValue(from + Math.max(0, share) * (to - from)), Number.MIN_VALUE);
    place(moved);
    changed();
  };
  slider.addEventListener("input", () => set(slider.value / SLIDER_END, slider));
  line.addEventListener("pointerdown", (event) => {
    event.preventDefault();
    line.setPointerCapture(event.pointerId);
  });
  line.addEventListener("pointermove", (event) => {
    if (!line.hasPointerCapture(event.pointerId)) return;
    const box = node.getBoundingClientRect();
    set((event.clientX - box.left - FRONT_MARGIN.l) / (box.width - FRONT_MARGIN.l - FRONT_MARGIN.r));
  });
  node.on("plotly_afterplot", () => place());
  new ResizeObserver(() => place()).observe(node);
  return () => place();
}

async function startFront(node) {
  const find = (id) => document.getElementById(id);
  const usable = Object.keys(COSTS).filter((cost) => data.results.some((r) => hasCost(r, cost)));
  const state = { cost: usable[0], limits: {}, hidden: { target: new Set(), family: new Set(), precision: new Set(), origin: new Set() }, unit: {} };
  for (const cost of usable) state.unit[cost] = axisUnit(data.results.filter((r) => hasCost(r, cost)).map((r) => costOf(r, cost)), COSTS[cost].steps);
  const parts = { status: find("front-status"), tables: find("fronts"), line: find("budget-line"), beyond: find("budget-beyond"),
    slider: find("budget"), said: find("budget-said") };
  const toggles = { log: find("log-x"), frontOnly: find("front-only"), names: find("front-names") };
  const fields = [...document.querySelectorAll("[data-limit]")];
  const boxes = [...document.querySelectorAll("[data-hide]")];
  const spread = () => {
    const values = data.results.filter((r) => hasCost(r, state.cost)).map((r) => costOf(r, state.cost));
    return values.reduce((a, b) => Math.max(a, b)) / values.reduce((a, b) => Math.min(a, b));
  };
  toggles.log.checked = spread() > 6;
  let place = () => {};
  const tell = () => tellFront(state, parts);
  const fill = () => {
    for (const field of fields) {
      const limit = state.limits[field.dataset.limit];
      field.value = isNumber(limit) ? Number((limit / state.unit[field.dataset.limit].factor).toPrecision(4)) : "";
    }
  };
  const update = async () => {
    for (const [key, box] of Object.entries(toggles)) state[key] = box.checked;
    for (const hidden of Object.values(state.hidden)) hidden.clear();
    for (const box of boxes) if (!box.checked) state.hidden[box.dataset.hide].add(box.value);
    await draw(node, frontChart(data, state));
    place();
    tell();
  };
  for (const box of [...boxes, ...Object.values(toggles)]) box.addEventListener("change", update);
  find("cost").addEventListener("change", (event) => {
    state.cost = event.target.value;
    toggles.log.checked = spread() > 6;
    update();
  });
  for (const field of fields) {
    find(`unit-${field.dataset.limit}`).textContent = state.unit[field.dataset.limit].unit;
    field.addEventListener("input", () => {
      const value = field.valueAsNumber;
      state.limits[field.dataset.limit] = value > 0 ? value * state.unit[field.dataset.limit].factor : null;
      if (field.dataset.limit === state.cost) { place(); tell(); } else update();
    });
  }
  for (const button of document.querySelectorAll("[data-families]")) {
    button.addEventListener("click", () => {
      for (const box of boxes) if (box.dataset.hide === "family") box.checked = button.dataset.families === "all";
      update();
    });
  }
  find("save-front").addEventListener("click", () => save("front.csv", csvOf(state.exported.front)));
  find("save-points").addEventListener("click", () => save("points.csv", csvOf(state.exported.points)));
  await update();
  place = startBudget(node, state, parts, () => { fill(); tell(); });
  place();
  node.on("plotly_click", (event) => {
    const id = event.points[0] && event.points[0].customdata;
    if (id && byId.get(id).open) show(id);
  });
}
