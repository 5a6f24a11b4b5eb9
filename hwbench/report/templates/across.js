// Targets against each other, and predictions against measurements.
const MOST_GROUPS = 8;

function heatChart(heat) {
  return (t, width) => {
    const narrow = width < 600;
    const words = heat.latency_s.map((row) => row.map((v) => (isNumber(v) ? format.seconds(v, 3) : "")));
    const hover = heat.models.map((model, i) => heat.targets.map((target, j) => (isNumber(heat.ratio[i][j])
      ? `<b>${label(model)}</b><br>${label(target)}<br>${format.seconds(heat.latency_s[i][j])}<br>${heat.ratio[i][j].toFixed(2)} × what both averages say` : "not measured")));
    const room = narrow ? 14 : Math.max(14, Math.floor((width - 260) / heat.targets.length / 7));
    const longest = heat.models.reduce((most, model) => Math.max(most, middle(model, narrow ? 16 : 34).length), 0);
    return { traces: [{
      type: "heatmap", x: heat.targets.map((_, j) => j), y: heat.models.map((_, i) => i), hoverinfo: "text", hovertext: hover, xgap: 2, ygap: 2,
      z: heat.ratio.map((row) => row.map((v) => (isNumber(v) ? Math.log2(v) : null))), zmid: 0, zmin: -1, zmax: 1,
      colorscale: [[0, t.target(0)], [0.5, t.panel], [1, t.target(1)]], showscale: !narrow, text: words, texttemplate: narrow ? "" : "%{text}", textfont: { size: 11 },
      colorbar: { thickness: 10, len: 1, outlinewidth: 0, tickvals: [-1, -0.5, 0, 0.5, 1], ticktext: ["½ ×", "0.7 ×", "1 ×", "1.4 ×", "2 ×"], tickfont: { size: 11, color: t.muted } },
    }], layout: layout(t, {
      height: 24 * heat.models.length + (narrow ? 84 : 40), dragmode: false, margin: { l: 12 + MONO_WIDTH * longest, r: 12, t: 8, b: narrow ? 76 : 32 },
      xaxis: axis(t, "", { tickvals: heat.targets.map((_, j) => j), ticktext: heat.targets.map((x) => label(middle(x, room))), fixedrange: true, showgrid: false, showline: false, ticks: "", tickangle: narrow ? -35 : 0 }),
      yaxis: axis(t, "", { tickvals: heat.models.map((_, i) => i), ticktext: heat.models.map((x) => label(middle(x, narrow ? 16 : 34))), fixedrange: true, autorange: "reversed", showgrid: false, showline: false, ticks: "", tickfont: { family: t.mono, size: 11, color: t.ink } }),
    }) };
  };
}

function scatterChart(s) {
  return (t) => {
    const { factor, unit } = axisUnit([...s.measured_s, ...s.predicted_s]);
    const all = [...s.measured_s, ...s.predicted_s].map((v) => v / factor);
    const [least, most] = [all.reduce((a, b) => Math.min(a, b)), all.reduce((a, b) => Math.max(a, b))];
    const log = most / least > 6;
    const pad = log ? [least / 1.15, most * 1.15] : [Math.max(0, least - 0.06 * (most - least)), most + 0.06 * (most - least)];
    const ends = log ? logAxis(...pad) : { range: pad };
    const names = [...new Set(s.group)];
    const groups = names.length > MOST_GROUPS ? [null] : names;
    const line = (by, dash) => ({ type: "scatter", mode: "lines", x: pad, y: pad.map((v) => v * by), hoverinfo: "skip", showlegend: false, line: { color: t.rule, width: 1.2, dash } });
    const hover = (i) => `<b>${label(middle(s.name[i], 60))}</b>${s.group[i] ? `<br>${label(s.group[i])}` : ""}<br>measured ${format.seconds(s.measured_s[i])}<br>predicted ${format.seconds(s.predicted_s[i])}<br>${format.percent(s.predicted_s[i] / s.measured_s[i] - 1)}`;
    const traces = groups.map((group, g) => {
      const at = s.name.map((_, i) => i).filter((i) => group === null || s.group[i] === group);
      const reach = (key) => at.map((i) => (isNumber(s[key][i]) ? Math.abs(s[key][i] - s.predicted_s[i]) / factor : 0));
      const bars = at.some((i) => isNumber(s.low_s[i])) ? { error_y: { type: "data", symmetric: false, array: reach("high_s"), arrayminus: reach("low_s"), color: t.target(g), thickness: 1, width: 0 } } : {};
      return { type: "scatter", mode: "markers", name: label(group || "networks"), x: at.map((i) => s.measured_s[i] / factor), y: at.map((i) => s.predicted_s[i] / factor),
        hoverinfo: "text", hovertext: at.map(hover), marker: { color: t.target(g), symbol: SYMBOLS[g % SYMBOLS.length], size: 7, opacity: 0.8 }, ...bars };
    });
    return { traces: [line(1, "solid"), line(1.1, "dot"), line(0.9, "dot"), ...traces], layout: layout(t, {
      height: 380, dragmode: false, showlegend: groups.length > 1, legend: LEGEND, margin: { l: 62, r: 12, t: groups.length > 1 ? 44 : 12, b: 48 },
      xaxis: axis(t, `Measured (${unit})`, { ...ends, fixedrange: true }), yaxis: axis(t, `Predicted (${unit})`, { ...ends, fixedrange: true }),
    }) };
  };
}
