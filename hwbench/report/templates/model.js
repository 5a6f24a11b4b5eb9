// The charts of one result: layers, roofline, memory, sessions. Each takes the result and gives a function of the theme.
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
      legend: { ...LEGEND, y: 1, xref: "container" },
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

// Multiply-accumulates over the least bytes a kernel must fetch and put, and what it reached of the target's best rates.
function rooflineChart(result) {
  return (t) => {
    const l = result.layers;
    const of = (key, i) => (l[key] && isNumber(l[key][i]) ? l[key][i] : 0);
    const points = l.name.map((_, i) => i).filter((i) => isNumber(l.shown_s[i]) && l.shown_s[i] > 0 && !l.below[i] && of("macs", i) > 0).map((i) => {
      const bytes = of("param_bytes", i) + of("input_bytes", i) + of("output_bytes", i);
      return { i, bytes, x: of("macs", i) / bytes, y: of("macs", i) / l.shown_s[i], kind: KINDS.has(l.kind[i]) ? l.kind[i] : "other", time: l.shown_s[i] };
    }).filter((p) => p.bytes > 0);
    const longest = points.reduce((most, p) => Math.max(most, p.time), 0);
    const [peak, bandwidth] = data.ceilings[result.target] || [0, 0];
    const [roof, near, far] = data.roofs[result.target] || [0, 0, 0];
    const { factor, unit } = axisUnit([peak, roof, ...points.map((p) => p.y)], COUNTS);
    const xs = points.map((p) => p.x).concat(peak && bandwidth ? [peak / bandwidth] : [], roof ? [roof / near, roof / far] : []);
    const ys = points.map((p) => p.y / factor).concat(peak ? [peak / factor] : [], roof ? [roof / factor] : []);
    const [left, right] = [Math.min(...xs) / 2, Math.max(...xs) * 2];
    const traces = [...new Set(points.map((p) => p.kind))].map((kind) => {
      const mine = points.filter((p) => p.kind === kind);
      return { type: "scatter", mode: "markers", name: label(kind), x: mine.map((p) => p.x), y: mine.map((p) => p.y / factor), hoverinfo: "text",
        hovertext: mine.map((p) => `${layerHover(l, p.i)}<br>${p.x.toFixed(1)} MACs a byte, ${format.count(p.y)} MACs/s`),
        marker: { color: t.kind(kind), opacity: 0.8, size: mine.map((p) => 5 + 17 * Math.sqrt(p.time / longest)), line: { color: t.paper, width: 1 } } };
    });
    if (peak && bandwidth) {
      traces.unshift({ type: "scatter", mode: "lines", name: "best seen on this target", hoverinfo: "text", x: [left, peak / bandwidth, right],
        y: [left * bandwidth / factor, peak / factor, peak / factor], line: { color: t.rule, width: 1.5, dash: "dash" },
        hovertext: [`${format.size(bandwidth)}/s at best`, `${format.count(peak)} MACs/s at best`, `${format.count(peak)} MACs/s at best`] });
      ys.push(left * bandwidth / factor);
    }
    for (const [name, rate] of roof ? [["probed, beside the core", near], ["probed, from memory", far]] : []) {
      traces.unshift({ type: "scatter", mode: "lines", name, hoverinfo: "text", x: [left, roof / rate, right],
        y: [left * rate / factor, roof / factor, roof / factor], line: { color: t.rule, width: rate === far ? 2 : 1 },
        hovertext: [`${format.size(rate)}/s`, `${format.count(roof)} MACs/s`, `${format.count(roof)} MACs/s`] });
      ys.push(left * rate / factor);
    }
    return { traces, layout: layout(t, {
      height: 340, dragmode: false, showlegend: true, legend: LEGEND, margin: { l: 62, r: 12, t: 44, b: 48 },
      xaxis: axis(t, "MACs per byte moved", { ...logAxis(left, right), fixedrange: true }),
      yaxis: axis(t, `${unit}MACs/s`, { ...logAxis(Math.min(...ys) / 1.6, Math.max(...ys) * 1.6), fixedrange: true }),
    }) };
  };
}

