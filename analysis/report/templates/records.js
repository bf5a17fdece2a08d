// The record of a run, laid out when a link asks for it.
(() => {
  "use strict";
  const place = document.getElementById("record");
  const SVG = "http://www.w3.org/2000/svg";

  function terms(entries) {
    const list = make("dl", undefined, { class: "terms" });
    for (const [key, value] of entries) list.append(make("dt", key), make("dd", value));
    return list;
  }

  function accuracies(run) {
    const region = make("div", undefined, {
      class: "scroll", role: "region", tabindex: "0", "aria-label": `Accuracies of ${run.name}`,
    });
    const table = make("table");
    table.append(make("caption", "Every accuracy that was measured"));
    const head = table.createTHead().insertRow();
    for (const [text, kind] of [["Attack", "text"], ["Conditions", "text"], ["Correct", ""],
      ["Accuracy", ""], ["95 % interval", ""], ["Seconds", ""]]) {
      head.append(make("th", text, { scope: "col", class: kind }));
    }
    const body = table.createTBody();
    for (const [attack, conditions, correct, samples, low, high, seconds] of run.results) {
      const row = body.insertRow();
      row.append(make("th", details().attacks[attack], { scope: "row" }));
      row.append(make("td", details().conditions[conditions], { class: "text" }));
      for (const text of [
        `${correct.toLocaleString("en")}/${samples.toLocaleString("en")}`,
        `${((100 * correct) / samples).toFixed(2)} %`,
        `${low.toFixed(1)} to ${high.toFixed(1)} %`,
        seconds.toFixed(1),
      ]) row.append(make("td", text));
    }
    region.append(table);
    return region;
  }

  function shape(tag, attributes, text) {
    const element = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    if (text !== undefined) element.textContent = text;
    return element;
  }

  // Accuracies by epoch, which are in thousandths: lines with their names at their ends.
  function learningCurve(curve) {
    const epochs = details().epochs[curve.epochs];
    const lines = [["robust", "under attack"], ["natural", "natural"], ["train", "training"]];
    const [width, height] = [400, 230];
    const [left, right, top, bottom] = [42, width - 102, 10, height - 34];
    const all = lines.flatMap(([name]) => curve[name]);
    const low = Math.floor(Math.min(...all) / 100) * 100;
    const high = Math.max(Math.ceil(Math.max(...all) / 100) * 100, low + 100);
    const [first, last] = [epochs[0], epochs[epochs.length - 1]];
    const x = (epoch) => (first === last ? (left + right) / 2 : left + ((epoch - first) / (last - first)) * (right - left));
    const y = (value) => bottom - ((value - low) / (high - low)) * (bottom - top);

    const best = curve.robust[epochs.indexOf(curve.best)];
    const end = curve.robust[curve.robust.length - 1];
    const rest = last === curve.best ? "the last" : `and ${(end / 10).toFixed(1)} % in epoch ${last}, the last`;
    const words = "Robust accuracy on held-out images: "
      + `${(best / 10).toFixed(1)} % in epoch ${curve.best}, its best, ${rest}.`;
    const svg = shape("svg", { class: "curve", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": words });
    const step = high - low > 500 ? 200 : 100;
    for (let value = Math.ceil(low / step) * step; value <= high; value += step) {
      svg.append(shape("path", { class: "grid", d: `M${left} ${y(value)}H${right}` }));
      svg.append(shape("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, `${value / 10}%`));
    }
    svg.append(shape("path", { class: "best", d: `M${x(curve.best)} ${top}V${bottom}` }));
    for (const epoch of new Set([first, curve.best, last])) {
      const isCrowded = epoch !== curve.best && Math.abs(x(epoch) - x(curve.best)) < 24;
      if (!isCrowded) svg.append(shape("text", { x: x(epoch), y: bottom + 16, "text-anchor": "middle" }, epoch));
    }
    svg.append(shape("text", { x: (left + right) / 2, y: height - 4, "text-anchor": "middle" }, "epoch"));
    // Names stand at the ends of their lines, but no closer than they are high.
    let above = -Infinity;
    const ends = lines.map(([name, label]) => [y(curve[name].at(-1)), name, label]);
    for (const [at, name, label] of ends.sort(([a], [b]) => a - b)) {
      const points = curve[name].map((value, i) => `${x(epochs[i]).toFixed(1)} ${y(value).toFixed(1)}`);
      svg.append(shape("path", { class: name, d: `M${points.join("L")}${points[1] ? "" : "h.1"}` }));
      above = Math.max(at, above + 14);
      svg.append(shape("text", { class: name, x: right + 8, y: above + 4 }, label));
    }
    const figure = make("figure");
    figure.append(svg, make("figcaption", `${words} The training images are attacked where training attacks them.`));
    return figure;
  }

  function attentionWeights(run) {
    const { columns, weights } = run.attention;
    const region = make("div", undefined, {
      class: "scroll", role: "region", tabindex: "0", "aria-label": `Attention weights of ${run.name}`,
    });
    const table = make("table", undefined, { class: "heat" });
    table.append(make("caption", "Weight of each block by module, the first at the top"));
    const head = table.createTHead().insertRow();
    head.append(make("th", "Module", { scope: "col", class: "text" }));
    for (const name of details().columns[columns]) head.append(make("th", name, { scope: "col" }));
    const body = table.createTBody();
    weights.forEach((row, i) => {
      const line = body.insertRow();
      line.append(make("th", String(i + 1), { scope: "row" }));
      for (const weight of row) {
        const share = (weight / 1000).toFixed(3);
        line.append(make("td", share, { style: `--w: ${share}` }));
      }
    });
    region.append(table);
    return region;
  }

  function layOut(anchor, run) {
    const article = make("article", undefined, { id: anchor, class: "record" });
    const heading = make("h3", `${run.name} (${run.state})`, { tabindex: "-1" });
    const title = make("div", undefined, { class: "title" });
    title.append(pins.button(anchor, run.name), heading);
    article.append(title, make("p", run.id, { class: "note" }));
    if (run.link) {
      const line = make("p", "Record: ");
      line.append(make("a", decodeURIComponent(run.link), { href: run.link }));
      article.append(line);
    }
    if (run.isSelectedOnTest) {
      article.append(make("p", "Selected on the test images, as the authors' code does: its "
        + "accuracies on them are too high.", { class: "warning" }));
    }
    if (run.results.length) article.append(accuracies(run));
    for (const [name, passed, detail] of run.checks) {
      article.append(make("p", `Trust check ${name}: ${passed ? "passed" : "failed"}: ${detail}`,
        { class: passed ? "note" : "note warning" }));
    }
    if (run.curve) article.append(make("h4", "Learning curve"), learningCurve(run.curve));
    if (run.attention) {
      const kind = run.attention.isLearned ? "learned" : "fixed";
      article.append(make("h4", `Attention weights, ${kind}, of epoch ${run.attention.epoch}`));
      article.append(attentionWeights(run));
    }
    article.append(make("h4", "Configuration"), terms(Object.entries(run.config)));
    const shared = make("details");
    shared.append(make("summary", "what all runs of this page share"));
    shared.append(terms(Object.entries(details().config)));
    article.append(shared);
    const origin = run.provenance === null ? {} : details().provenances[run.provenance];
    const whence = [...Object.entries(run.own), ...Object.entries(origin)];
    if (whence.length) article.append(make("h4", "Provenance"), terms(whence));
    return article;
  }

  function open() {
    const anchor = pins.place();
    if (!anchor.startsWith("run-") || !Object.hasOwn(details().runs, anchor)) return;
    const article = layOut(anchor, details().runs[anchor]);
    document.getElementById("record-hint").hidden = true;
    place.replaceChildren(article);
    article.scrollIntoView();
    article.querySelector("h3").focus({ preventScroll: true });
  }

  // Every click counts, also on the link of the record that is open already.
  document.addEventListener("click", (event) => {
    const anchor = event.target.closest?.('a[href^="#run-"]');
    if (anchor && anchor.getAttribute("href") === location.hash) open();
  });
  addEventListener("hashchange", open);
  open();
})();
