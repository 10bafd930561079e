// Small helpers: elements are made from text only, so that no name from a user can become markup.
const make = (tag, text = "", attributes = {}) => {
  const element = document.createElement(tag);
  element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
};
const FAMILIES = ["distribution", "overlap", "compound", "size", "boundary", "calibration", "topology"];
const lossName = (label, family) => {
  const whole = make("span", "", { class: "loss" });
  whole.append(make("span", "", { class: `dot family-${FAMILIES.includes(family) ? family : "other"}`, title: family }), label);
  return whole;
};
const read = (id) => { const block = document.getElementById(id); return block && JSON.parse(block.textContent); };
const quiet = (form) => form.addEventListener("submit", (event) => event.preventDefault());
// Leaderboards: one form for all of them; a metric alone hides the other columns and sorts by it, best first.
{
  const form = document.getElementById("board-form");
  if (form) {
    const boards = [...document.querySelectorAll("details.board")];
    const chosen = (name) => form.elements[name].value;
    const apply = (event) => {
      let shown = 0;
      for (const board of boards) {
        const heads = [...board.querySelector("thead tr").cells];
        board.hidden = Boolean(chosen("data set")) && board.dataset.label !== chosen("data set");
        if (chosen("data set") && !board.hidden) board.open = true;
        const rows = [...board.querySelectorAll("tbody tr")];
        for (const row of rows) {
          row.hidden = (chosen("family") && row.dataset.family !== chosen("family")) || (chosen("loss") && row.dataset.loss !== chosen("loss"));
          shown += !row.hidden && !board.hidden;
        }
        const metric = chosen("metric");
        board.classList.toggle("by-other", Boolean(metric) && metric !== "Dice at 0.5");
        heads.forEach((head, column) => {
          const hidden = Boolean(metric && head.dataset.metric && head.dataset.metric !== metric);
          for (const cell of [head, ...rows.map((row) => row.cells[column])]) cell.hidden = hidden;
        });
        if (event?.target.name !== "metric") continue;
        const at = heads.findIndex((head) => (metric ? head.dataset.metric === metric : head.textContent.trim() === "#"));
        const wanted = metric && !heads[at].dataset.lower ? "descending" : "ascending";
        for (let turn = 0; turn < 2 && heads[at].getAttribute("aria-sort") !== wanted; turn++) heads[at].querySelector("button.sort").click();
      }
      form.querySelector("output").textContent = `${shown} rows on ${boards.filter((board) => !board.hidden).length} of ${boards.length} settings`;
    };
    quiet(form);
    form.addEventListener("change", apply);
    apply();
  }
}
// Parts: one table a metric, of which the chosen one is shown.
for (const form of document.querySelectorAll("form.choice")) {
  quiet(form);
  form.addEventListener("change", () => {
    const value = form.querySelector("select").value;
    for (const table of form.parentElement.querySelectorAll(".chosen")) table.hidden = table.dataset.choice !== value;
  });
}
// Advice: the rows of the group of data sets that the answers mean; nothing is computed.
{
  const form = document.getElementById("advice-form"), data = read("advice-data");
  if (form && data) {
    const names = ["foreground", "boundaries", "empty"];
    const body = document.querySelector("#advice-table tbody");
    const [says, more, sets] = ["says", "more", "sets"].map((name) => document.getElementById(`advice-${name}`));
    const address = () => {
      const chosen = new URLSearchParams([...form.elements].filter((e) => e.name && e.selectedIndex > 0).map((e) => [e.name, e.value]));
      history.replaceState(null, "", `#advice${chosen.size ? `?${chosen}` : ""}`);
    };
    const apply = () => {
      const answers = names.map((name) => form.elements[name].value);
      const known = data.answers[answers.join("|")];
      const rows = data.rows[known[0]]?.[form.elements.goal.value] ?? [];
      body.replaceChildren();
      more.replaceChildren();
      document.getElementById("advice-note").hidden = form.elements.goal.value !== "calibrated volume";
      sets.textContent = known[2] ? `No data set of this study is like that. The nearest differ in ${known[2]}: ${known[1]}.`
        : `Data sets that are alike: ${known[1]}.`;
      if (!rows.length) {
        says.textContent = `No evidence: the data sets that are ${known[2] ? "nearest" : "alike"} hold no score for this goal.`;
        return;
      }
      const [first, ...others] = data.says[known[0]][form.elements.goal.value];
      says.textContent = first;
      more.append(...others.map((text) => make("li", text)));
      for (const [label, family, verdict, effect, interval, blocks, alarms, collapsed, count, place] of rows) {
        const row = make("tr"), name = make("th", "", { scope: "row" }), from = make("td");
        name.append(lossName(label, family));
        const verdictCell = make("td");
        verdictCell.append(make("span", verdict, { class: `chip ${verdict}` }));
        const resting = make("details");
        resting.append(make("summary", `${count} data set${count > 1 ? "s" : ""}`), make("span", data.sets[place]));
        from.append(resting);
        row.append(name, verdictCell, make("td", effect, { class: "num" }), make("td", interval, { class: "interval" }), make("td", String(blocks), { class: "num" }), make("td", alarms, { class: "num" }), make("td", collapsed, { class: "num" }), from);
        body.append(row);
      }
    };
    quiet(form);
    form.addEventListener("change", () => { apply(); address(); });
    if (location.hash.startsWith("#advice?")) {
      for (const [name, value] of new URLSearchParams(location.hash.slice("#advice?".length))) {
        const select = form.elements[name];
        if (select && [...select.options].some((option) => option.value === value)) select.value = value;
      }
    }
    apply();
  }
}
// Single cells: the rows of one data set and loss.
{
  const form = document.getElementById("cells-form"), data = read("cells-data");
  if (form && data) {
    const table = document.getElementById("cells-table"), space = "http://www.w3.org/2000/svg";
    const drawn = (points) => {
      const picture = document.createElementNS(space, "svg"), line = document.createElementNS(space, "polyline");
      for (const [name, value] of Object.entries({ viewBox: "-1 -1 62 22", width: 93, height: 33, class: "curve", "aria-hidden": "true" })) picture.setAttribute(name, value);
      line.setAttribute("points", points);
      picture.append(line);
      return picture;
    };
    const apply = () => {
      const variant = Number(form.elements.variant.value), loss = Number(form.elements.loss.value);
      const rows = data.rows.filter((row) => row[0] === variant && row[1] === loss);
      table.tBodies[0].replaceChildren(...rows.map(([, , seed, outcome, scores, took, origin, key, points]) => {
        const row = make("tr"), curve = make("td"), again = make("td");
        if (points) curve.append(drawn(points));
        again.append(make("code", `lossbench verify --cell ${key}`));
        row.append(make("td", String(seed), { class: "num" }), make("td", outcome), ...scores.map((score) => make("td", score, { class: "num" })));
        row.append(curve, make("td", took, { class: "num" }), make("td", data.origins[origin], { class: "soft" }), again);
        return row;
      }));
      const what = `${data.losses[loss]} on ${data.variants[variant]}`;
      table.caption.textContent = `Cells of ${what}`;
      form.querySelector("output").textContent = rows.length ? `${rows.length} cell${rows.length > 1 ? "s" : ""} of ${what}` : `no cell of ${what}`;
    };
    quiet(form);
    form.addEventListener("change", apply);
    for (const link of document.querySelectorAll("a.drill")) {
      link.addEventListener("click", (event) => {
        [form.elements.variant.value, form.elements.loss.value] = link.dataset.cells.split(",");
        apply();
        // The jump comes before the focus, which it would otherwise take away.
        event.preventDefault();
        location.hash = "cells";
        reveal("cells");
        table.focus({ preventScroll: true });
      });
    }
    if (data.rows.length) [form.elements.variant.value, form.elements.loss.value] = data.rows[0].slice(0, 2).map(String);
    apply();
  }
}
