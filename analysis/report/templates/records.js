// The record of a run, laid out when a link asks for it.
(() => {
  "use strict";
  const source = document.getElementById("details");
  const place = document.getElementById("record");
  let details = null; // parsed when first asked for: it is most of the page

  function make(tag, text, attributes = {}) {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  }

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
      row.append(make("th", details.words[attack], { scope: "row" }));
      row.append(make("td", details.words[conditions], { class: "text" }));
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

  function layOut(anchor, run) {
    const article = make("article", undefined, { id: anchor, class: "record" });
    const heading = make("h3", `${run.name} (${run.state})`, { tabindex: "-1" });
    article.append(heading, make("p", run.id, { class: "note" }));
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
    article.append(make("h4", "Configuration"), terms(Object.entries(run.config)));
    const shared = make("details");
    shared.append(make("summary", "what all runs of this page share"));
    shared.append(terms(Object.entries(details.config)));
    article.append(shared);
    const origin = run.provenance === null ? {} : details.provenances[run.provenance];
    const whence = [...Object.entries(run.own), ...Object.entries(origin)];
    if (whence.length) article.append(make("h4", "Provenance"), terms(whence));
    return article;
  }

  function open() {
    let anchor;
    try {
      anchor = decodeURIComponent(location.hash.slice(1));
    } catch {
      return; // a link that is no text
    }
    if (!anchor.startsWith("run-")) return;
    details ??= JSON.parse(source.textContent);
    if (!Object.hasOwn(details.runs, anchor)) return;
    const article = layOut(anchor, details.runs[anchor]);
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
