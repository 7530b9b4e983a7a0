// Accuracy against cost, drawn by plotly from the cells in view.

// Plotly knows no style sheet: what it draws with on light and on dark.
const ON_LIGHT = { ink: "#1a1a1a", rule: "#8a8a8a", faint: "#e4e2dc", paper: "#ffffff", quiet: "#6b6b6b" };
const ON_DARK = { ink: "#e9e6df", rule: "#8f8f8f", faint: "#34363a", paper: "#24262a", quiet: "#a5a29b" };
const DARK = window.matchMedia("screen and (prefers-color-scheme: dark)");
const FONT = "'Source Serif 4', 'Iowan Old Style', 'Palatino Linotype', Palatino, Georgia, serif";
// Share of the axis by which neighbouring methods stand apart where they have the same x.
const DODGE = 0.005;
const PLOT_CONFIG = {
  responsive: true,
  displaylogo: false,
  modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "zoomIn2d", "zoomOut2d"],
  toImageButtonOptions: { format: "svg", filename: "accuracy" },
};

// Plotly is three quarters of the page and takes longest to start, so it stands there as text until all else is drawn.
// The policy lets it run since its hash is that of the text.
function startPlotly() {
  const script = document.createElement("script");
  script.textContent = document.getElementById("plotly").textContent;
  document.head.append(script);
}

function drawPlot(target, data, view) {
  if (typeof Plotly === "undefined") return;
  const placed = placedCells(data, view);
  const range = costRange(placed, view);
  Plotly.react(target, traces(data, view, placed, range), layout(target, data, view, placed, range), PLOT_CONFIG);
}

// Dim every curve but one method's; null brings all back.
function emphasise(target, method) {
  if (!target.data) return;
  const opacities = target.data.map((trace) =>
    method === null || trace.meta.method === method ? trace.meta.opacity : 0.12 * trace.meta.opacity,
  );
  Plotly.restyle(target, { opacity: opacities });
}

function moveBudgetLine(target, view) {
  if (!target.data) return;
  Plotly.relayout(target, { shapes: budgetLine(view) });
}

function traces(data, view, placed, range) {
  const lines = data.cells.filter(
    (cell) => cell.run === 0 && (cell.full || cell.blind) && isShown(cell, view) && accuracyIn(cell, view),
  );
  const curves = curveGroups(data, placed);
  const dodge = axisOf(data, view).shared ? DODGE * Math.min(1, 8 / Math.max(1, curves.length)) : 0;
  const apart = (rank) => Math.pow(range[1] / range[0], dodge * (rank - (curves.length - 1) / 2));
  return [
    ...lines.map((cell) => acrossLine(data, cell, view, range)),
    ...majorityLine(data, view, range),
    ...(data.leaders ? [frontLine(placed, view)] : []),
    ...curves.map((group, rank) => curve(data, group, view, group.cells[0].full ? 1 : apart(rank))),
  ];
}

// One curve a method, position numbering and run.
function curveGroups(data, placed) {
  const groups = new Map();
  for (const cell of placed) {
    const key = JSON.stringify([cell.run, cell.method, cell.positions]);
    if (!groups.has(key)) groups.set(key, { method: methodOf(data, cell), cells: [] });
    groups.get(key).cells.push(cell);
  }
  return [...groups.values()];
}

function inks() {
  return DARK.matches ? ON_DARK : ON_LIGHT;
}

function colourOf(method) {
  return DARK.matches ? method.dark : method.colour;
}

function methodOf(data, cell) {
  return data.methods.find((method) => method.id === cell.method);
}

function curveName(data, cell) {
  const run = cell.run > 0 ? `${data.runs[cell.run]}: ` : "";
  return run + (cell.full ? "full-token model" : cell.method) + (cell.positions === "compact" ? "+compact" : "");
}

