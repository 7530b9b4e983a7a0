// "Which method for my budget?": each method's best cell that costs no more, the best first.

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
  for (const [first, second, mean, low, high, n, p, significant] of data.comparisons) {
    if (first === a && second === b) return { mean, low, high, n, p, significant };
    if (first === b && second === a) return { mean: -mean, low: -high, high: -low, n, p, significant };
  }
  return null;
}

// What the tests of the run let one say of cell a against cell b, as one sentence.
function comparisonWords(data, a, b) {
  const runOf = (name) => data.cells.find((cell) => cell.name === name).run;
  if (runOf(a) !== runOf(b)) return "What changed between the two runs stands in the table above.";
  const found = findComparison(data, a, b);
  if (!found) return `${a} and ${b} were not tested against each other in this run.`;
  const p = found.p < 0.001 ? "< 0.001" : `= ${Number(found.p.toFixed(3))}`;
  const bounds = `${points(found.low)} to ${points(found.high)}, n = ${whole(found.n)}, adjusted p ${p}`;
  if (!found.significant) return `${a} and ${b} are not told apart: ${points(found.mean)} points (${bounds}).`;
  const [ahead, behind] = found.mean > 0 ? [a, b] : [b, a];
  return `${ahead} is ahead of ${behind} by ${Math.abs(100 * found.mean).toFixed(1)} points (${bounds}).`;
}

function verdictWords(data, view, leader, cell) {
  if (cell === leader) return "highest mean";
  // Tests are over all samples, so they say nothing of a part of them.
  if (view.kind || view.split !== "all") return "";
  const found = findComparison(data, leader.name, cell.name);
  if (!found) return data.comparisons.length ? "not tested" : "";
  return found.significant && found.mean > 0 ? "behind" : "not told apart";
}

function drawRanking(data, view) {
  const ranked = rankedCells(data, view);
  const list = document.getElementById("ranking");
  const answer = document.getElementById("ranking-answer");
  const unit = axisOf(data, view).unit;
  list.replaceChildren(...ranked.map((cell) => rankingRow(data, view, ranked[0], cell)));
  answer.textContent = answerWords(data, view, ranked, unit);
}

function answerWords(data, view, ranked, unit) {
  if (view.budget === null) return "No cell has a cost on this axis.";
  if (!ranked.length) return `No cell in view costs ${cost(view.budget)} ${unit} or less.`;
  const leader = ranked[0], bounds = accuracyIn(leader, view);
  const verdicts = ranked.slice(1).map((cell) => verdictWords(data, view, leader, cell));
  const count = (word) => verdicts.filter((verdict) => verdict === word).length;
  const tied = count("not told apart"), behind = count("behind");
  const head = `${leader.name} has the highest mean: ${scoreWords(bounds)}.`;
  if (view.kind || view.split !== "all") return `${head} Tests are made over all samples only.`;
  if (!tied && !behind) return verdicts.length ? `${head} This run did not test it against the others.` : head;
  if (behind === verdicts.length) return `${head} It is ahead of ${behind === 1 ? "the other" : `all ${behind} others`}.`;
  const apart = tied === 1 ? "1 is not told apart from it" : `${tied} are not told apart from it`;
  return `${head} Of ${verdicts.length} others it is ahead of ${behind}; ${tied ? apart : "the rest were not tested"}.`;
}

function rankingRow(data, view, leader, cell) {
  const [mean, low, high, n] = accuracyIn(cell, view);
  const bar = element(
    "span",
    { class: "bar", "aria-hidden": "true" },
    element("span", { class: "bar-mean", style: `width: ${100 * mean}%; background: ${methodOf(data, cell).colour}` }),
    element("span", { class: "bar-interval", style: `left: ${100 * low}%; width: ${100 * (high - low)}%` }),
  );
  const verdict = verdictWords(data, view, leader, cell);
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
