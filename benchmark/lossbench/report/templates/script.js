"use strict";
// Theme: what the system prefers, until the reader chooses.
{
  const root = document.documentElement;
  const stored = () => { try { return localStorage.getItem("lossbench-theme"); } catch { return null; } };
  const keep = (name) => { try { localStorage.setItem("lossbench-theme", name); } catch { /* a file without storage */ } };
  if (stored()) root.dataset.theme = stored();
  document.getElementById("theme").addEventListener("click", () => {
    const dark = getComputedStyle(root).colorScheme.includes("dark");
    root.dataset.theme = dark ? "light" : "dark";
    keep(root.dataset.theme);
  });
}
// Sorting: a button in every header; numbers by value, words by language, empty cells last.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.className = "sort";
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const rising = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", rising ? "ascending" : "descending");
      const body = table.tBodies[0];
      const value = (row) => {
        const cell = row.cells[column];
        const text = (cell.dataset.value ?? cell.textContent).trim();
        const number = text === "" || text === "–" || text === "nan" ? NaN : Number(text);
        return { number, text: text === "nan" || text === "–" ? "" : text };
      };
      const compare = (a, b) => {
        const [x, y] = [value(a), value(b)];
        if (!x.text || !y.text) return (!x.text) - (!y.text);
        const order = Number.isNaN(x.number) || Number.isNaN(y.number) ? x.text.localeCompare(y.text) : x.number - y.number;
        return rising ? order : -order;
      };
      body.append(...[...body.rows].sort(compare));
    });
  });
}
// Filtering: each select hides the rows whose cell in its column says something else.
for (const form of document.querySelectorAll("form.filters[data-for]")) {
  const table = document.getElementById(form.dataset.for);
  const selects = [...form.querySelectorAll("select")];
  const apply = () => {
    let shown = 0;
    for (const row of table.tBodies[0].rows) {
      row.hidden = selects.some((s) => s.value && row.cells[Number(s.dataset.column)].textContent.trim() !== s.value);
      shown += !row.hidden;
    }
    form.querySelector("output").textContent = `${shown} of ${table.tBodies[0].rows.length} rows`;
  };
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("change", apply);
  apply();
}
