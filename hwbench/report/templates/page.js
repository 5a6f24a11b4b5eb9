const data = JSON.parse(document.getElementById("data").textContent);
const byId = new Map(data.results.map((result) => [result.id, result]));
const plots = typeof Plotly !== "undefined";

// Charts of a model are drawn when its section is opened for the first time: hundreds of them would stall the page.
async function openResult(details) {
  const result = byId.get(details.id);
  if (!result || details.dataset.drawn) return;
  details.dataset.drawn = "pending";
  const charts = { layers: layersChart, sessions: sessionsChart };
  for (const node of details.querySelectorAll("[data-chart]")) await draw(node, charts[node.dataset.chart](result));
  details.dataset.drawn = "true";
}

function openFromHash() {
  const target = document.getElementById(location.hash.slice(1));
  if (target && target.matches("details.result")) {
    target.open = true;
    target.scrollIntoView();
  }
}

function show(id) {
  if (location.hash === `#${id}`) openFromHash();
  else location.hash = id;
}

function startFront(node) {
  const charted = data.results.filter((r) => r.charted);
  const values = charted.map((r) => r.latency_s[0]);
  const boxes = [...document.querySelectorAll("[data-target]")];
  const find = (id) => document.getElementById(id);
  const toggles = { log: find("log-x"), frontOnly: find("front-only"), names: find("front-names") };
  toggles.log.checked = Math.max(...values) / Math.min(...values) > 6;
  const state = {};
  const update = () => {
    state.targets = new Set(boxes.filter((box) => box.checked).map((box) => box.dataset.target));
    for (const [key, box] of Object.entries(toggles)) state[key] = box.checked;
    return draw(node, frontChart(data, state));
  };
  for (const box of [...boxes, ...Object.values(toggles)]) box.addEventListener("change", update);
  return update().then(() => {
    node.on("plotly_click", (event) => {
      const id = event.points[0] && event.points[0].customdata;
      if (id) show(id);
    });
  });
}

function startNavigation() {
  const links = new Map([...document.querySelectorAll("nav a")].map((a) => [a.hash.slice(1), a]));
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      for (const [id, link] of links) {
        link.classList.toggle("here", id === entry.target.id);
        if (id === entry.target.id) link.setAttribute("aria-current", "true");
        else link.removeAttribute("aria-current");
      }
    }
  }, { rootMargin: "-15% 0px -75% 0px" });
  for (const id of links.keys()) {
    const section = document.getElementById(id);
    if (section) seen.observe(section);
  }
}

const PAPER_WIDTH = 650; // of A4 between the margins of page.css, in CSS pixels

// Paper is light and narrow whatever the screen is.
function startPrinting() {
  addEventListener("beforeprint", () => {
    document.documentElement.dataset.print = "";
    for (const [node, build] of drawn) {
      const width = Math.min(node.clientWidth, PAPER_WIDTH);
      const { traces, layout: shape } = build(theme(), width, node.clientHeight);
      Plotly.react(node, traces, { ...shape, autosize: false, width }, { ...CONFIG, displayModeBar: false });
    }
  });
  addEventListener("afterprint", () => {
    delete document.documentElement.dataset.print;
    redrawAll();
  });
}

async function start() {
  for (const table of document.querySelectorAll("table.sortable")) sortable(table);
  const filter = document.getElementById("filter");
  if (filter) filterable(filter, document.getElementById("results-table"), document.getElementById("filter-count"));
  for (const details of document.querySelectorAll("details.result")) {
    details.addEventListener("toggle", () => details.open && plots && openResult(details));
  }
  for (const details of document.querySelectorAll("details[data-layers]")) {
    details.addEventListener("toggle", () => {
      const holder = details.querySelector(".scroll");
      if (details.open && !holder.firstChild) holder.append(layerTable(byId.get(details.closest("details.result").id)));
    });
  }
  startNavigation();
  startPrinting();
  addEventListener("hashchange", openFromHash);
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[href^='#r']");
    if (link && byId.has(link.hash.slice(1))) show(link.hash.slice(1));
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redrawAll);
  const front = document.getElementById("front-chart");
  if (front && plots) await startFront(front);
  openFromHash();
  document.documentElement.dataset.ready = "true";
}

start();
