// Theme, and the paper's tables, which sort.
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

  setUpTheme();
  document.querySelectorAll("table[data-sortable]").forEach(makeSortable);
})();
