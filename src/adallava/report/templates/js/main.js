// The page wakes up: the plot and the ranking first, the samples when the browser has drawn those.

const data = readJson("cells");
const view = firstView(data);
const plot = document.getElementById("plot");

function redraw() {
  drawPlot(plot, data, view);
  drawRanking(data, view);
}

view.budget = middleBudget(data, view);
setUpControls(data, view, redraw);
redraw();
document.body.dataset.plot = "ready";

async function wakeSamples() {
  const place = document.getElementById("samples");
  if (!place) return;
  if (typeof DecompressionStream === "undefined") {
    document.getElementById("sample-count").textContent =
      "The samples need a browser of 2023 or later (DecompressionStream).";
    return;
  }
  setUpSampleList(await loadSamples(readJson("samples-data")), data);
  document.body.dataset.samples = "ready";
}

requestAnimationFrame(() => setTimeout(wakeSamples, 0));

document.getElementById("picture-close").addEventListener("click", () => document.getElementById("picture").close());

// Paper is narrower than most screens: draw the plot anew for it, and back.
window.addEventListener("beforeprint", () => Plotly.relayout(plot, { width: 660 }));
window.addEventListener("afterprint", () => Plotly.relayout(plot, { width: null, autosize: true }));
