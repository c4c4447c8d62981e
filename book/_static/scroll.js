/* What is wider than its place scrolls sideways. Then it says so (see cae.css), and keys reach it. */
(() => {
  "use strict";
  const BOXES = `.cae-box, .cell_output .output, .pst-scrollable-table-container, div.math,
    .highlight pre`;

  function mark(box) {
    const scrolls = box.scrollWidth > box.clientWidth + 1;
    box.classList.toggle("cae-scrolls", scrolls);
    if (scrolls) {
      box.tabIndex = 0;
      box.setAttribute("role", "group");
      box.setAttribute("aria-label", "Scrolls sideways");
    } else {
      for (const name of ["tabindex", "role", "aria-label"]) box.removeAttribute(name);
    }
  }

  document.addEventListener("DOMContentLoaded", () => {
    const watch = new ResizeObserver(entries => entries.forEach(entry => mark(entry.target)));
    for (const box of document.querySelectorAll(BOXES)) {
      mark(box);
      watch.observe(box);
    }
  });
})();