function curve(data, group, view, factor) {
  const cells = [...group.cells].sort((a, b) => a.x[view.axis] - b.x[view.axis]);
  const bounds = cells.map((cell) => accuracyIn(cell, view));
  const method = group.method, first = cells[0];
  const lesser = first.run > 0 || (first.positions === "compact" && view.positions === "both");
  const suffix = (cell) => (cell.flag ? "-open" : cell.run > 0 ? "-open-dot" : "");
  return {
    type: "scatter",
    name: escapeHtml(curveName(data, first)),
    x: cells.map((cell) => cell.x[view.axis] * factor),
    y: bounds.map((bound) => 100 * bound[0]),
    error_y: {
      type: "data",
      symmetric: false,
      array: bounds.map((bound) => 100 * Math.max(0, bound[2] - bound[0])),
      arrayminus: bounds.map((bound) => 100 * Math.max(0, bound[0] - bound[1])),
      thickness: 1,
      width: 2.5,
    },
    mode: "lines+markers",
    opacity: lesser ? 0.6 : 1,
    meta: { method: first.method, opacity: lesser ? 0.6 : 1 },
    line: { color: colourOf(method), width: lesser ? 1.2 : 2, dash: method.dash },
    marker: {
      symbol: cells.map((cell) => method.symbol + suffix(cell)),
      size: first.full ? 14 : lesser ? 7 : 9,
      color: colourOf(method),
      line: { color: colourOf(method), width: first.run > 0 || cells.some((cell) => cell.flag) ? 1.6 : 0 },
    },
    text: cells.map((cell) => hoverText(cell, view)),
    hovertemplate: "%{text}<extra></extra>",
    showlegend: false,
  };
}

function acrossLine(data, cell, view, range) {
  const method = methodOf(data, cell);
  const mean = 100 * accuracyIn(cell, view)[0];
  return {
    type: "scatter",
    name: escapeHtml(cell.method) + (cell.full ? " line" : " (no vision token)"),
    x: [range[0], Math.sqrt(range[0] * range[1]), range[1]],
    y: [mean, mean, mean],
    mode: "lines",
    meta: { method: cell.method, opacity: 1 },
    line: { color: colourOf(method), width: 1.4, dash: cell.full ? "dash" : "dot" },
    hoverinfo: cell.full ? "skip" : "text",
    hovertext: hoverText(cell, view),
    showlegend: false,
  };
}

// What needs no model: the most frequent answer, given to every question.
function majorityLine(data, view, range) {
  const bounds = data.majority && accuracyIn(data.majority, view);
  if (!bounds) return [];
  const text = `<b>${escapeHtml(data.majority.name)}</b><br>accuracy ${scoreWords(bounds)}`;
  return [{
    type: "scatter",
    name: escapeHtml(data.majority.name),
    x: [range[0], Math.sqrt(range[0] * range[1]), range[1]],
    y: [100 * bounds[0], 100 * bounds[0], 100 * bounds[0]],
    mode: "lines",
    meta: { method: null, opacity: 1 },
    line: { color: inks().rule, width: 1.4, dash: "1px,4px" },
    hoverinfo: "text",
    hovertext: text,
    showlegend: false,
  }];
}

// A broad pale step under the curves: the highest mean up to each cost.
function frontLine(placed, view) {
  const front = paretoFront(placed, view);
  return {
    type: "scatter",
    name: "Pareto front",
    x: front.map((cell) => cell.x[view.axis]),
    y: front.map((cell) => 100 * accuracyIn(cell, view)[0]),
    mode: "lines",
    meta: { method: null, opacity: 1 },
    line: { color: "rgba(230, 159, 0, 0.35)", width: 9, shape: "hv" },
    hoverinfo: "skip",
    showlegend: false,
  };
}

function hoverText(cell, view) {
  const lines = [`<b>${escapeHtml(cell.name)}</b>`, `accuracy ${scoreWords(accuracyIn(cell, view))}`];
  if (view.kind) lines.push(`questions of type ${escapeHtml(view.kind)}`);
  if (view.split === "hard") lines.push("hard split only");
  lines.push(...cell.lines.map(escapeHtml));
  if (cell.flag) lines.push(`<b>flagged</b>: ${escapeHtml(cell.flag)}`);
  return lines.join("<br>");
}

