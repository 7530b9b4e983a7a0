// The list of samples: filters, pages, keyboard. Only one page of rows is ever in the document.

const PAGE_ROWS = 20;

function setUpSampleList(samples, data) {
  const list = document.getElementById("sample-list");
  const field = (id) => document.getElementById(id);
  const state = { rows: [], at: 0 };
  const choice = () => ({
    right: field("filter-right").value,
    wrong: field("filter-wrong").value,
    kind: field("filter-kind") ? field("filter-kind").value : "",
    hard: Boolean(field("filter-hard") && field("filter-hard").checked),
    pictured: field("filter-pictured").checked,
    words: field("filter-words").value.trim().toLowerCase(),
    budget: field("sample-budget") ? field("sample-budget").value : "",
  });
  const apply = () => {
    state.rows = filterRows(samples, choice());
    state.at = 0;
    showPair(samples, data, choice());
    draw();
  };
  const draw = () => {
    drawRows(list, samples, state);
    showSample(samples, data, state.rows[state.at], choice());
  };
  const move = (to) => {
    state.at = Math.min(Math.max(to, 0), Math.max(0, state.rows.length - 1));
    draw();
    const current = list.querySelector("[aria-selected=true]");
    if (current) keepInSight(list, current);
  };
  for (const select of [field("filter-right"), field("filter-wrong")]) {
    select.append(...samples.cells.map((cell) => element("option", { value: cell }, cell)));
  }
  for (const id of ["filter-right", "filter-wrong", "filter-kind", "filter-hard", "filter-pictured"]) {
    if (field(id)) field(id).addEventListener("change", apply);
  }
  field("filter-words").addEventListener("input", apply);
  if (field("sample-budget")) field("sample-budget").addEventListener("change", draw);
  field("filter-swap").addEventListener("click", () => {
    const { right, wrong } = choice();
    field("filter-right").value = wrong;
    field("filter-wrong").value = right;
    apply();
  });
  field("page-before").addEventListener("click", () => move((Math.floor(state.at / PAGE_ROWS) - 1) * PAGE_ROWS));
  field("page-after").addEventListener("click", () => move((Math.floor(state.at / PAGE_ROWS) + 1) * PAGE_ROWS));
  list.addEventListener("keydown", (event) => onListKey(event, state, move));
  list.addEventListener("click", (event) => {
    const option = event.target.closest("[role=option]");
    if (option) move(Number(option.dataset.at));
  });
  for (const button of document.querySelectorAll("button[data-right]")) {
    button.addEventListener("click", () => {
      field("filter-right").value = button.dataset.right;
      field("filter-wrong").value = button.dataset.wrong;
      apply();
      field("samples-title").scrollIntoView();
      list.focus({ preventScroll: true });
    });
  }
  apply();
}

function onListKey(event, state, move) {
  const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: PAGE_ROWS, PageUp: -PAGE_ROWS };
  if (event.key in steps) move(state.at + steps[event.key]);
  else if (event.key === "Home") move(0);
  else if (event.key === "End") move(state.rows.length - 1);
  else if (event.key === "Enter" || event.key === " ") document.getElementById("sample").focus();
  else return;
  event.preventDefault();
}

function keepInSight(list, option) {
  if (option.offsetTop < list.scrollTop) list.scrollTop = option.offsetTop;
  const below = option.offsetTop + option.offsetHeight - list.clientHeight;
  if (below > list.scrollTop) list.scrollTop = below;
}

function drawRows(list, samples, state) {
  const first = Math.floor(state.at / PAGE_ROWS) * PAGE_ROWS;
  const shown = state.rows.slice(first, first + PAGE_ROWS);
  list.replaceChildren(...shown.map((row, number) => listRow(samples, row, first + number, state)));
  if (shown.length) list.setAttribute("aria-activedescendant", `sample-${state.at}`);
  else list.removeAttribute("aria-activedescendant");
  const last = first + shown.length;
  document.getElementById("page-place").textContent = shown.length ? `${whole(first + 1)} to ${whole(last)}` : "none";
  document.getElementById("page-before").disabled = first === 0;
  document.getElementById("page-after").disabled = last >= state.rows.length;
  const count = `${whole(state.rows.length)} of ${whole(samples.num)} samples`;
  const pictured = state.rows.filter(samples.isPictured).length;
  document.getElementById("sample-count").textContent = `${count}, ${whole(pictured)} of them with an image`;
}

function listRow(samples, row, at, state) {
  const picture = samples.isPictured(row);
  return element(
    "li",
    {
      role: "option",
      id: `sample-${at}`,
      "data-at": at,
      "data-row": row,
      "aria-selected": String(at === state.at),
      "aria-posinset": at + 1,
      "aria-setsize": state.rows.length,
    },
    element("span", { class: "row-picture", "aria-hidden": "true" }, picture ? "▣" : ""),
    element("span", { class: "row-question" }, samples.questions[row]),
    element("span", { class: "row-answer" }, samples.expected[row]),
  );
}

// What may be said of the two chosen cells, beside how often each is right where the other is wrong.
function showPair(samples, data, choice) {
  const target = document.getElementById("pair");
  const { right, wrong } = choice;
  target.hidden = !right || !wrong || right === wrong;
  if (target.hidden) return;
  const count = (a, b) => filterRows(samples, { right: a, wrong: b, kind: "" }).length;
  target.textContent =
    `${right} right and ${wrong} wrong: ${whole(count(right, wrong))}; the reverse: ${whole(count(wrong, right))}. ` +
    comparisonWords(data, right, wrong);
}
