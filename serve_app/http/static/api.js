// The service as this page sees it. URLs are relative: the page may live below a prefix.

const TIMEOUT_MS = 120_000; // above any request timeout that makes sense; nothing here waits for ever
const UNREACHABLE = "The service cannot be reached: it has stopped, or the network in between is gone.";
const LATE = `The service has not answered within ${TIMEOUT_MS / 1000} seconds.`;

// What a status means to whoever chose the image; the service's own words follow.
const MEANINGS = {
  401: "This service asks for a token",
  429: "Too many requests with this token",
  413: "Too large",
  415: "Not an image that this service reads",
  422: "The image is damaged",
  500: "A fault in the service",
  502: "No answer from behind the proxy",
  503: "The service cannot take this now",
  504: "Too late",
};

/** A refusal, a fault or no answer at all; `message` is for the reader. `status` is 0 where nobody answered. */
export class ServiceError extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

// Of this tab, and of this service among those of the host.
const TOKEN = `token of ${new URL(".", document.baseURI).pathname}`;

/** Send this token from now on, where the service asks for one. */
export function useToken(token) {
  sessionStorage.setItem(TOKEN, token.trim());
}

/** GET v1/model: what is served, where, and its limits. */
export async function describeModel() {
  return request("v1/model", {}, null);
}

/**
 * POST v1/classify: one image as the body, several as files of a form.
 *
 * Returns {answer, latency}: the JSON, and milliseconds from the call to the last byte. Throws ServiceError, or what
 * `cancel` (an AbortSignal) was aborted with.
 */
export async function classify(images, cancel = null) {
  const started = performance.now();
  const answer = await request("v1/classify", { method: "POST", body: bodyOf(images) }, cancel);
  return { answer, latency: performance.now() - started };
}

function bodyOf(images) {
  if (images.length === 1) return images[0].blob;
  const form = new FormData();
  for (const image of images) form.append("file", image.blob, image.name);
  return form;
}

async function request(path, options, cancel) {
  const timeout = AbortSignal.timeout(TIMEOUT_MS);
  const signal = cancel === null ? timeout : AbortSignal.any([cancel, timeout]);
  let response;
  let text;
  try {
    response = await fetch(path, { ...options, headers: authorization(), signal });
    text = await response.text();
  } catch {
    if (cancel?.aborted) throw cancel.reason;
    throw new ServiceError(timeout.aborted ? LATE : UNREACHABLE);
  }
  return readAnswer(response, text);
}

function authorization() {
  const token = sessionStorage.getItem(TOKEN);
  return token ? { Authorization: `Bearer ${token}` } : {};
}

function readAnswer(response, text) {
  const answer = parsed(text);
  if (response.ok && answer !== null) return answer;
  const retryAfter = response.headers.get("retry-after");
  throw new ServiceError(explained(response.status, answer, text, retryAfter), response.status);
}

function parsed(text) {
  try {
    const answer = JSON.parse(text);
    return typeof answer === "object" ? answer : null;
  } catch {
    return null;
  }
}

function explained(status, answer, text, retryAfter) {
  const meaning = MEANINGS[status] ?? (status < 400 ? "An answer that is no JSON" : `Refused with status ${status}`);
  const words = answer?.error ?? text.trim().slice(0, 200);
  const advice = retryAfter === null ? "" : ` Try again in ${retryAfter} s.`;
  return words ? `${meaning}: ${words}.${advice}` : `${meaning}.${advice}`;
}
