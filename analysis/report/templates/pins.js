// Pinned runs. They live in the address, "#PLACE&pins=run-a,run-b", so that a comparison has a link.
"use strict";

const pins = (() => {
  const canCompare = document.getElementById("compare") !== null;
  let pinned = []; // in the order in which they were pinned
  let numUnknown = 0; // of the address's that are not in this page

  function readAddress() {
    let text = "";
    try {
      text = decodeURIComponent(location.hash.slice(1));
    } catch {
      // A link that is no text.
    }
    const [place, ...rest] = text.split("&");
    const given = rest.find((part) => part.startsWith("pins="));
    return { place, given: given?.slice("pins=".length).split(",").filter(Boolean) };
  }

  // Pins without a place lead to what they are for.
  const addressOf = (place) =>
    pinned.length ? `#${place || "compare"}&pins=${pinned.join(",")}` : `#${place}`;

  // Without a new entry in the history: Back leads to the place before, not through every pin. That
  // an entry was here before is its state.
  function writeAddress(address) {
    history.replaceState("visited", "", address);
  }

  function announce() {
    document.dispatchEvent(new CustomEvent("pinschange"));
  }

  function follow() {
    if (!canCompare) return;
    const { place, given } = readAddress();
    const isReturn = history.state === "visited";
    if (given) {
      const wanted = [...new Set(given)];
      pinned = wanted.filter((anchor) => Object.hasOwn(details().runs, anchor));
      numUnknown = wanted.length - pinned.length;
      announce();
      // The browser finds places by the whole fragment; where it returns to, it scrolls itself.
      if (!isReturn) document.getElementById(place)?.scrollIntoView();
      writeAddress(location.href);
    } else writeAddress(pinned.length ? addressOf(place) : location.href); // plain links keep pins
  }

  function set(anchors) {
    pinned = anchors;
    numUnknown = 0;
    writeAddress(addressOf(readAddress().place));
    announce();
  }

  function has(anchor) {
    return pinned.includes(anchor);
  }

  function toggle(anchor) {
    set(has(anchor) ? pinned.filter((each) => each !== anchor) : [...pinned, anchor]);
  }

  // A button that pins a run; nothing where there is nothing to compare it with.
  function button(anchor, name) {
    if (!canCompare) return "";
    return make("button", undefined, {
      type: "button", class: "pin", title: "Pin to compare", "aria-label": `Pin ${name}`,
      "aria-pressed": String(has(anchor)), "data-pin": anchor,
    });
  }

  document.addEventListener("click", (event) => {
    const pressed = event.target.closest?.("button[data-pin]");
    if (pressed) toggle(pressed.dataset.pin);
  });
  document.addEventListener("pinschange", () => {
    for (const each of document.querySelectorAll("button[data-pin]")) {
      each.setAttribute("aria-pressed", String(has(each.dataset.pin)));
    }
    for (const link of document.querySelectorAll("a.to-comparison")) {
      link.hidden = !pinned.length;
      link.textContent = `Compare ${pinned.length} pinned`;
    }
  });
  addEventListener("hashchange", follow);
  // Once everything is laid out, so that the place is where it stays.
  addEventListener("DOMContentLoaded", follow);

  return {
    button, has, toggle,
    clear: () => set([]),
    addressOf,
    place: () => readAddress().place,
    get all() {
      return pinned;
    },
    get numUnknown() {
      return numUnknown;
    },
  };
})();
