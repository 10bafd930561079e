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
// Evidence is folded: whatever a link or an address leads to is opened first.
const reveal = (id) => {
  const target = id && document.getElementById(id);
  if (!target) return;
  for (let at = target; at; at = at.parentElement?.closest("details")) if (at.tagName === "DETAILS") at.open = true;
  target.scrollIntoView();
  target.querySelector(":scope > label > input[type='search']")?.focus({ preventScroll: true });
};
const anchor = () => decodeURIComponent(location.hash.slice(1).split("?")[0]);
document.addEventListener("click", (event) => {
  const link = event.target.closest('a[href^="#"]:not(.drill)');
  if (link) reveal(link.getAttribute("href").slice(1));
});
window.addEventListener("hashchange", () => reveal(anchor()));
if (anchor()) reveal(anchor());
// The name of a loss explains itself: its formula, from its card.
document.addEventListener("pointerover", (event) => {
  const link = event.target.closest("a.name:not([title])");
  const card = link && document.getElementById(link.getAttribute("href").slice(1));
  if (card?.dataset.tip) link.title = card.dataset.tip;
});
// The section that is being read is marked in the navigation.
{
  const links = new Map([...document.querySelectorAll("nav a")].map((a) => [a.getAttribute("href").slice(1), a]));
  const mark = () => {
    const line = document.querySelector("header").offsetHeight + 40;
    const here = [...links.keys()].filter((id) => document.getElementById(id).getBoundingClientRect().top <= line).pop();
    for (const [id, link] of links) {
      if (id === (here ?? "answer")) link.setAttribute("aria-current", "true"); else link.removeAttribute("aria-current");
    }
  };
  let waiting = false;
  window.addEventListener("scroll", () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; mark(); });
  }, { passive: true });
  mark();
}
// Search over losses, data sets, figures and claims: links to what is named so.
{
  const field = document.getElementById("find"), list = document.getElementById("found"), form = document.getElementById("find-form");
  const known = [...document.querySelectorAll("[data-find]")].map((e) => ({ id: e.id, kind: e.dataset.kind, text: e.dataset.find }));
  const most = 12;
  // People search in questions: "does ce + l1 beat dice?".
  const asking = new Set("does do is was are beat beats better best than or versus vs the a an of on which loss".split(" "));
  form.addEventListener("submit", (event) => event.preventDefault());
  field.addEventListener("input", () => {
    const words = field.value.toLowerCase().replace(/[?,;]/g, " ").split(/\s+/).filter((word) => word && !asking.has(word));
    const hits = words.length ? known.filter((one) => words.every((word) => `${one.kind} ${one.text}`.toLowerCase().includes(word))) : [];
    // What begins as it was asked for comes first: "ce + l1" before "jaccard minus ce + l1".
    const later = (one) => !one.text.toLowerCase().startsWith(words.join(" "));
    hits.sort((a, b) => later(a) - later(b));
    list.replaceChildren(...hits.slice(0, most).map((one) => {
      const item = document.createElement("li"), link = document.createElement("a");
      link.href = `#${one.id}`;
      link.textContent = one.text;
      item.append(`${one.kind}: `, link);
      return item;
    }));
    const none = "0 found: nothing on this page is called so. What an experiment does not plan is not on its page";
    const some = `${hits.length} found${hits.length > most ? `, the first ${most} below` : ""}`;
    form.querySelector("output").textContent = !words.length ? "" : hits.length ? some : none;
  });
}
// Verdicts: those of one kind.
{
  const form = document.getElementById("claims-form");
  form?.addEventListener("submit", (event) => event.preventDefault());
  const apply = () => {
    const claims = [...document.querySelectorAll("details.claim")], wanted = form.elements.verdict.value;
    for (const claim of claims) claim.hidden = Boolean(wanted) && claim.dataset.verdict !== wanted;
    form.querySelector("output").textContent = `${claims.filter((claim) => !claim.hidden).length} of ${claims.length} claims`;
  };
  if (form) { form.addEventListener("change", apply); apply(); }
}
