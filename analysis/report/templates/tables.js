// Tables of thousands of rows: sorted, filtered and laid out page by page from compact data.
(() => {
  "use strict";
  const PAGE = 100;
  const IS_WORDS = { link: true, links: true, text: true };

  const link = ([text, anchor]) => make("a", text, { href: `#${anchor}` });

  // What a row's run is called; where seeds have a column, its network's name is not enough.
  function nameOf(row, columns) {
    const seed = columns.findIndex((column) => column.label === "Seed");
    return seed < 0 || row[seed] === null ? row[0][0] : `${row[0][0]}, seed ${row[seed]}`;
  }

  // What a cell is sorted by; null sorts last.
  function keyOf(cell, kind) {
    if (cell === null) return null;
    if (kind === "link") return cell[0].toLowerCase();
    if (kind === "links") return cell.length;
    if (kind === "accuracy") return cell[0];
    return typeof cell === "string" ? cell.toLowerCase() : cell;
  }

  function compare(a, b) {
    if (typeof a === "number" && typeof b === "number") return a - b;
    return String(a).localeCompare(String(b), undefined, { numeric: true });
  }

  function wordsOf(row, columns) {
    const texts = row.map((cell, i) => {
      if (cell === null) return "";
      if (columns[i].kind === "link") return cell[0];
      if (columns[i].kind === "links") return cell.map((each) => each[0]).join(" ");
      return columns[i].kind === "accuracy" ? cell[0].toFixed(2) : String(cell);
    });
    return texts.join(" ").toLowerCase();
  }

  function layOut(cell, column, anchor, isFirst) {
    if (column.kind === "links") {
      const place = make("td", undefined, { class: "text" });
      (cell ?? []).forEach((each, i) => place.append(i ? ", " : "", link(each)));
      return place;
    }
    const place = isFirst ? make("th", undefined, { scope: "row" }) : make("td");
    if (IS_WORDS[column.kind] && !isFirst) place.className = "text";
    if (cell === null) place.textContent = "\u2013";
    else if (column.kind === "link") place.append(link(cell));
    else if (column.kind === "accuracy") {
      const [percent, low, high, note] = cell;
      const text = percent.toFixed(column.digits);
      place.append(anchor ? link([text, anchor]) : text);
      place.append(make("small", `${low.toFixed(1)} to ${high.toFixed(1)}${note ? ` ${note}` : ""}`));
    } else if (column.kind === "number") {
      place.textContent = cell.toLocaleString("en", {
        minimumFractionDigits: column.digits,
        maximumFractionDigits: column.digits,
      });
    } else place.textContent = cell;
    return place;
  }

  class DataTable {
    constructor(script) {
      const name = script.dataset.for;
      Object.assign(this, JSON.parse(script.textContent));
      this.element = document.getElementById(name);
      this.form = document.querySelector(`form[data-for="${name}"]`);
      this.pager = document.querySelector(`.pages[data-for="${name}"]`);
      this.words = this.rows.map((row) => wordsOf(row, this.columns));
      this.shown = this.rows.map((_, i) => i);
      this.page = 0;
      this.size = PAGE;
      this.listen();
      this.draw();
    }

    listen() {
      const headings = [...this.element.tHead.rows[0].cells];
      headings.forEach((heading, i) => {
        const button = make("button", undefined, { type: "button" });
        button.append(...heading.childNodes);
        heading.append(button);
        heading.setAttribute("aria-sort", "none");
        button.addEventListener("click", () => {
          const first = IS_WORDS[this.columns[i].kind] ? "ascending" : "descending";
          const other = first === "ascending" ? "descending" : "ascending";
          const order = heading.getAttribute("aria-sort") === first ? other : first;
          for (const each of headings) each.setAttribute("aria-sort", "none");
          heading.setAttribute("aria-sort", order);
          this.order = [i, order === "ascending" ? 1 : -1];
          this.select();
        });
      });
      this.input = this.form.querySelector("input");
      this.form.hidden = false;
      this.form.addEventListener("submit", (event) => event.preventDefault());
      this.input.addEventListener("input", () => this.select());
      const [previous, next, all] = this.pager.querySelectorAll("button");
      previous.addEventListener("click", () => this.turn(-1));
      next.addEventListener("click", () => this.turn(1));
      all.addEventListener("click", () => this.resize(this.size === PAGE ? Infinity : PAGE));
      let before = PAGE; // on paper there are no pages to turn
      addEventListener("beforeprint", () => ([before] = [this.size, this.resize(Infinity)]));
      addEventListener("afterprint", () => this.resize(before));
    }

    // Which rows fit the filter, in which order.
    select() {
      const wanted = this.input.value.toLowerCase().split(/\s+/).filter(Boolean);
      this.shown = this.rows.map((_, i) => i)
        .filter((i) => wanted.every((word) => this.words[i].includes(word)));
      if (this.order) {
        const [column, sign] = this.order;
        const keys = this.rows.map((row) => keyOf(row[column], this.columns[column].kind));
        this.shown.sort((i, j) => {
          if (keys[i] === null || keys[j] === null) return (keys[i] === null) - (keys[j] === null);
          return sign * compare(keys[i], keys[j]) || i - j;
        });
      }
      this.page = 0;
      this.draw();
    }

    turn(step) {
      this.page += step;
      this.draw();
      this.element.scrollIntoView({ block: "start" });
    }

    resize(size) {
      this.page = 0;
      this.size = size;
      this.draw();
    }

    draw() {
      const start = this.page ? this.page * this.size : 0;
      const some = this.shown.slice(start, start + this.size);
      const body = document.createDocumentFragment();
      for (const i of some) {
        const line = make("tr");
        const row = this.rows[i];
        const anchor = this.columns[0].kind === "link" ? row[0][1] : null;
        row.forEach((cell, j) => line.append(layOut(cell, this.columns[j], anchor, j === 0)));
        if (anchor) line.cells[0].prepend(pins.button(anchor, nameOf(row, this.columns)));
        body.append(line);
      }
      this.element.tBodies[0].replaceChildren(body);
      this.report(start, some.length);
    }

    report(start, count) {
      const [total, all] = [this.shown.length, this.rows.length];
      this.form.querySelector("output").value = `${total} of ${all} shown`;
      const [previous, next, every] = this.pager.querySelectorAll("button");
      this.pager.hidden = total <= PAGE;
      previous.disabled = this.page === 0;
      next.disabled = start + count >= total;
      every.textContent = this.size === PAGE ? "Show all" : `Show ${PAGE} a page`;
      this.pager.querySelector("output").value = `${count ? start + 1 : 0} to ${start + count} of ${total}`;
    }
  }

  document.querySelectorAll('script[type="application/json"][data-for]')
    .forEach((script) => new DataTable(script));
})();
