// Images to send. A source is {name, load, remark?}; what it loads is {name, blob}, in memory, so that no disk takes
// part in what is measured.

const DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];
const PICTURE = { width: 500, height: 375, type: "image/jpeg", quality: 0.9 }; // as the benchmarks' images

/** The bundled digits: sources with a label and a URL. */
export const SAMPLES = DIGITS.map((label, digit) => {
  const name = `${digit}.png`;
  const url = `page/samples/${name}`;
  return { name, label, url, load: () => loadSample(name, url) };
});

/** A picture of nothing, for models that the digits say nothing to. */
export const DRAWN = {
  name: "drawn.jpg",
  title: "a picture drawn by this page",
  remark: "Drawn by this page: its classes mean nothing.",
  load: draw,
};

/** A picked, dropped or pasted file; not read where it is over `maxBytes`. */
export function fileSource(file, maxBytes) {
  return { name: file.name, load: () => read(file, maxBytes) };
}

async function read(file, maxBytes) {
  if (file.size > maxBytes) {
    const [size, limit] = [file.size, maxBytes].map((bytes) => bytes.toLocaleString("en"));
    throw new Error(`Too large: it has ${size} bytes, an image may have ${limit}. It was not sent.`);
  }
  try {
    return { name: file.name, blob: new Blob([await file.arrayBuffer()], { type: file.type }) };
  } catch {
    throw new Error("It cannot be read: a folder, or a file that has been moved?");
  }
}

async function loadSample(name, url) {
  const response = await fetch(url).catch(() => null);
  if (!response?.ok) throw new Error("The sample cannot be had: the service cannot be reached.");
  return { name, blob: await response.blob() };
}

async function draw() {
  const canvas = document.createElement("canvas");
  canvas.width = PICTURE.width;
  canvas.height = PICTURE.height;
  paint(canvas.getContext("2d"), PICTURE.width, PICTURE.height);
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, PICTURE.type, PICTURE.quality));
  if (blob === null) throw new Error("This browser cannot draw a picture; choose an image instead.");
  return { name: DRAWN.name, blob };
}

function paint(context, width, height) {
  const sky = context.createLinearGradient(0, 0, 0, height);
  sky.addColorStop(0, "#2b6cb0");
  sky.addColorStop(1, "#fbd38d");
  context.fillStyle = sky;
  context.fillRect(0, 0, width, height);
  for (let i = 0; i < 40; i++) {
    context.fillStyle = `hsl(${(i * 47) % 360} 60% 45%)`;
    context.beginPath();
    context.arc((i * 83) % width, height * (0.5 + 0.5 * ((i * 29) % 40) / 40), 8 + (i % 7) * 5, 0, 2 * Math.PI);
    context.fill();
  }
}
