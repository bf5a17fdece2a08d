// In the head, so that the page never flashes in the other theme.
(() => {
  "use strict";
  try {
    const theme = localStorage.getItem("nasbench-at-theme");
    if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  } catch {
    // A page opened from disk may have no storage; the system's theme holds then.
  }
})();
