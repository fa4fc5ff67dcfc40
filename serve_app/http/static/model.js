// What is served and where; a banner where the weights are not those that somebody trained for photos.

import { byId, element, percent, say } from "./dom.js";

const BUNDLED =
  "These are the bundled weights: the model reads handwritten digits, and nothing else. " +
  "It names a digit for any picture, a photo of a cat included.";

/** Whether `model`, the answer of v1/model, is the bundled reader of digits. */
export function isBundled(model) {
  return model.weights === "bundled";
}

export function showModel(model) {
  say(byId("unreachable"), "");
  document.title = `${model.name} – serve-app`;
  byId("model").replaceChildren(
    fact("Model", model.name === model.arch ? model.name : `${model.name} (${model.arch})`),
    fact("Classes", String(model.num_classes)),
    fact("Device", model.device),
    fact("Precision", model.precision),
    fact("Weights", model.weights),
    ...((model.accuracy ?? null) === null ? [] : [fact("Accuracy", percent(model.accuracy))]),
    fact("Batches", `up to ${model.batching.max_batch_size}`),
  );
  const lines = [isBundled(model) ? BUNDLED : null, model.notice ?? null].filter((line) => line !== null);
  byId("banner").replaceChildren(...lines.map((line) => element("p", {}, line)));
  byId("banner").hidden = lines.length === 0;
}

export function showFailure(message, again) {
  byId("model").replaceChildren(fact("Model", "unknown"));
  const button = element("button", { type: "button" }, "Try again");
  button.addEventListener("click", again);
  byId("unreachable").replaceChildren(element("p", {}, message), button);
  byId("unreachable").hidden = false;
}

function fact(name, value) {
  return element("div", {}, element("dt", {}, name), element("dd", {}, value));
}
