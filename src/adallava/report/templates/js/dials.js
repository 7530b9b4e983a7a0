// The fronts of both dials and of each alone, over every cell of the run.

const FRONTS = {
  both: { name: "both dials", color: "rgba(230, 159, 0, 0.75)", width: 7, dash: "solid" },
  tokens: { name: "tokens alone", color: "#0072B2", dark: "#1EBCFE", width: 2.5, dash: "solid" },
  layers: { name: "layers alone", color: "#009E73", dark: "#81D49C", width: 2.5, dash: "dash" },
};

function setUpFronts(data) {
  const target = document.getElementById("front-plot");
  if (!target) return;
  const buttons = Array.from(document.querySelectorAll("button[data-front-axis]"));
  const show = (chosen) => {
    for (const button of buttons) button.setAttribute("aria-pressed", String(button === chosen));
    drawFronts(target, data, chosen.dataset.frontAxis);
  };
  for (const button of buttons) button.addEventListener("click", () => show(button));
  DARK.addEventListener("change", () => show(buttons.find((button) => button.getAttribute("aria-pressed") === "true")));
  show(buttons[0]);
}

function drawFronts(target, data, key) {
  const axisView = { ...firstView(data), axis: key };
  const byName = new Map(data.cells.filter((cell) => cell.run === 0).map((cell) => [cell.name, cell]));
  const fronts = data.fronts.filter((front) => front.axis === key);
  const step = (look, names) => {
    const cells = names.map((name) => byName.get(name));
    return {
      type: "scatter",
      mode: "lines",
      name: look.name,
      x: cells.map((cell) => cell.x[key]),
      y: cells.map((cell) => 100 * accuracyIn(cell, axisView)[0]),
      line: { color: (DARK.matches && look.dark) || look.color, width: look.width, dash: look.dash, shape: "hv" },
      hoverinfo: "skip",
    };
  };
  const shown = [...byName.values()].filter((cell) => !cell.blind && Object.hasOwn(cell.x, key) && accuracyIn(cell, axisView));
  const points = {
    type: "scatter",
    mode: "markers",
    name: "a cell",
    x: shown.map((cell) => cell.x[key]),
    y: shown.map((cell) => 100 * accuracyIn(cell, axisView)[0]),
    text: shown.map((cell) => hoverText(cell, axisView)),
    hovertemplate: "%{text}<extra></extra>",
    marker: { color: inks().quiet, size: 6, opacity: 0.7 },
  };
  const lines = fronts.length ? [step(FRONTS.both, fronts[0].both)] : [];
  for (const front of fronts) lines.push(step(FRONTS[front.alone], front.one));
  const axis = data.axes.find((one) => one.key === key);
  Plotly.react(target, [...lines, points], frontLayout(target, axis, shown, axisView), PLOT_CONFIG);
}

function frontLayout(target, axis, shown, axisView) {
  const range = costRange(shown, axisView), ticks = costTicks(shown, axisView, range);
  const line = { linecolor: inks().ink, tickcolor: inks().ink, ticks: "outside", gridcolor: inks().faint };
  return {
    height: 380,
    margin: { l: 62, r: 12, t: 8, b: 56 },
    font: { family: FONT, size: 13, color: inks().ink },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    hoverlabel: { bgcolor: inks().paper, bordercolor: inks().rule, font: { family: FONT, size: 13, color: inks().ink }, align: "left" },
    hovermode: "closest",
    legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 },
    xaxis: {
      type: "log",
      title: { text: wrapped(`${axis.title} (log scale)`, target), font: { size: 14 } },
      range: range.map(Math.log10),
      tickvals: ticks,
      ticktext: ticks.map(cost),
      ...line,
    },
    yaxis: { title: { text: "accuracy, %", font: { size: 14 } }, zeroline: false, ...line },
  };
}
