// The burst in one picture: a row per way, three panels each, every panel of a column on one scale.
// Figures are text beside the shapes, so shapes may stretch with the page.

import { element, figure, svg } from "./dom.js";

const WIDTH = 1000; // of the viewBox, which is stretched
const HEIGHT = 64;

/** `rows`: [{way, figures}], those that are done. */
export function drawChart(node, rows) {
  const scale = {
    throughput: Math.max(...rows.map(({ figures }) => figures.throughput)),
    seconds: Math.max(...rows.map(({ figures }) => figures.seconds)),
    batch: Math.max(...rows.map(({ figures }) => figures.largestBatch)),
  };
  node.replaceChildren(...rows.map((row) => drawRow(row, scale)));
  node.hidden = rows.length === 0;
}

function drawRow({ way, figures }, scale) {
  const heading = element("h3", {}, way.title, " ", element("span", { class: "note" }, way.note));
  const speed = panel(figure(figures.throughput), "images/s", "", throughputShape(figures, scale));
  const latency = panel(
    figure(figures.median),
    "ms median latency",
    `worst ${figure(figures.worst)} ms; axis from 0 to ${figure(1000 * scale.seconds)} ms`,
    latencyShape(figures, scale),
  );
  const batches = panel(
    figure(figures.meanBatch),
    "images per batch",
    `largest ${figures.largestBatch}; a bar per image`,
    batchShape(figures, scale),
  );
  return element("div", { class: `row ${way.id}` }, heading, speed, latency, batches);
}

function panel(value, unit, detail, shape) {
  const caption = element("p", { class: "figure" }, element("strong", {}, value), ` ${unit}`);
  return element("div", { class: "panel" }, caption, shape, element("p", { class: "detail" }, detail));
}

// Hidden from screen readers: the figures are in the captions and in the table.
function canvas(...children) {
  const box = { class: "shape", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" };
  return svg("svg", box, ...children);
}

function throughputShape(figures, scale) {
  const width = (WIDTH * figures.throughput) / scale.throughput;
  return canvas(svg("rect", { class: "mark", x: 0, y: 0, width, height: HEIGHT }));
}

/** A line per request, from sent to answered, from top to bottom as they were answered. */
function latencyShape(figures, scale) {
  const perMs = WIDTH / (1000 * scale.seconds);
  const step = HEIGHT / figures.answered.length;
  const lines = figures.answered.map(({ sent, latency }, i) =>
    svg("rect", { class: "mark", x: sent * perMs, y: i * step, width: latency * perMs, height: step }),
  );
  return canvas(...lines);
}

/** A bar per image, as high as the batch it rode in. */
function batchShape(figures, scale) {
  const step = WIDTH / figures.answered.length;
  const bars = figures.answered.map(({ batch }, i) => {
    const height = (HEIGHT * batch) / scale.batch;
    return svg("rect", { class: "mark", x: i * step, y: HEIGHT - height, width: step * 0.75, height });
  });
  return canvas(...bars);
}

const LINES = [
  ["answered", "Images answered", (f) => String(f.answered.length)],
  ["refused", "Images refused", (f) => String(f.refused)],
  ["seconds", "Seconds", (f) => figure(f.seconds)],
  ["throughput", "Images per second", (f) => figure(f.throughput)],
  ["median", "Median latency, ms", (f) => figure(f.median)],
  ["worst", "Worst latency, ms", (f) => figure(f.worst)],
  ["meanBatch", "Images per batch", (f) => figure(f.meanBatch)],
  ["largestBatch", "Largest batch", (f) => String(f.largestBatch)],
  ["devicePerImage", "Device time per image, ms", (f) => figure(f.devicePerImage)],
];

/** All figures, a column per way. */
export function drawTable(node, rows) {
  const heads = rows.map(({ way }) => element("th", { scope: "col" }, way.title));
  const body = LINES.map(([name, title, text]) =>
    element(
      "tr",
      { "data-figure": name },
      element("th", { scope: "row" }, title),
      ...rows.map(({ way, figures }) => element("td", { "data-way": way.id }, text(figures))),
    ),
  );
  const table = element(
    "table",
    {},
    element("caption", {}, "The figures of the burst"),
    element("thead", {}, element("tr", {}, element("td", {}), ...heads)),
    element("tbody", {}, ...body),
  );
  node.replaceChildren(...(rows.length === 0 ? [] : [table]));
}

/** What to take away, in a sentence per way. */
export function conclusion(rows) {
  const base = rows[0].figures.throughput;
  const sentences = rows.map(({ way, figures }, i) => {
    const times = i === 0 ? "" : `, ${figure(figures.throughput / base)} times as many`;
    return `${way.title} ${figure(figures.throughput)} images/s${times}.`;
  });
  return sentences.join(" ");
}
