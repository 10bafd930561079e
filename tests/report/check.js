"use strict";
// Drives the page as a reader would and writes what it saw into the attribute data-facts of the body.
window.addEventListener("load", () => {
  const facts = { errors: window.failures };
  const all = (what, where = document) => [...where.querySelectorAll(what)];
  const change = (element, value) => { element.value = value; element.dispatchEvent(new Event("change", { bubbles: true })); };
  const text = (element) => element.textContent.trim();
  try {
    const page = document.documentElement;
    facts.stops = all("a[href], button, select, input, summary, [tabindex='0']").filter((e) => e.checkVisibility()).length;
    facts.openings = all("details.group").map((group) => group.open);
    facts.state = [location.hash, document.getElementById("advice-form").elements.empty.value];
    facts.here = all("nav a[aria-current]").map(text);
    all("details.group").forEach((group) => { group.open = true; });
    facts.overflow = page.scrollWidth - page.clientWidth;
    facts.tooWide = all("section").filter((s) => s.scrollWidth > s.clientWidth + 1).map((s) => s.id);

    const board = document.querySelector("table.board");
    const column = (n) => [...board.tBodies[0].rows].map((row) => text(row.cells[n]));
    const heads = [...board.tHead.rows[0].cells];
    const hd95 = heads.findIndex((h) => h.textContent.startsWith("HD95"));
    const button = heads[hd95].querySelector("button");
    button.focus();
    facts.focused = document.activeElement === button;
    facts.outline = getComputedStyle(button).outlineStyle;
    button.click();
    facts.rising = column(hd95);
    facts.sort = heads[hd95].getAttribute("aria-sort");
    button.click();
    facts.falling = column(hd95);
    heads[1].querySelector("button").click();
    facts.names = column(1);
    facts.unsorted = [];
    for (const table of all("table.sortable")) {
      for (const head of table.tHead.rows[0].cells) {
        head.querySelector("button").click();
        const said = all("[aria-sort]", table.tHead);
        if (said.length !== 1 || said[0] !== head) facts.unsorted.push([table.caption?.textContent, text(head)]);
      }
    }

    facts.effects = [];
    const effects = document.querySelector('form[data-for="effects-table"]');
    for (const select of all("select", effects)) {
      for (const option of [...select.options].filter((o) => o.value)) {
        change(select, option.value);
        const shown = [...document.getElementById("effects-table").tBodies[0].rows].filter((row) => !row.hidden);
        const found = [...new Set(shown.map((row) => text(row.cells[Number(select.dataset.column)])))];
        facts.effects.push([select.dataset.column, option.value, found, text(effects.querySelector("output"))]);
      }
      change(select, "");
    }

    const boards = document.getElementById("board-form");
    const visible = () => all("details.board").filter((b) => !b.hidden);
    const rows = () => visible().flatMap((b) => all("tbody tr", b)).filter((row) => !row.hidden);
    facts.boards = { output: text(boards.querySelector("output")) };
    const filters = { "data set": "scenes(foreground=0.002)", family: "overlap", loss: "dice" };
    for (const [name, value] of Object.entries(filters)) {
      change(boards.elements[name], value);
      const told = name === "data set" ? visible().map((b) => b.dataset.label) : rows().map((row) => row.dataset[name]);
      facts.boards[name] = [[...new Set(told)], [value]];
      change(boards.elements[name], "");
    }
    facts.metrics = {};
    const own = document.querySelector("details.board");
    for (const option of [...boards.elements.metric.options].filter((o) => o.value)) {
      change(boards.elements.metric, option.value);
      const shown = [...own.querySelector("thead tr").cells].filter((h) => !h.hidden);
      const head = shown.find((h) => h.dataset.metric === option.value);
      const values = all("tbody tr", own).map((row) => Number(row.cells[head.cellIndex].dataset.value));
      facts.metrics[option.value] = [shown.map(text), values, Boolean(head.dataset.lower)];
    }
    change(boards.elements.metric, "");
    facts["all metrics"] = all("tbody tr", own).map((row) => Number(text(row.cells[0])));

    facts.broken = all("a").map((a) => a.getAttribute("href"))
      .filter((href) => !/^(data|https):/.test(href) && !(href.startsWith("#") && document.getElementById(href.slice(1))));
    facts.skip = document.querySelector("a.skip").getAttribute("href");

    const cells = document.getElementById("cells-form"), table = document.getElementById("cells-table");
    facts.drilled = [];
    facts.curves = 0;
    for (const link of all("a.drill").filter((_, i) => i % 7 === 0)) {
      link.click();
      const wanted = [cells.elements.variant, cells.elements.loss].map((s) => text(s.selectedOptions[0]));
      const shown = [...table.tBodies[0].rows].map((row) => [...row.cells].map(text));
      facts.drilled.push([wanted, shown, text(table.caption), document.activeElement === table]);
      facts.curves += all("svg.curve", table).length;
    }
    const choose = (select, label) => change(select, [...select.options].find((o) => text(o).startsWith(label)).value);
    choose(cells.elements.variant, "scenes(foreground=0.05)");
    choose(cells.elements.loss, "ce");
    facts["by form"] = text(cells.querySelector("output"));
    choose(cells.elements.variant, "scenes(foreground=0.01, noise=2.0)");
    facts["no cells"] = text(cells.querySelector("output"));

    const part = document.querySelector("details.part");
    const shownTable = () => all(".chosen", part).flatMap((t, i) => (t.hidden ? [] : [i]));
    facts.part = [shownTable()];
    change(part.querySelector("select"), "1");
    facts.part.push(shownTable());

    const find = document.getElementById("find"), results = document.getElementById("found");
    const search = (words) => { find.value = words; find.dispatchEvent(new Event("input", { bubbles: true })); };
    search("dice overlap");
    facts.search = [all("li", results).map(text), text(document.querySelector("#find-form output"))];
    all("details.group").forEach((group) => { group.open = false; });
    results.querySelector("a").click();
    const card = document.getElementById(results.querySelector("a").getAttribute("href").slice(1));
    facts.revealed = [card.open, card.checkVisibility()];
    search("does dice_ce beat dice?");
    facts.pair = all("li", results).map(text).filter((hit) => hit.startsWith("pair: "));
    search("claim m1");
    facts["of a kind"] = all("li", results).map(text);
    search("nothing is called so");
    facts["no hit"] = [all("li", results).length, text(document.querySelector("#find-form output"))];
    all("details.group").forEach((group) => { group.open = true; });
    const name = document.querySelector("a.name");
    name.dispatchEvent(new Event("pointerover", { bubbles: true }));
    facts.tips = all("a.name").map((a) => { a.dispatchEvent(new Event("pointerover", { bubbles: true })); return [text(a), a.title]; });
    const claims = document.getElementById("claims-form");
    facts.claims = [...claims.elements.verdict.options].map((option) => {
      change(claims.elements.verdict, option.value);
      const shown = all("details.claim").filter((claim) => !claim.hidden).map((claim) => claim.dataset.verdict);
      return [option.value, [...new Set(shown)], shown.length, text(claims.querySelector("output"))];
    });

    const form = document.getElementById("advice-form"), advice = document.getElementById("advice-table");
    // Before the many states below, of whose addresses a browser keeps two hundred.
    form.elements.goal.value = "calibrated volume";
    form.elements.foreground.value = "2.5 to 10 %";
    change(form.elements.empty, "10 % or less");
    facts.address = location.hash;
    facts.advice = [];
    const options = (name) => [...form.elements[name].options].map((o) => o.value);
    for (const a of options("foreground")) for (const b of options("boundaries")) for (const c of options("empty")) for (const goal of options("goal")) {
      form.elements.foreground.value = a; form.elements.boundaries.value = b; form.elements.empty.value = c;
      change(form.elements.goal, goal);
      const shown = [...advice.tBodies[0].rows].map((row) => [...row.cells].map(text));
      facts.advice.push([[a, b, c], goal, shown, ["says", "more", "sets"].map((name) => text(document.getElementById(`advice-${name}`)))]);
    }

    facts.unlabelled = all("select, input, button, [role=region], form").filter((e) =>
      !(e.closest("label") || e.getAttribute("aria-label") || text(e))).map((e) => e.outerHTML.slice(0, 90));
    const ink = () => getComputedStyle(document.body).color;
    const before = ink();
    document.getElementById("theme").click();
    facts.themes = [before, ink(), page.dataset.theme];
  } catch (error) {
    facts.errors.push(String(error.stack));
  }
  document.body.setAttribute("data-facts", JSON.stringify(facts));
});
