// The burst's controls, its progress, its picture.

import { burst, WAYS } from "./burst.js";
import { conclusion, drawChart, drawTable } from "./chart.js";
import { byId, say } from "./dom.js";
import { DRAWN, SAMPLES } from "./images.js";
import { isBundled } from "./model.js";

export class BurstSection {
  constructor() {
    this.model = null;
    this.chosen = []; // empty: the samples
    this.running = null;
    byId("burst").addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.running === null) this.start(Number(byId("size").value));
    });
    byId("cancel").addEventListener("click", () => this.running?.abort());
  }

  use(model) {
    this.model = model;
    this.setRunning(false);
    if (this.chosen.length === 0) say(byId("burst-source"), isBundled(model) ? "the ten samples" : DRAWN.title);
  }

  choose(images) {
    this.chosen = images;
    say(byId("burst-source"), images.length === 1 ? images[0].name : `the ${images.length} images chosen`);
  }

  async images(size) {
    const sources = isBundled(this.model) ? SAMPLES : [DRAWN];
    const images = this.chosen.length > 0 ? this.chosen : await Promise.all(sources.map((source) => source.load()));
    return Array.from({ length: size }, (_, i) => images[i % images.length]);
  }

  async start(size) {
    this.running = new AbortController();
    const { signal } = this.running;
    this.setRunning(true);
    try {
      this.finish(await this.run(size, signal));
    } catch (error) {
      if (signal.aborted) say(byId("burst-status"), "Cancelled.");
      else this.fail(error.message);
    } finally {
      this.running.abort(); // what is still under way after a failure
      this.running = null;
      this.setRunning(false);
    }
  }

  /** Returns [{way, figures}]. */
  async run(size, signal) {
    const rows = [];
    let answered = 0;
    byId("burst-progress").max = WAYS.length * size;
    this.show(rows);
    const onAnswer = (images) => (byId("burst-progress").value = answered += images);
    const onWay = (way, figures) => {
      rows.push({ way, figures });
      this.show(rows);
    };
    await burst(await this.images(size), this.model.limits, signal, onAnswer, onWay);
    return rows;
  }

  show(rows) {
    drawChart(byId("chart"), rows);
    drawTable(byId("table"), rows);
    if (rows.length < WAYS.length) say(byId("burst-status"), `${WAYS[rows.length].title} …`);
  }

  finish(rows) {
    const refused = rows.find(({ figures }) => figures.refused > 0);
    const remark = refused ? ` Some were refused. ${refused.figures.refusal}` : "";
    say(byId("burst-status"), conclusion(rows) + remark);
  }

  fail(message) {
    say(byId("burst-status"), "");
    say(byId("burst-error"), message);
  }

  setRunning(isRunning) {
    const [start, cancel] = [byId("start"), byId("cancel")];
    const hadFocus = document.activeElement === (isRunning ? start : cancel);
    start.disabled = byId("size").disabled = isRunning;
    cancel.disabled = !isRunning;
    if (hadFocus) (isRunning ? cancel : start).focus(); // a disabled button loses the focus to nowhere
    byId("burst-progress").hidden = !isRunning;
    if (isRunning) {
      byId("burst-progress").value = 0;
      say(byId("burst-error"), "");
    }
  }
}
