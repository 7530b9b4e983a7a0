// One sample: its question, and what each method kept and answered, side by side.

const CARD_PX = 320, LARGE_PX = 768, CUT_BELOW = 0.95;

function showSample(samples, data, row, choice) {
  const target = document.getElementById("sample");
  if (row === undefined) {
    target.replaceChildren(element("p", { class: "quiet" }, "No sample passes the filter."));
    return;
  }
  const cells = cellsToShow(data, samples, choice);
  const kind = samples.kindOf[row] ? samples.kinds[samples.kindOf[row] - 1] : null;
  const seeing = cells.filter((cell) => !cell.blind), blind = cells.filter((cell) => cell.blind);
  const parts = [
    element("p", { class: "tags" }, kind ? element("span", { class: "tag" }, kind) : null,
      element("span", { class: "id" }, samples.ids[row])),
    element("h3", { id: "sample-question" }, samples.questions[row]),
    element("p", { class: "expected" }, "Expected: ", element("b", {}, samples.expected[row])),
    pictureNote(samples, row),
    element("ul", { class: "answers" }, ...seeing.map((cell) => answerCard(samples, data, cell, row))),
    ...blind.map((cell) => blindAnswer(samples, data, cell, row)),
  ];
  target.replaceChildren(...parts.filter((part) => part !== null));
}

// The two cells of the filter first, then the full-token model, then those at the chosen budget, then the blind.
function cellsToShow(data, samples, choice) {
  const named = [choice.right, choice.wrong].filter(Boolean);
  const here = data.cells.filter((cell) => samples.cellNumber.has(cell.name));
  return [
    ...here.filter((cell) => named.includes(cell.name)).sort((a, b) => named.indexOf(a.name) - named.indexOf(b.name)),
    ...here.filter((cell) => cell.full && cell.run === 0 && !named.includes(cell.name)),
    ...here.filter((cell) => isAtBudget(cell, choice.budget) && !named.includes(cell.name)),
    ...here.filter((cell) => cell.blind && cell.run === 0 && !named.includes(cell.name)),
  ];
}

// A run laid over shows itself only where the filter names it.
function isAtBudget(cell, budget) {
  const own = cell.positions === "compact" ? `${cell.budget}+compact` : cell.budget;
  return cell.run === 0 && !cell.full && !cell.blind && own === budget;
}

function pictureNote(samples, row) {
  const missing = samples.pictures.missing[row];
  if (missing) return element("p", { class: "note" }, `No image: ${missing}.`);
  if (samples.pictureOf.has(row)) return seenNote(samples.pictures.shares[samples.pictureOf.get(row)]);
  const number = `${whole(samples.pictures.rows.length)} of ${whole(samples.num)} samples`;
  return element("p", { class: "quiet" }, `The page holds the images of ${number}; this is not one of them.`);
}

function seenNote(shares) {
  const cut = shares.filter((share) => share !== null && share < CUT_BELOW);
  if (!cut.length) return null;
  const of = shares.length === 1 ? "of this image: the frame" : "of the image that it sees least of: the frames";
  return element("p", { class: "note" }, `The model sees ${Math.round(100 * Math.min(...cut))} % ${of}.`);
}

function answerCard(samples, data, cell, row) {
  const [verdict, words] = verdictOf(scoreOf(samples, cell.name, row));
  return element(
    "li",
    { class: verdict },
    element("p", { class: "method-name" }, glyph(methodOf(data, cell)), " ", cell.name),
    ...pictureButtons(samples, cell, row),
    element("p", { class: "kept" }, keptWords(samples, cell, row)),
    element("p", { class: "response" }, responseElement(samples, cell, row)),
    element("p", { class: "verdict" }, words),
  );
}

function blindAnswer(samples, data, cell, row) {
  const [verdict, words] = verdictOf(scoreOf(samples, cell.name, row));
  return element(
    "p",
    { class: `blind ${verdict}` },
    glyph(methodOf(data, cell)), ` ${cell.name}, no vision token: `, responseElement(samples, cell, row), " ",
    element("span", { class: "verdict" }, words),
  );
}

