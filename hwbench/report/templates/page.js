const data = JSON.parse(document.getElementById("data").textContent);
const byId = new Map(data.results.map((result) => [result.id, result]));
const plots = typeof Plotly !== "undefined";

// Charts of a model are drawn when its section is opened for the first time: hundreds of them would stall the page.
async function openResult(details) {
  const result = byId.get(details.id);
  if (!result || details.dataset.drawn) return;
  details.dataset.drawn = "pending";
  const charts = { layers: layersChart, roofline: rooflineChart, memory: memoryChart, sessions: sessionsChart };
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

// Charts further down wait until the browser has nothing else to do: the front is what a reader sees first.
async function startPanels() {
  const charts = { heat: () => heatChart(data.across), scatter: (node) => scatterChart(data.scatters.find((s) => s.id === node.dataset.panel)) };
  const idle = () => new Promise((go) => (window.requestIdleCallback ? requestIdleCallback(go, { timeout: 2000 }) : setTimeout(go, 50)));
  for (const node of document.querySelectorAll("[data-panel-chart]")) {
    await idle();
    await draw(node, charts[node.dataset.panelChart](node));
  }
}

const PAPER_HEIGHT = 420; // of a chart that does not say how high it is
const PAPER_WIDTH = 650; // of A4 between the margins of page.css, in CSS pixels

// Paper is light and narrow whatever the screen is.
function startPrinting() {
  addEventListener("beforeprint", () => {
    document.documentElement.dataset.print = "";
    for (const [node, build] of drawn) {
      const width = Math.min(node.clientWidth, PAPER_WIDTH);
      const height = Math.min(node.clientHeight, PAPER_HEIGHT);
      const { traces, layout: shape } = build(theme(), width, height);
      Plotly.react(node, traces, { height, ...shape, autosize: false, width }, { ...CONFIG, displayModeBar: false });
    }
  });
  addEventListener("afterprint", () => {
    delete document.documentElement.dataset.print;
    redrawAll();
  });
}

async function start() {
  const front = document.getElementById("front-chart");
  if (front && plots) {
    performance.mark("front-start");
    await startFront(front);
    performance.measure("front", "front-start");
  }
  const results = document.getElementById("results-table");
  if (results) startResults(results);
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
  openFromHash();
  document.documentElement.dataset.ready = "true";
  if (plots) await startPanels();
}

start();