function costRange(placed, view) {
  const costs = placed.map((cell) => cell.x[view.axis]);
  if (!costs.length) return [1, 10];
  const low = Math.min(...costs), high = Math.max(...costs);
  const margin = Math.max(Math.pow(high / low, 0.06), 1.04);
  return [low / margin, high * margin];
}

function scoreRange(data, view) {
  const shown = data.cells.filter((cell) => isShown(cell, view)).map((cell) => accuracyIn(cell, view));
  if (data.majority) shown.push(accuracyIn(data.majority, view));
  const ends = shown.filter(Boolean).flatMap((bounds) => [100 * bounds[1], 100 * bounds[2]]);
  if (!ends.length) return [0, 100];
  // In tens, so that views of one run are read on the same scale more often than not.
  const low = Math.max(0, Math.floor((Math.min(...ends) - 1) / 10) * 10);
  const high = Math.min(100, Math.ceil((Math.max(...ends) + 1) / 10) * 10);
  return [low, high + 0.03 * (high - low)];
}

// The costs themselves if they are few and apart, else 1, 2, 5 in each decade, or finer.
function costTicks(placed, view, range) {
  const costs = [...new Set(placed.map((cell) => Math.round(cell.x[view.axis])))].sort((a, b) => a - b);
  const apart = costs.every((value, i) => value >= 1 && (i === 0 || value / costs[i - 1] >= 1.25));
  if (view.axis.endsWith("tokens") && costs.length && costs.length <= 12 && apart) return costs;
  let ticks = [];
  for (const steps of [[1, 2, 5], [1, 1.5, 2, 3, 4, 5, 6, 8], Array.from({ length: 45 }, (_, i) => 1 + i / 5)]) {
    ticks = [];
    for (let decade = Math.floor(Math.log10(range[0])); decade <= Math.ceil(Math.log10(range[1])); decade += 1) {
      ticks.push(...steps.map((step) => step * Math.pow(10, decade)));
    }
    ticks = ticks.filter((tick) => tick >= range[0] && tick <= range[1]);
    if (ticks.length >= 5) break;
  }
  return ticks;
}

function budgetLine(view) {
  if (view.budget === null) return [];
  const line = { color: inks().ink, width: 1, dash: "3px,3px" };
  return [{ type: "line", x0: view.budget, x1: view.budget, yref: "paper", y0: 0, y1: 1, line }];
}

// Plotly breaks no lines: on a narrow screen a long title would be cut off.
function wrapped(title, target) {
  const most = target.clientWidth / 7;
  if (title.length <= most) return title;
  const middle = title.indexOf(" ", title.length / 2 - 4);
  return middle < 0 ? title : `${title.slice(0, middle)}<br>${title.slice(middle + 1)}`;
}

function layout(target, data, view, placed, range) {
  const ticks = costTicks(placed, view, range);
  const line = { showline: true, linecolor: inks().rule, ticks: "outside", tickcolor: inks().rule, gridcolor: inks().faint };
  return {
    font: { family: FONT, size: 14, color: inks().ink },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    height: 470,
    margin: { l: 58, r: 12, t: 10, b: 58 },
    hoverlabel: { bgcolor: inks().paper, font: { family: FONT, size: 13, color: inks().ink }, align: "left" },
    hovermode: "closest",
    showlegend: false,
    shapes: budgetLine(view),
    xaxis: {
      type: "log",
      title: { text: wrapped(`${axisOf(data, view).title} (log scale)`, target), standoff: 10, font: { size: 14 } },
      range: range.map(Math.log10),
      tickvals: ticks,
      ticktext: ticks.map(cost),
      tickangle: 0,
      ...line,
    },
    yaxis: {
      title: { text: "accuracy, %", standoff: 8, font: { size: 14 } },
      range: scoreRange(data, view),
      zeroline: false,
      ...line,
    },
  };
}
