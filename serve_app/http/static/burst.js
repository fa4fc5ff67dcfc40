// The same images three ways, and what came of each: nothing is drawn meanwhile, for that would cost what is measured.

import { classify, ServiceError } from "./api.js";

const CONNECTIONS = 6; // browsers' limit per host over HTTP/1.1

/** How images are sent, in the order of the picture. */
export const WAYS = [
  { id: "one", title: "One by one", note: "each after the answer to the one before", send: oneByOne },
  { id: "all", title: "All at once", note: "a request each, six under way", send: allAtOnce },
  { id: "form", title: "In bulk", note: "as files of one request, or of few", send: inForms },
];

/**
 * Send `images` in every way in turn. `onAnswer` is called after each answer, `onWay` with the figures of a finished way.
 *
 * Throws ServiceError where the service does not answer at all, or not one image of a way is classified, and what
 * `cancel` was aborted with. A refusal of some images is a figure, not an error.
 */
export async function burst(images, limits, cancel, onAnswer, onWay) {
  await Promise.all(images.slice(0, CONNECTIONS).map((image) => warmUp(image, cancel)));
  for (const way of WAYS) {
    const run = new Run(limits, cancel, onAnswer);
    await way.send(images, run);
    onWay(way, run.figures());
  }
}

/** Opens a connection; a refusal counts where it is measured. */
async function warmUp(image, cancel) {
  try {
    await classify([image], cancel);
  } catch (error) {
    if (!(error instanceof ServiceError && error.status)) throw error;
  }
}

async function oneByOne(images, run) {
  for (const image of images) await run.send([image]);
}

async function allAtOnce(images, run) {
  await Promise.all(images.map((image) => run.send([image])));
}

async function inForms(images, run) {
  await Promise.all(forms(images, run.limits).map((form) => run.send(form)));
}

/** As few lists as the limits of a request allow. */
export function forms(images, limits) {
  const made = [];
  let bytes = Infinity;
  for (const image of images) {
    const size = image.blob.size + 1024; // a part's own header
    if (bytes + size > limits.max_request_bytes || made.at(-1).length === limits.max_images) {
      made.push([]);
      bytes = 0;
    }
    made.at(-1).push(image);
    bytes += size;
  }
  return made;
}

class Run {
  constructor(limits, cancel, onAnswer) {
    this.limits = limits;
    this.cancel = cancel;
    this.onAnswer = onAnswer;
    this.started = performance.now();
    this.answered = [];
    this.refusals = [];
  }

  async send(images) {
    const sent = performance.now() - this.started;
    try {
      const { answer, latency } = await classify(images, this.cancel);
      for (const result of answer.images) this.note(result, sent, latency);
    } catch (error) {
      if (!(error instanceof ServiceError) || error.status === 0) throw error;
      this.refusals.push(...images.map(() => error.message));
    }
    this.onAnswer(images.length);
  }

  note(result, sent, latency) {
    if (result.error !== undefined) this.refusals.push(result.error);
    else this.answered.push({ sent, latency, batch: result.batch_size, device: result.timings_ms.device });
  }

  figures() {
    if (this.answered.length === 0) throw new ServiceError(this.refusals[0]);
    return summary(this.answered, this.refusals, (performance.now() - this.started) / 1000);
  }
}

/**
 * `answered`: {sent, latency, device} in milliseconds and {batch} in images, each; `seconds`: of the whole way.
 *
 * Executions are counted as the answers tell them: one of n images is named by n answers.
 */
export function summary(answered, refusals, seconds) {
  const latencies = answered.map((each) => each.latency).sort((a, b) => a - b);
  const executions = answered.reduce((sum, each) => sum + 1 / each.batch, 0);
  const device = answered.reduce((sum, each) => sum + each.device / each.batch, 0);
  return {
    answered,
    refused: refusals.length,
    refusal: refusals[0] ?? null,
    seconds,
    throughput: answered.length / seconds,
    median: median(latencies),
    worst: latencies.at(-1),
    meanBatch: answered.length / executions,
    largestBatch: Math.max(...answered.map((each) => each.batch)),
    devicePerImage: device / answered.length,
  };
}

function median(sorted) {
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}
