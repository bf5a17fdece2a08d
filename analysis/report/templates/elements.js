// What the page's other scripts build with.
"use strict";

function make(tag, text, attributes = {}) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

// All that is known of each run; parsed when first asked for: it is most of the page.
const details = (() => {
  let parsed = null;
  return () => (parsed ??= JSON.parse(document.getElementById("details").textContent));
})();
