// Images that are chosen, dropped, pasted or samples: each a request of its own, all at once.

import { classify } from "./api.js";
import { byId, element, percent } from "./dom.js";
import { DRAWN, fileSource, SAMPLES } from "./images.js";
import { isBundled } from "./model.js";
import { Results } from "./results.js";

const MAX_IMAGES = 64;
const FEW = 10; // of more, only the end is announced

export class ClassifySection {
  /** `onChosen` gets the images of a choice (not of samples) that were classified. */
  constructor(onChosen) {
    this.onChosen = onChosen;
    this.results = new Results(byId("results"));
    this.maxBytes = Infinity;
    this.listen();
  }

  use(model) {
    this.maxBytes = model.limits.max_image_bytes;
    byId("samples").replaceChildren(...(isBundled(model) ? this.digitButtons() : [this.drawButton()]));
  }

  digitButtons() {
    const digits = SAMPLES.map((sample) => {
      const picture = { src: sample.url, alt: `sample digit ${sample.label}`, width: "44", height: "44" };
      return button({ class: "sample" }, element("img", picture), () => this.send([sample]));
    });
    const all = button({}, "All ten at once", () => this.send(SAMPLES));
    return [element("p", { class: "note" }, "Or the samples:"), element("div", { class: "digits" }, ...digits), all];
  }

  drawButton() {
    return button({}, "Send a drawn picture", () => this.send([DRAWN]));
  }

  listen() {
    const input = byId("files");
    input.addEventListener("change", () => {
      this.sendFiles([...input.files]);
      input.value = ""; // the same file again is a change too
    });
    document.addEventListener("paste", (event) => this.sendFiles([...(event.clipboardData?.files ?? [])]));
    const drop = byId("drop");
    // On the whole document: a file dropped beside the field would replace the page.
    document.addEventListener("dragover", (event) => {
      event.preventDefault();
      drop.classList.add("over");
    });
    for (const end of ["dragleave", "drop"]) document.addEventListener(end, () => drop.classList.remove("over"));
    document.addEventListener("drop", (event) => {
      event.preventDefault();
      this.sendFiles([...(event.dataTransfer?.files ?? [])]);
    });
  }

  async sendFiles(files) {
    if (files.length === 0) return;
    const left = files.length - MAX_IMAGES;
    const remark = left > 0 ? ` ${left} more were left out: at most ${MAX_IMAGES} at once.` : "";
    const images = await this.send(files.slice(0, MAX_IMAGES).map((file) => fileSource(file, this.maxBytes)), remark);
    if (images.length > 0) this.onChosen(images);
  }

  /** Send what `sources` load; returns the images that were classified. */
  async send(sources, remark = "") {
    const cards = this.results.add(sources.map(({ name }) => name));
    let answers = 0;
    const outcomes = sources.map(async (source, i) => {
      const outcome = await sendOne(source, cards[i]);
      answers += 1;
      if (sources.length <= FEW && sources.length > 1) announce(`${answers} of ${sources.length} answered.${remark}`);
      return outcome;
    });
    announce(`0 of ${sources.length} answered …${remark}`);
    const done = await Promise.all(outcomes);
    const good = done.filter(({ image }) => image !== null).map(({ image }) => image);
    announce((sources.length === 1 ? done[0].words : `${good.length} of ${sources.length} classified.`) + remark);
    return good;
  }
}

/** Returns {image, words}; `image` is null unless it was classified. */
async function sendOne(source, card) {
  try {
    const image = await source.load();
    card.showImage(image.blob);
    const { answer, latency } = await classify([image]);
    const [result] = answer.images;
    card.showClasses(result, latency, source.remark ?? null);
    return { image, words: `${source.name}: ${result.classes[0].label}, ${percent(result.classes[0].score)}.` };
  } catch (error) {
    card.showError(error.message);
    return { image: null, words: `${source.name}: ${error.message}` };
  }
}

function announce(text) {
  byId("progress").textContent = text;
}

function button(attributes, content, onClick) {
  const node = element("button", { type: "button", ...attributes }, content);
  node.addEventListener("click", onClick);
  return node;
}