function responseElement(samples, cell, row) {
  if (scoreOf(samples, cell.name, row) === ABSENT) return DASH;
  const response = responseOf(samples, cell.name, row);
  if (response === null) return element("i", {}, "answer not in the page");
  return response.trim() ? element("q", {}, response) : element("i", {}, "empty answer");
}

// {grid, isKept, count} of each picture of a sample, or null where the cell's patches are not known.
function keptOf(samples, cell, row) {
  const number = samples.pictureOf.get(row), pictures = samples.pictures;
  if (number === undefined || !pictures.grids[number].length) return null;
  const place = number * samples.cells.length + samples.cellNumber.get(cell.name);
  if (!samples.hasKept[place]) return null;
  let next = place * pictures.kept_bytes;
  return pictures.grids[number].map((grid) => {
    const start = next, patches = grid[0] * grid[1];
    next += Math.ceil(patches / 8);
    const isKept = (index) => bitAt(samples.kept, start, index) === 1;
    let count = 0;
    for (let index = 0; index < patches; index += 1) count += isKept(index);
    return { grid, isKept, count, patches };
  });
}

function keptWords(samples, cell, row) {
  if (cell.full) return "all tokens";
  const kept = keptOf(samples, cell, row);
  if (!kept && !cell.tokens) return "";
  if (!kept) return `${cost(cell.kept)} of ${cost(cell.tokens)} tokens before the LLM`;
  const verb = cell.merges ? "merged into" : "kept";
  const when = (cell.inside ? " by the last layer" : "") + (cell.draws > 1 ? ", first draw" : "");
  return `${verb} ${kept.map((one) => `${one.count} of ${one.patches}`).join(" and ")}${when}`;
}

function pictureButtons(samples, cell, row) {
  const number = samples.pictureOf.get(row);
  const uris = number === undefined ? [] : samples.pictures.uris[number];
  return uris.map((_, place) => pictureButton(samples, cell, row, place, uris.length));
}

function pictureButton(samples, cell, row, place, count) {
  const which = count === 1 ? "" : `image ${place + 1} of ${count}, `;
  const words = `${which}${cell.name}, ${keptWords(samples, cell, row)}`;
  const canvas = element("canvas", { width: CARD_PX, height: CARD_PX, role: "img", "aria-label": `Image: ${words}` });
  paint(canvas, samples, cell, row, place);
  const button = element("button", { type: "button", class: "picture", "aria-label": `Enlarge: ${words}` }, canvas);
  button.addEventListener("click", () => enlarge(words, samples, cell, row, place));
  return button;
}

// Of some runs the frame is not known: their pictures have the grid's shape.
function paint(canvas, samples, cell, row, place) {
  const image = new Image(), number = samples.pictureOf.get(row), pictures = samples.pictures;
  const frame = pictures.frames[number][place];
  image.addEventListener("load", () => {
    fitTo(canvas, image.naturalWidth, image.naturalHeight, frame || [0, 0, 1, 1]);
    const kept = cell.full ? null : keptOf(samples, cell, row);
    if (kept) drawKept(canvas, image, kept[place].grid, frame || [0, 0, 1, 1], kept[place].isKept, cell.merges);
    else canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
    if (frame && pictures.shares[number][place] < CUT_BELOW) drawFrame(canvas, frame);
    canvas.dataset.painted = "true";
  });
  image.src = pictures.uris[number][place];
}

// Give a square canvas the picture's shape, and the frame on it about as many pixels as the square had.
function fitTo(canvas, width, height, frame) {
  const across = width * (frame[2] - frame[0]), down = height * (frame[3] - frame[1]);
  const side = canvas.width / Math.max(across, down, Math.max(width, height) / 4);
  canvas.width = Math.max(1, Math.round(width * side));
  canvas.height = Math.max(1, Math.round(height * side));
}

function enlarge(words, samples, cell, row, place) {
  const dialog = document.getElementById("picture");
  const canvas = element("canvas", { width: LARGE_PX, height: LARGE_PX, role: "img", "aria-label": `Image: ${words}` });
  paint(canvas, samples, cell, row, place);
  document.getElementById("picture-large").replaceChildren(canvas);
  document.getElementById("picture-words").textContent = `${words}. ${samples.questions[row]}`;
  // Escape closes it and gives the focus back: the browser's own doing.
  dialog.showModal();
}
