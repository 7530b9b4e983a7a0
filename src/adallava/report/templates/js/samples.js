// The samples as columns, and which of them a reader's filter leaves. See page_samples.py for the packing.

const STEPS = 240, RIGHT_FROM = 120, FAILED = 255, ABSENT = 254;

async function loadSamples(packed) {
  const [ids, questions, expected, kindOf, scores, responseTexts, responses, hard, kept, hasKept] = await Promise.all([
    unpackTexts(packed.ids),
    unpackTexts(packed.questions),
    unpackTexts(packed.expected),
    unpackNumbers(packed.kind_of),
    unpackBytes(packed.scores),
    unpackTexts(packed.response_texts),
    unpackNumbers(packed.responses),
    packed.hard === null ? null : unpackBytes(packed.hard),
    unpackBytes(packed.pictures.kept),
    unpackBytes(packed.pictures.has_kept),
  ]);
  const pictureOf = new Map(packed.pictures.rows.map((row, number) => [row, number]));
  const isPictured = (row) => pictureOf.has(row) && packed.pictures.uris[pictureOf.get(row)].length > 0;
  const rest = Array.from({ length: packed.num_samples }, (_, row) => row).filter((row) => !pictureOf.has(row));
  return {
    num: packed.num_samples,
    cells: packed.cells,
    cellNumber: new Map(packed.cells.map((cell, number) => [cell, number])),
    kinds: packed.kinds,
    pictures: packed.pictures,
    order: [...packed.pictures.rows, ...rest],
    searchable: questions.map((question, row) => `${question}\n${expected[row]}\n${ids[row]}`.toLowerCase()),
    ids, questions, expected, kindOf, scores, responseTexts, responses, hard, kept, hasKept, pictureOf, isPictured,
  };
}

function scoreOf(samples, cell, row) {
  return samples.scores[samples.cellNumber.get(cell) * samples.num + row];
}

function isRight(score) {
  return score >= RIGHT_FROM && score <= STEPS;
}

function isWrong(score) {
  return score < RIGHT_FROM;
}

// Text, or null where the response is not in the page.
function responseOf(samples, cell, row) {
  const number = samples.responses[samples.cellNumber.get(cell) * samples.num + row];
  return number === 0 ? null : samples.responseTexts[number].slice(1);
}

// Rows in the order to show them. `filter`: right and wrong are cells or "", kind is a type or "", words is lower case.
function filterRows(samples, filter) {
  const kind = filter.kind === "" ? 0 : samples.kinds.indexOf(filter.kind) + 1;
  return samples.order.filter(
    (row) =>
      (!filter.right || isRight(scoreOf(samples, filter.right, row))) &&
      (!filter.wrong || isWrong(scoreOf(samples, filter.wrong, row))) &&
      (kind === 0 || samples.kindOf[row] === kind) &&
      (!filter.hard || bitAt(samples.hard, 0, row)) &&
      (!filter.pictured || samples.isPictured(row)) &&
      (!filter.words || samples.searchable[row].includes(filter.words)),
  );
}

// The verdict on one answer: [class, words].
function verdictOf(score) {
  if (score === FAILED) return ["failed", "⚑ failed"];
  if (score === ABSENT) return ["failed", "not asked"];
  if (score === STEPS) return ["right", "✓ right"];
  const partly = score > 0 ? ` (score ${(score / STEPS).toFixed(2)})` : "";
  return isRight(score) ? ["right", `✓ right${partly}`] : ["wrong", `✗ wrong${partly}`];
}