function memoryChart(result) {
  return (t) => {
    const l = result.layers;
    const colour = t.target(data.targets.indexOf(result.target));
    const { factor, unit } = axisUnit(l.live_bytes, SIZES);
    const most = l.live_bytes.reduce((at, v, i) => (isNumber(v) && (at < 0 || v > l.live_bytes[at]) ? i : at), -1);
    const hover = l.live_bytes.map((v, i) => `<b>${label(middle(l.module[i] || l.name[i], 60))}</b><br>layer ${i + 1}, ${label(l.op[i])}<br>${format.size(v)} live`);
    const peak = { x: most + 1, y: l.live_bytes[most] / factor, text: format.size(l.live_bytes[most]), showarrow: false, yshift: 9,
      xanchor: most > l.name.length / 2 ? "right" : "left", font: { size: 12, color: t.ink } };
    return {
      traces: [{ type: "scatter", mode: "lines", x: l.live_bytes.map((_, i) => i + 1), y: l.live_bytes.map((v) => (isNumber(v) ? v / factor : null)),
        line: { color: colour, width: 1.6, shape: "hvh" }, fill: "tozeroy", fillcolor: `${colour}26`, hoverinfo: "text", hovertext: hover }],
      layout: layout(t, {
        height: 240, dragmode: false, margin: { l: 62, r: 12, t: 28, b: 44 }, annotations: [peak],
        xaxis: axis(t, "Layer, in executed order", { fixedrange: true, showgrid: false, range: [0.5, l.name.length + 0.5] }),
        yaxis: axis(t, `Live (${unit})`, { fixedrange: true, nticks: 5, rangemode: "tozero" }),
      }),
    };
  };
}

function sessionsChart(result) {
  return (t) => {
    const s = result.sessions;
    const colour = t.target(data.targets.indexOf(result.target));
    const [value, low, high] = result.latency_s;
    const { factor, unit } = axisUnit([...s.median_s, ...s.anchored_s]);
    const scale = (column) => column.map((v) => (isNumber(v) ? v / factor : null));
    const hover = (name, column) => column.map((v, i) =>
      `<b>session ${i + 1}</b>, ${name}<br>${format.seconds(v)}${isNumber(s.samples[i]) ? `<br>${s.samples[i]} samples` : ""}${s.started_at[i] ? `<br>${label(s.started_at[i])}` : ""}`);
    const trace = (name, column, marker) => ({
      type: "scatter", mode: "markers", name, x: column.map((v, i) => i + 1), y: scale(column),
      hoverinfo: "text", hovertext: hover(name, column), marker: { size: 9, ...marker },
    });
    // The blocks of session i lie side by side around i, in the order they ran.
    const at = (i, b) => i + 0.6 + 0.8 * (b + 0.5) / s.blocks_s[i].length;
    const blocks = s.blocks_s.flatMap((session, i) => session.map((v, b) => ({ x: at(i, b), v, text: `session ${i + 1}, block ${b + 1}<br>${format.seconds(v)}` })));
    const changes = s.changes.flatMap((session, i) => session.map((b) => (at(i, b - 1) + at(i, b)) / 2));
    const across = { type: "rect", xref: "paper", x0: 0, x1: 1, layer: "below", line: { width: 0 } };
    const shapes = changes.map((x) => ({ type: "line", yref: "paper", x0: x, x1: x, y0: 0, y1: 1, line: { color: t.warn, width: 1.4, dash: "dash" } }));
    if (isNumber(low) && isNumber(high)) shapes.push({ ...across, y0: low / factor, y1: high / factor, fillcolor: colour, opacity: 0.13 });
    if (isNumber(value)) shapes.push({ ...across, type: "line", y0: value / factor, y1: value / factor, line: { color: colour, width: 1.2 } });
    const traces = [
      trace("raw", s.median_s, { color: colour }),
      trace("anchored", s.anchored_s, { color: t.paper, symbol: "circle", line: { color: colour, width: 1.6 } }),
    ];
    if (blocks.length) {
      traces.unshift({ type: "scatter", mode: "markers", name: "blocks", x: blocks.map((b) => b.x), y: blocks.map((b) => b.v / factor), hoverinfo: "text",
        hovertext: blocks.map((b) => b.text), marker: { size: 4, color: t.muted, opacity: 0.7 } });
    }
    return { traces, layout: layout(t, {
      shapes, height: 240, dragmode: false, showlegend: true, legend: LEGEND, margin: { l: 62, r: 12, t: 28, b: 44 },
      xaxis: axis(t, "Session", { dtick: Math.max(1, Math.ceil(s.median_s.length / 10)), fixedrange: true, showgrid: false, range: [0.4, s.median_s.length + 0.6] }),
      yaxis: axis(t, `Median (${unit})`, { fixedrange: true, nticks: 5 }),
    }) };
  };
}
