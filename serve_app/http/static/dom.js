// Elements without markup in strings: what a server or a file name says is always text, never HTML.

const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes (false and null: none) and children (nodes or text). */
export function element(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** The same in SVG. */
export function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== false && value !== null) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

export function byId(id) {
  return document.getElementById(id);
}

/** Show `text` in the element, or hide it where there is none. */
export function say(node, text) {
  node.textContent = text;
  node.hidden = text === "";
}

/** 0.0123 -> "0.012", 5.14 -> "5.1", 123.4 -> "123": two to three digits that mean something. */
export function figure(value) {
  if (value >= 100) return value.toFixed(0);
  return value >= 1 || value === 0 ? value.toFixed(1) : value.toPrecision(2);
}

export function percent(share) {
  return `${(100 * share).toFixed(1)} %`;
}
