// Sorting, filtering, and the layer tables that are made when they are opened. Text goes in as text, never as markup.
const COLUMNS = [
  ["name", "Layer"], ["op", "Op"], ["latency_s", "Latency", format.seconds], ["share", "Share", format.percent],
  ["module", "Module"], ["macs", "MACs", format.count], ["param_bytes", "Parameters", format.size], ["input_bytes", "In", format.size],
  ["output_bytes", "Out", format.size], ["live_bytes", "Live", format.size], ["energy_j", "Energy", format.joules],
];

function make(tag, properties = {}, children = []) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

const sortKey = (cell) => (cell.dataset.v === undefined ? null : Number(cell.dataset.v));

// Ascending, then descending; a missing value stays at the end either way.
function sortBy(table, index) {
  const head = table.tHead.rows[0].cells[index];
  const numeric = head.classList.contains("num");
  const before = head.getAttribute("aria-sort");
  const direction = before === "ascending" ? -1 : 1;
  for (const cell of table.tHead.rows[0].cells) cell.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
  const keyed = [...table.tBodies[0].rows].map((row, at) => {
    const cell = row.cells[index];
    return { row, at, key: numeric ? sortKey(cell) : cell.textContent.trim() };
  });
  const empty = (key) => key === null || key === "" || key === NA;
  keyed.sort((a, b) => {
    if (empty(a.key) || empty(b.key)) return empty(a.key) - empty(b.key) || a.at - b.at;
    const order = numeric ? a.key - b.key : a.key.localeCompare(b.key, "en", { numeric: true });
    return direction * order || a.at - b.at;
  });
  table.tBodies[0].append(...keyed.map((item) => item.row));
}

function sortable(table) {
  [...table.tHead.rows[0].cells].forEach((cell, index) => {
    const button = cell.querySelector("button");
    if (button) button.addEventListener("click", () => sortBy(table, index));
  });
}

function filterable(input, table, status) {
  const rows = [...table.tBodies[0].rows].map((row) => ({ row, words: row.textContent.toLowerCase() }));
  input.addEventListener("input", () => {
    const wanted = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const { row, words } of rows) {
      row.hidden = !wanted.every((word) => words.includes(word));
      shown += !row.hidden;
    }
    status.textContent = wanted.length ? `${shown} of ${rows.length} results` : `${rows.length} results`;
  });
}

function layerTable(result) {
  const l = result.layers;
  const share = l.ranked && isNumber(l.whole_s) ? l.shown_s.map((v) => (isNumber(v) ? v / l.whole_s : null)) : l.name.map(() => null);
  const columns = COLUMNS.filter(([key]) => key === "share" || l[key]);
  const head = make("tr", {}, columns.map(([, title, show]) => {
    const inside = l.ranked ? [make("button", { type: "button" }, [title, make("span", { className: "arrow" })])] : [title];
    return make("th", { scope: "col", className: show ? "num" : "" }, inside);
  }));
  const body = l.name.map((name, i) => make("tr", {}, columns.map(([key, , show]) => {
    const value = key === "share" ? share[i] : l[key][i];
    const cell = make(key === "name" ? "th" : "td", { className: show ? "num" : "", textContent: show ? show(value) : value || NA });
    if (key === "name") cell.scope = "row";
    if (key === "latency_s" && l.below[i]) Object.assign(cell, { className: "num below", title: "below what the profiler can resolve" });
    if (show && isNumber(value)) cell.dataset.v = value;
    if (cell.textContent === NA) cell.classList.add("na");
    return cell;
  })));
  const caption = make("caption", { className: "hidden", textContent: `Layers of ${result.model} on ${result.target}` });
  const table = make("table", { className: "layers compact" }, [caption, make("thead", {}, [head]), make("tbody", {}, body)]);
  if (l.ranked) sortable(table);
  return table;
}
