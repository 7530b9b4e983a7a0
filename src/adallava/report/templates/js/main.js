// The page wakes up: first the ranking, then the samples, then the plot, each when the browser has drawn what was before.

const data = readJson("cells");
const view = firstView(data);
const plot = document.getElementById("plot");

function redraw() {
  drawRanking(data, view);
  drawPlot(plot, data, view);
}

view.budget = middleBudget(data, view);
setUpControls(data, view, redraw);
redraw();
document.body.dataset.ranking = "ready";
DARK.addEventListener("change", redraw);

async function wakeSamples() {
  if (!document.getElementById("samples")) return;
  if (typeof DecompressionStream === "undefined") {
    document.getElementById("sample-count").textContent =
      "The samples need a browser of 2023 or later (DecompressionStream).";
    return;
  }
  setUpSampleList(await loadSamples(readJson("samples-data")), data);
  document.body.dataset.samples = "ready";
}

function wakePlot() {
  startPlotly();
  drawPlot(plot, data, view);
  setUpFronts(data);
  document.body.dataset.plot = "ready";
}

function afterDrawing(act) {
  requestAnimationFrame(() => setTimeout(act, 0));
}

afterDrawing(() => wakeSamples().finally(() => afterDrawing(wakePlot)));

document.getElementById("picture-close").addEventListener("click", () => document.getElementById("picture").close());

// Paper is narrower than most screens: draw the plot anew for it, and back.
window.addEventListener("beforeprint", () => plot.data && Plotly.relayout(plot, { width: 660 }));
window.addEventListener("afterprint", () => plot.data && Plotly.relayout(plot, { width: null, autosize: true }));
