// One card per image: what it is, the time by stage, the batch it rode in.

import { element, figure, percent } from "./dom.js";

const MAX_CARDS = 64;
const STAGES = ["decode", "queue", "device"];
const REST = "rest";
// The rest is what neither the replica nor its device saw: browser, network, proxy.
const MEANINGS = { decode: "decode", queue: "wait", device: "device", [REST]: "network" };

/** The list of cards, the latest first; the oldest go when there are more than MAX_CARDS. */
export class Results {
  constructor(list) {
    this.list = list;
  }

  /** Cards that wait for their answers, in the order of `names`. */
  add(names) {
    const cards = names.map((name) => new Card(name));
    this.list.prepend(...cards.map((card) => card.node));
    while (this.list.children.length > MAX_CARDS) this.list.lastElementChild.remove();
    return cards;
  }
}

class Card {
  constructor(name) {
    this.heading = element("h3", {}, name);
    this.picture = noPicture("");
    this.body = element("div", { class: "card-body" }, this.heading, element("p", { class: "note" }, "waiting …"));
    this.node = element("li", { class: "card", "aria-busy": "true" }, this.picture, this.body);
  }

  /** A text file is no picture, nor is, to most browsers, TIFF: then there is none. */
  showImage(blob) {
    const image = element("img", { alt: "", width: "72", height: "72" });
    const url = URL.createObjectURL(blob);
    for (const end of ["load", "error"]) image.addEventListener(end, () => URL.revokeObjectURL(url));
    image.addEventListener("error", () => image.replaceWith(noPicture("no preview")));
    image.src = url;
    this.picture.replaceWith(image);
  }

  /** `result`: an entry of `images` of the answer; `latency`: milliseconds that this page waited. */
  showClasses(result, latency, remark) {
    const note = remark === null ? null : element("p", { class: "note" }, remark);
    this.show(note, classBars(result.classes), batchLine(result));
    this.node.append(element("div", { class: "card-foot" }, ...stages(result.timings_ms, latency)));
  }

  showError(message) {
    this.show(element("p", { class: "error" }, message));
  }

  show(...children) {
    this.node.removeAttribute("aria-busy");
    this.body.replaceChildren(this.heading, ...children.filter((child) => child !== null));
  }
}

function noPicture(words) {
  return element("div", { class: "no-picture" }, words);
}

function classBars(classes) {
  const rows = classes.map(({ label, score }) => {
    const bar = element("span", { class: "bar", "aria-hidden": "true" }, element("span", { class: "bar-fill" }));
    bar.firstChild.style.width = percent(score).replace(" ", "");
    return element("li", {}, element("span", { class: "label" }, label), bar, element("span", {}, percent(score)));
  });
  return element("ol", { class: "classes" }, ...rows);
}

function batchLine(result) {
  const company = result.batch_size - 1;
  const words = company === 0 ? "rode alone" : `rode in a batch of ${result.batch_size}`;
  const seats = Array.from({ length: Math.min(result.batch_size, 32) }, () => element("span", { class: "seat" }));
  return element("p", { class: "batch" }, words, element("span", { class: "seats", "aria-hidden": "true" }, ...seats));
}

function stages(timings, latency) {
  const inside = STAGES.reduce((sum, stage) => sum + timings[stage], 0);
  const parts = { ...timings, [REST]: Math.max(0, latency - inside) };
  const total = Object.values(parts).reduce((sum, ms) => sum + ms, 0);
  const bar = element("div", { class: "stages", "aria-hidden": "true" });
  const legend = element("dl", { class: "legend" });
  for (const stage of [...STAGES, REST]) {
    const piece = element("span", { class: `stage ${stage}` });
    piece.style.width = `${(100 * parts[stage]) / (total || 1)}%`;
    bar.append(piece);
    const name = element("dt", {}, element("span", { class: `key ${stage}`, "aria-hidden": "true" }), MEANINGS[stage]);
    legend.append(element("div", {}, name, element("dd", {}, `${figure(parts[stage])} ms`)));
  }
  return [bar, legend];
}
