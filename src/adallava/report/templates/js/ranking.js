// "Which method for my budget?": each method's cell with the highest mean that costs no more, in order of the mean.

function rankedCells(data, view) {
  const best = new Map();
  for (const cell of placedCells(data, view)) {
    // A budget read off a slider is a rounded number; a run laid over is for the plot, not for the choice.
    if (cell.run > 0 || view.budget === null || cell.x[view.axis] > view.budget * 1.0005) continue;
    const key = JSON.stringify([cell.method, cell.positions]);
    const before = best.get(key);
    if (!before || accuracyIn(cell, view)[0] > accuracyIn(before, view)[0]) best.set(key, cell);
  }
  return [...best.values()].sort((a, b) => accuracyIn(b, view)[0] - accuracyIn(a, view)[0]);
}

function findComparison(data, a, b) {
  for (const [first, second, mean, low, high, n, p, outcome, least, margin] of data.comparisons) {
    const rest = { n, p, outcome, least, margin };
    if (first === a && second === b) return { mean, low, high, ...rest };
    if (first === b && second === a) return { mean: -mean, low: -high, high: -low, ...rest };
  }
  return null;
}

// What a pair that is not told apart could have shown; nothing in older runs.
function leastWords(found) {
  return found.least === DASH ? "" : `; a true difference of ${found.least} points would have been found`;
}

// What the tests of the run let one say of cell a against cell b, as one sentence.
function comparisonWords(data, a, b) {
  const runOf = (name) => data.cells.find((cell) => cell.name === name).run;
  if (runOf(a) !== runOf(b)) return "The table above shows what changed between the two runs.";
  const found = findComparison(data, a, b);
  if (!found) return `${a} and ${b} were not tested against each other in this run.`;
  const p = found.p < 0.001 ? "< 0.001" : `= ${Number(found.p.toFixed(3))}`;
  const bounds = `${points(found.low)} to ${points(found.high)}, n = ${whole(found.n)}, adjusted p ${p}`;
  const [higher, lower] = found.mean > 0 ? [a, b] : [b, a];
  const by = `${Math.abs(100 * found.mean).toFixed(1)} points (${bounds})`;
  if (found.outcome === "ahead") return `${higher} is ahead of ${lower} by ${by}.`;
  if (found.outcome === "differs") return `${higher} is higher than ${lower} by ${by}; the comparison was not planned.`;
  if (found.outcome === "same") return `${a} and ${b} are the same within ${found.margin} points: ${points(found.mean)} (${bounds}).`;
  return `${a} and ${b} are not told apart: ${points(found.mean)} points (${bounds})${leastWords(found)}.`;
}

const VERDICTS = { ahead: "behind", differs: "lower, not planned", same: "the same", open: "not told apart" };

// An alarm says why no cell may be called the highest; and where nothing is right, none is.
function hasLeader(data, view, ranked) {
  return data.leaders && ranked.length > 0 && accuracyIn(ranked[0], view)[0] > 0;
}

function verdictWords(data, view, leader, cell) {
  if (cell === leader) return "highest mean";
  // Tests are over all samples, so they say nothing of a part of them.
  if (view.kind || view.split !== "all") return "";
  const found = findComparison(data, leader.name, cell.name);
  if (!found) return data.comparisons.length ? "not tested" : "";
  const turned = ["ahead", "differs"].includes(found.outcome) && found.mean <= 0;
  const verdict = VERDICTS[turned ? "open" : found.outcome];
  return found.outcome === "same" ? `${verdict} within ${found.margin} points` : verdict;
}

function drawRanking(data, view) {
  const ranked = rankedCells(data, view);
  const list = document.getElementById("ranking");
  const answer = document.getElementById("ranking-answer");
  const unit = axisOf(data, view).unit;
  const leader = hasLeader(data, view, ranked) ? ranked[0] : null;
  list.replaceChildren(...ranked.map((cell) => rankingRow(data, view, leader, cell)));
  answer.textContent = answerWords(data, view, ranked, unit);
}

function answerWords(data, view, ranked, unit) {
  if (view.budget === null) return "No cell has a cost on this axis.";
  if (!ranked.length) return `No cell in view costs ${cost(view.budget)} ${unit} or less.`;
  if (accuracyIn(ranked[0], view)[0] === 0) return "Accuracy is 0 for every cell within the budget: no cell is the highest.";
  if (!data.leaders) return "No cell is called the highest: see the top of this page.";
  const note = axisOf(data, view).note ? ` ${axisOf(data, view).note}` : "";
  return leaderWords(data, view, ranked) + note;
}

function leaderWords(data, view, ranked) {
  const leader = ranked[0], bounds = accuracyIn(leader, view);
  const equal = ranked.filter((cell) => accuracyIn(cell, view)[0] === bounds[0]).length - 1;
  const also = equal === 0 ? "" : equal === 1 ? " One other has the same." : ` ${equal} others have the same.`;
  const head = `${leader.name} has the highest mean: ${scoreWords(bounds)}.${also}`;
  if (view.kind || view.split !== "all") return `${head} Tests use all samples only.`;
  const verdicts = ranked.slice(1).map((cell) => verdictWords(data, view, leader, cell));
  if (!verdicts.length) return head;
  const groups = new Map();
  for (const verdict of verdicts.filter(Boolean)) groups.set(verdict, (groups.get(verdict) || 0) + 1);
  if (!groups.size || (groups.size === 1 && groups.has("not tested"))) return `${head} This run did not test it against the others.`;
  if (groups.get("behind") === verdicts.length) {
    return `${head} It is ahead of ${verdicts.length === 1 ? "the other" : `all ${verdicts.length} others`}.`;
  }
  const counted = [...groups].map(([verdict, count]) => `${count} ${verdict}`).join(", ");
  return `${head} Of ${verdicts.length} others: ${counted}.`;
}

function rankingRow(data, view, leader, cell) {
  const [mean, low, high, n] = accuracyIn(cell, view);
  const bar = element(
    "span",
    { class: "bar", "aria-hidden": "true" },
    element("span", { class: "bar-mean", style: `width: ${100 * mean}%; ${markColours(methodOf(data, cell))}` }),
    element("span", { class: "bar-interval", style: `left: ${100 * low}%; width: ${100 * (high - low)}%` }),
  );
  const verdict = leader ? verdictWords(data, view, leader, cell) : "";
  return element(
    "li",
    { class: verdict === "behind" ? "behind" : "level" },
    element("span", { class: "rank-name" }, glyph(methodOf(data, cell)), " ", cell.name, cell.flag ? " ⚑" : ""),
    element("span", { class: "rank-score" }, element("b", {}, percent(mean)), " "),
    bar,
    element(
      "span",
      { class: "rank-note" },
      `${percent(low)} to ${percent(high)}, n = ${whole(n)}; ${cost(cell.x[view.axis])} ${axisOf(data, view).unit}`,
      verdict ? element("i", {}, ` · ${verdict}`) : null,
    ),
  );
}
