"use strict";
(() => {
  const plots = JSON.parse(document.getElementById("plots").textContent);
  const target = document.getElementById("plot");
  const missing = document.getElementById("plot-missing");
  const buttons = Array.from(document.querySelectorAll("button[data-axis]"));
  const config = {
    responsive: true,
    displaylogo: false,
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "zoomIn2d", "zoomOut2d"],
    toImageButtonOptions: { format: "svg", filename: "accuracy" },
  };

  function show(key) {
    const plot = plots.find((candidate) => candidate.key === key);
    Plotly.react(target, plot.figure.data, plot.figure.layout, config);
    missing.hidden = plot.missing.length === 0;
    missing.textContent = missing.hidden ? "" : "Not drawn: " + plot.missing.join("; ") + ".";
    for (const button of buttons) {
      button.setAttribute("aria-pressed", String(button.dataset.axis === key));
    }
  }

  for (const button of buttons) {
    button.addEventListener("click", () => show(button.dataset.axis));
  }
  show(plots[0].key);
  // Paper is narrower than most screens: draw the plot anew for it, and back.
  window.addEventListener("beforeprint", () => Plotly.relayout(target, { width: 660 }));
  window.addEventListener("afterprint", () => Plotly.relayout(target, { width: null, autosize: true }));
})();
