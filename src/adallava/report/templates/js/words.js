// Numbers as a reader wants them, and elements from plain text: nothing foreign is ever parsed as markup.

const DASH = "–";

function element(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function escapeHtml(text) {
  const entities = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
  return String(text).replace(/[&<>"']/g, (character) => entities[character]);
}

function percent(share) {
  return (100 * share).toFixed(1);
}

function points(share) {
  const text = (100 * share).toFixed(1);
  return Number(text) === 0 ? "0.0" : share > 0 ? "+" + text : text.replace("-", "−");
}

function whole(number) {
  return number.toLocaleString("en-US");
}

function cost(value) {
  if (value >= 1000) return whole(Math.round(value));
  return String(Number(value.toPrecision(3)));
}

function scoreWords(bounds) {
  return `${percent(bounds[0])} % (${percent(bounds[1])} to ${percent(bounds[2])}), n = ${whole(bounds[3])}`;
}

// The style sheet takes the one that is fit for the page.
function markColours(method) {
  return `--light: ${method.colour}; --dark: ${method.dark}`;
}

function glyph(method) {
  return element("span", { class: "mark", style: markColours(method), "aria-hidden": "true" }, method.glyph);
}

const DASH_ARRAYS = { solid: "none", dash: "7 3", dashdot: "7 3 2 3", dot: "2 3" };

function lineSample(method) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  for (const [name, value] of [["width", "26"], ["height", "8"], ["aria-hidden", "true"]]) svg.setAttribute(name, value);
  const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
  const attributes = { x1: 0, y1: 4, x2: 26, y2: 4, class: "line-sample", style: markColours(method), "stroke-width": 2.5 };
  attributes["stroke-dasharray"] = DASH_ARRAYS[method.dash];
  for (const [name, value] of Object.entries(attributes)) line.setAttribute(name, String(value));
  svg.append(line);
  return svg;
}
