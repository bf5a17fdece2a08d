// Pinned runs side by side. No row holds numbers that were measured under different conditions.
(() => {
  "use strict";
  const section = document.getElementById("compare");
  if (!section) return;
  const place = document.getElementById("comparison");
  const status = section.querySelector("[role=status]");
  const controls = section.querySelector(".controls");
  const [everything, unpinAll] = controls.querySelectorAll("button");
  const hint = status.textContent;
  let showsEqual = false;

  const count = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;

  // A row of the table: its heading, what stands below that, a cell a run; null where it has none.
  function settingRows(runs) {
    const shared = details().config;
    const keys = new Set([...Object.keys(shared), ...runs.flatMap((run) => Object.keys(run.config))]);
    const rows = [...keys].map((key) => ({
      heading: key,
      cells: runs.map((run) => run.config[key] ?? shared[key] ?? null),
    }));
    rows.push({ heading: "Parameters", cells: runs.map((run) => run.parameters?.toLocaleString("en") ?? null) });
    rows.push({ heading: "State", cells: runs.map((run) => run.state) });
    return rows;
  }

  // A row for each attack under each of the conditions that a run of the tables met it under.
  function measureRows(runs) {
    const found = new Map();
    for (const run of runs) {
      for (const [attack, conditions] of run.main.map((i) => run.results[i])) {
        found.set(`${attack} ${conditions}`, [attack, conditions]);
      }
    }
    return [...found.values()].sort(([a, c], [b, d]) => a - b || c - d).map(([attack, conditions]) => ({
      attack,
      heading: details().attacks[attack],
      note: details().conditions[conditions],
      // Of equal conditions the latest counts.
      cells: runs.map((run) => run.results.findLast((row) => row[0] === attack && row[1] === conditions) ?? null),
    }));
  }

  // Of two accuracies one that is missing says nothing; a setting that a run lacks does.
  function differs({ attack, cells }) {
    if (attack === undefined) return new Set(cells).size > 1;
    const known = cells.filter((cell) => cell !== null);
    return new Set(known.map(([, , correct, samples]) => correct / samples)).size > 1;
  }

  function layOutCell(cell, isText) {
    const box = make("td", undefined, isText ? { class: "text" } : {});
    if (cell === null) box.textContent = "\u2013";
    else if (!Array.isArray(cell)) box.textContent = cell;
    else {
      const [, , correct, samples, low, high] = cell;
      box.append(((100 * correct) / samples).toFixed(2));
      box.append(make("small", `${low.toFixed(1)} to ${high.toFixed(1)}`));
    }
    return box;
  }

  function layOutGroup(table, title, rows, mixed) {
    const body = table.createTBody();
    const head = body.insertRow();
    head.className = "section";
    head.append(make("th", title, { scope: "rowgroup", colspan: pins.all.length + 1 }));
    for (const row of rows) {
      const line = body.insertRow();
      const heading = make("th", undefined, { scope: "row" });
      if (differs(row)) {
        line.className = "differs";
        heading.append(make("span", "\u2260", { role: "img", "aria-label": "differs:" }), " ");
      }
      heading.append(row.heading);
      const isMixed = mixed.includes(row.attack);
      if (row.note) heading.append(make("small", row.note, isMixed ? { class: "warning" } : {}));
      line.append(heading, ...row.cells.map((cell) => layOutCell(cell, row.attack === undefined)));
    }
  }

  function layOut(runs) {
    const settings = settingRows(runs);
    const measures = measureRows(runs);
    const attacks = measures.map((row) => row.attack);
    const mixed = [...new Set(attacks.filter((attack, i) => attacks.indexOf(attack) < i))];
    const table = make("table", undefined, { class: "comparison" });
    table.append(make("caption", "Accuracies in percent, their 95 % intervals over the images below; "
      + "\u2260 marks what differs", { id: "comparison-caption" }));
    const head = table.createTHead().insertRow();
    head.append(make("th", "Run", { scope: "col" }));
    pins.all.forEach((anchor, i) => {
      const heading = make("th", undefined, { scope: "col", class: "text" });
      heading.append(pins.button(anchor, runs[i].name), make("a", runs[i].name, { href: `#${anchor}` }));
      head.append(heading);
    });
    layOutGroup(table, "Measures", measures, mixed);
    const shown = settings.filter((row) => showsEqual || differs(row));
    layOutGroup(table, shown.length ? "Settings" : "Settings: none differs", shown, mixed);
    const region = make("div", undefined, {
      class: "scroll", role: "region", tabindex: "0", "aria-labelledby": "comparison-caption",
    });
    region.append(table);
    return [...warnings(runs, mixed), region];
  }

  function warnings(runs, mixed) {
    const lines = [];
    if (mixed.length) {
      const names = mixed.map((attack) => details().attacks[attack]).join(", ");
      lines.push(`Different conditions: ${names} was not measured alike for all of these runs. Each of `
        + "the conditions has a row of its own; numbers of different rows say nothing of each other.");
    }
    for (const run of runs) {
      if (run.isSelectedOnTest) lines.push(`${run.name}: selected on the test images, so that its accuracies on them are too high.`);
      for (const [name, passed, detail] of run.checks) {
        if (!passed) lines.push(`${run.name}: trust check ${name} failed: ${detail}`);
      }
    }
    return lines.map((text) => make("p", text, { class: "note warning" }));
  }

  function say() {
    const number = pins.all.length;
    const unknown = pins.numUnknown
      ? `${count(pins.numUnknown, "run")} of the link ${pins.numUnknown === 1 ? "is" : "are"} not in this page. ` : "";
    const next = number === 1 ? "1 run is pinned: pin another to compare it with." : `${number} runs are pinned.`;
    return unknown + (number ? next : hint);
  }

  function draw() {
    const isFocused = place.contains(document.activeElement);
    const column = [...place.querySelectorAll("button")].indexOf(document.activeElement);
    status.textContent = say();
    controls.hidden = !pins.all.length;
    controls.querySelector("a").href = pins.addressOf("compare");
    place.replaceChildren(...(pins.all.length ? layOut(pins.all.map((each) => details().runs[each])) : []));
    if (!isFocused) return;
    // What had the focus is gone: its neighbour has it now, or the heading.
    const buttons = place.querySelectorAll("button");
    (buttons[Math.min(column, buttons.length - 1)] ?? section.querySelector("h2")).focus({ preventScroll: true });
  }

  everything.addEventListener("click", () => {
    showsEqual = !showsEqual;
    everything.setAttribute("aria-pressed", String(showsEqual));
    draw();
  });
  unpinAll.addEventListener("click", () => {
    pins.clear();
    section.querySelector("h2").focus({ preventScroll: true });
  });
  document.addEventListener("pinschange", draw);
})();
