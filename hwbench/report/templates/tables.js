// Sorting, filtering, and the layer tables that are made when they are opened. Text goes in as text, never as markup.
const COLUMNS = [
  ["name", "Layer"], ["op", "Op"], ["latency_s", "Latency", format.seconds], ["share", "Share", format.percent],
  ["module", "Module"], ["macs", "MACs", format.count], ["param_bytes", "Parameters", format.size], ["input_bytes", "In", format.size],
  ["output_bytes", "Out", format.size], ["live_bytes", "Live", format.size], ["sources", "Holds", format.count], ["energy_j", "Energy", format.joules],
];

function make(tag, properties = {}, children = []) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

const sortKey = (cell) => (cell.dataset.v === undefined ? null : Number(cell.dataset.v));

// Rows in the order of a column and the direction for its head; a missing value stays at the end either way.
function sorted(rows, index, numeric, direction) {
  const keyed = rows.map((row, at) => {
    const cell = row.cells[index];
    const name = cell.querySelector("bdi") || cell; // without the star and the family beside it
    return { row, at, key: numeric ? sortKey(cell) : name.textContent.trim() };
  });
  const empty = (key) => key === null || key === "" || key === NA;
  const words = new Intl.Collator("en", { numeric: true });
  keyed.sort((a, b) => {
    if (empty(a.key) || empty(b.key)) return empty(a.key) - empty(b.key) || a.at - b.at;
    const order = numeric ? a.key - b.key : words.compare(a.key, b.key);
    return direction * order || a.at - b.at;
  });
  return keyed.map((item) => item.row);
}

// Ascending, then descending; the head says which.
function turn(table, index) {
  const heads = table.tHead.rows[0].cells;
  const direction = heads[index].getAttribute("aria-sort") === "ascending" ? -1 : 1;
  for (const cell of heads) cell.removeAttribute("aria-sort");
  heads[index].setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
  return [heads[index].classList.contains("num"), direction];
}

const sortBy = (table, index) => table.tBodies[0].append(...sorted([...table.tBodies[0].rows], index, ...turn(table, index)));

function sortable(table, act) {
  [...table.tHead.rows[0].cells].forEach((cell, index) => {
    const button = cell.querySelector("button");
    if (button) button.addEventListener("click", () => act(index));
  });
}

// The table of results: all rows are sorted and filtered, a part of them stands in the page, and a button brings more.
function startResults(table) {
  const [filter, status, more] = ["filter", "filter-count", "more-results"].map((id) => document.getElementById(id));
  const body = table.tBodies[0];
  const step = body.rows.length;
  const total = data.results.length;
  let rows = [...body.rows];
  // The others are escaped markup from the same template; made into rows when somebody looks for them.
  const all = () => {
    if (rows.length === total) return;
    const others = make("table", { innerHTML: `<tbody>${document.getElementById("other-results").textContent}</tbody>` });
    rows = [...rows, ...others.tBodies[0].rows];
  };
  const texts = new Map();
  const words = (row) => {
    if (!texts.has(row)) texts.set(row, row.textContent.toLowerCase());
    return texts.get(row);
  };
  let room = step;
  const show = () => {
    const wanted = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const found = rows.filter((row) => wanted.every((word) => words(row).includes(word)));
    body.replaceChildren(...found.slice(0, room));
    status.textContent = wanted.length ? `${found.length} of ${total} results` : `${total} results`;
    const count = wanted.length ? found.length : total;
    more.hidden = count <= room;
    more.textContent = `Show more of ${count} (${Math.min(room, count)} are shown)`;
  };
  filter.addEventListener("input", () => { all(); room = step; show(); });
  more.addEventListener("click", () => { all(); room *= 3; show(); });
  sortable(table, (index) => { all(); rows = sorted(rows, index, ...turn(table, index)); show(); });
  show();
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
  if (l.ranked) sortable(table, (index) => sortBy(table, index));
  return table;
}
