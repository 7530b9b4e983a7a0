// The controls above the plot: axis, questions, samples, positions, methods, runs, budget.

function setUpControls(data, view, redraw) {
  const buttons = Array.from(document.querySelectorAll("button[data-axis]"));
  for (const button of buttons) {
    button.addEventListener("click", () => {
      view.axis = button.dataset.axis;
      view.budget = middleBudget(data, view);
      for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
      showMissing(data, view);
      showBudget(data, view);
      redraw();
    });
  }
  onSelect("view-kind", (value) => { view.kind = value; redraw(); });
  onSelect("view-split", (value) => { view.split = value; redraw(); });
  onSelect("view-positions", (value) => { view.positions = value; redraw(); });
  const other = document.getElementById("view-other");
  if (other) other.addEventListener("change", () => { view.other = other.checked; redraw(); });
  setUpMethods(data, view, redraw);
  setUpBudget(data, view);
  showMissing(data, view);
  showBudget(data, view);
}

function onSelect(id, choose) {
  const select = document.getElementById(id);
  if (select) select.addEventListener("change", () => choose(select.value));
}

function setUpMethods(data, view, redraw) {
  const group = document.getElementById("methods");
  const boxes = data.methods.map((method) => {
    const box = element("input", { type: "checkbox", value: method.id });
    box.checked = !view.hidden.has(method.id);
    box.addEventListener("change", () => {
      if (box.checked) view.hidden.delete(method.id);
      else view.hidden.add(method.id);
      redraw();
    });
    const label = element("label", { class: "method" }, box, lineSample(method), glyph(method), " ", method.id);
    const plot = document.getElementById("plot");
    for (const event of ["mouseenter", "focusin"]) label.addEventListener(event, () => emphasise(plot, method.id));
    for (const event of ["mouseleave", "focusout"]) label.addEventListener(event, () => emphasise(plot, null));
    group.append(label);
    return box;
  });
  const setAll = (checked) => {
    for (const box of boxes) box.checked = checked;
    view.hidden = new Set(checked ? [] : data.methods.map((method) => method.id));
    redraw();
  };
  document.getElementById("methods-all").addEventListener("click", () => setAll(true));
  document.getElementById("methods-none").addEventListener("click", () => setAll(false));
}

function showMissing(data, view) {
  const note = document.getElementById("plot-missing");
  const missing = axisOf(data, view).missing;
  const clock = axisOf(data, view).note;
  note.hidden = missing.length === 0 && !clock;
  const named = missing.slice(0, 12).join("; ") + (missing.length > 12 ? `; and ${missing.length - 12} more` : "");
  note.textContent = [clock, missing.length ? `Not drawn: ${named}.` : ""].filter(Boolean).join(" ");
}

// The slider is logarithmic over the costs of the cells, in thousandths.
function setUpBudget(data, view) {
  const slider = document.getElementById("budget-slider"), field = document.getElementById("budget-number");
  const plot = document.getElementById("plot");
  const apply = () => { drawRanking(data, view); moveBudgetLine(plot, view); };
  slider.addEventListener("input", () => {
    const costs = costsOn(data, view);
    if (!costs.length) return;
    const low = costs[0], high = costs[costs.length - 1];
    const raw = low * Math.pow(high / low, Number(slider.value) / 1000);
    view.budget = view.axis.endsWith("tokens") ? Math.round(raw) : Number(raw.toPrecision(4));
    field.value = String(view.budget);
    slider.setAttribute("aria-valuetext", `${field.value} ${axisOf(data, view).unit}`);
    apply();
  });
  field.addEventListener("change", () => {
    const asked = Number(field.value);
    if (asked > 0) view.budget = asked;
    showBudget(data, view);
    apply();
  });
}

function showBudget(data, view) {
  const slider = document.getElementById("budget-slider"), field = document.getElementById("budget-number");
  document.getElementById("budget-unit").textContent = axisOf(data, view).unit;
  if (view.budget === null) return;
  const costs = costsOn(data, view), low = costs[0], high = costs[costs.length - 1];
  view.budget = Number(view.budget.toPrecision(6));
  field.value = String(view.budget >= 100 ? view.budget : Number(view.budget.toPrecision(4)));
  slider.value = String(high > low ? (1000 * Math.log(view.budget / low)) / Math.log(high / low) : 1000);
  slider.setAttribute("aria-valuetext", `${field.value} ${axisOf(data, view).unit}`);
}
