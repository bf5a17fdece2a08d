// Theme, tables that sort and filter, links that open what they lead to.
(() => {
  "use strict";
  const root = document.documentElement;

  function setUpTheme() {
    const button = document.getElementById("theme");
    const system = matchMedia("(prefers-color-scheme: dark)");
    const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
    const show = () => {
      button.setAttribute("aria-pressed", String(isDark()));
      document.dispatchEvent(new CustomEvent("themechange"));
    };
    button.hidden = false;
    button.addEventListener("click", () => {
      root.dataset.theme = isDark() ? "light" : "dark";
      try {
        localStorage.setItem("nasbench-at-theme", root.dataset.theme);
      } catch {
        // No storage: the choice lasts as long as the page.
      }
      show();
    });
    system.addEventListener("change", show);
    show();
  }

  // A cell's value is its data-value, else the number it begins with, else its text.
  function valueOf(row, column) {
    const cell = row.cells[column];
    if (!cell) return null;
    const text = (cell.dataset.value ?? cell.textContent).trim();
    const number = Number.parseFloat(text);
    if (text === "" || text === "\u2013") return null;
    return /^[-+]?[\d.]/.test(text) && !Number.isNaN(number) ? number : text.toLowerCase();
  }

  function compare(a, b) {
    if (typeof a === "number" && typeof b === "number") return a - b;
    return String(a).localeCompare(String(b), undefined, { numeric: true });
  }

  // Within each body of the table, so that sections stay; fixed rows keep their places at its ends.
  function sortTable(table, column, sign) {
    for (const body of table.tBodies) {
      const rows = [...body.rows].filter((row) => !("fixed" in row.dataset));
      const last = rows.length ? rows[rows.length - 1].nextElementSibling : null;
      const keyed = rows.map((row) => [valueOf(row, column), row]);
      keyed.sort(([a], [b]) => {
        if (a === null || b === null) return (a === null) - (b === null);
        return sign * compare(a, b);
      });
      for (const [, row] of keyed) body.insertBefore(row, last);
    }
  }

  function makeSortable(table) {
    const headings = [...table.tHead.rows[0].cells];
    headings.forEach((heading, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...heading.childNodes);
      heading.append(button);
      heading.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const first = heading.classList.contains("text") || column === 0 ? "ascending" : "descending";
        const other = first === "ascending" ? "descending" : "ascending";
        const order = heading.getAttribute("aria-sort") === first ? other : first;
        for (const each of headings) each.setAttribute("aria-sort", "none");
        heading.setAttribute("aria-sort", order);
        sortTable(table, column, order === "ascending" ? 1 : -1);
      });
    });
  }

  function makeFilterable(form) {
    const table = document.getElementById(form.dataset.for);
    const input = form.querySelector("input");
    const status = form.querySelector("output");
    const rows = [...table.tBodies].flatMap((body) => [...body.rows]);
    const update = () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const row of rows) {
        const text = row.textContent.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
        shown += Number(!row.hidden);
      }
      status.value = `${shown} of ${rows.length} shown`;
    };
    form.hidden = false;
    form.addEventListener("submit", (event) => event.preventDefault());
    input.addEventListener("input", update);
    update();
  }

  function openTarget() {
    let id;
    try {
      id = decodeURIComponent(location.hash.slice(1));
    } catch {
      return; // a link that is no text
    }
    const target = document.getElementById(id);
    if (target instanceof HTMLDetailsElement) target.open = true;
  }

  setUpTheme();
  document.querySelectorAll("table[data-sortable]").forEach(makeSortable);
  document.querySelectorAll("form.filter").forEach(makeFilterable);
  addEventListener("hashchange", openTarget);
  openTarget();
})();
