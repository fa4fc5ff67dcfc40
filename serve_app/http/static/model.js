// What is served and where; a banner where the weights are not those that somebody trained for photos.

import { useToken } from "./api.js";
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

/** `error`: a ServiceError. Where a token is missing or wrong, it is asked for. */
export function showFailure(error, again) {
  byId("model").replaceChildren(fact("Model", "unknown"));
  const form = error.status === 401 ? tokenForm() : element("form", {}, element("button", {}, "Try again"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    again();
  });
  byId("unreachable").replaceChildren(element("p", {}, error.message), form);
  byId("unreachable").hidden = false;
}

function tokenForm() {
  const input = element("input", { id: "token", type: "password", autocomplete: "off", required: true });
  const label = element("label", { for: "token" }, "Token");
  const form = element("form", { class: "controls" }, label, input, element("button", {}, "Use it"));
  form.addEventListener("submit", () => useToken(input.value));
  return form;
}

function fact(name, value) {
  return element("div", {}, element("dt", {}, name), element("dd", {}, value));
}
