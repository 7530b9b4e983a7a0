// What the reader has chosen to look at, and what that leaves of the cells. The page has one view.

function firstView(data) {
  return {
    axis: data.axes[0].key,
    kind: "",
    split: "all",
    positions: data.cells.some((cell) => cell.positions === "original") ? "original" : "compact",
    other: data.runs.length > 1,
    // A grid of both dials has more curves than a plot can show: those with layers left out wait to be asked for.
    hidden: new Set(data.methods.filter((method) => method.scheduled).map((method) => method.id)),
    budget: null,
  };
}

function axisOf(data, view) {
  return data.axes.find((axis) => axis.key === view.axis);
}

// Bounds [mean, low, high, n] of a cell in the view, or null.
function accuracyIn(cell, view) {
  const byKind = cell.accuracy[view.split];
  return Object.hasOwn(byKind, view.kind) ? byKind[view.kind] : null;
}

function isShown(cell, view) {
  if (view.hidden.has(cell.method) || (cell.run > 0 && !view.other)) return false;
  return view.positions === "both" || cell.positions === view.positions || cell.full || cell.blind;
}

// Cells with a place on the plot: shown, scored, and with a cost on the axis.
function placedCells(data, view) {
  return data.cells.filter(
    (cell) => isShown(cell, view) && !cell.blind && Object.hasOwn(cell.x, view.axis) && accuracyIn(cell, view),
  );
}

// Cells than which no placed cell is both cheaper and more accurate, in ascending cost.
function paretoFront(cells, view) {
  const sorted = [...cells].sort(
    (a, b) => a.x[view.axis] - b.x[view.axis] || accuracyIn(b, view)[0] - accuracyIn(a, view)[0],
  );
  const front = [];
  let best = -Infinity;
  for (const cell of sorted) {
    const mean = accuracyIn(cell, view)[0];
    if (mean > best) front.push(cell);
    best = Math.max(best, mean);
  }
  return front;
}

function costsOn(data, view) {
  return data.cells
    .filter((cell) => !cell.blind && Object.hasOwn(cell.x, view.axis))
    .map((cell) => cell.x[view.axis])
    .sort((a, b) => a - b);
}

// The middle one of the costs below the full-token model's, as a first budget.
function middleBudget(data, view) {
  const reduced = data.cells.filter((cell) => !cell.full && !cell.blind && cell.run === 0);
  const costs = reduced.filter((cell) => Object.hasOwn(cell.x, view.axis)).map((cell) => cell.x[view.axis]);
  costs.sort((a, b) => a - b);
  return costs.length ? costs[Math.floor((costs.length - 1) / 2)] : null;
}
