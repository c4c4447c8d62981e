/* Pages of this book: boxes that scroll say so, the cells of a section's code fold as one, the link to a
   figure's numbers stands at the end of the caption, and glued sentences are not bold. */
(() => {
  "use strict";
  const BOXES = `.cae-box, .cell_output .output, .pst-scrollable-table-container, div.math,
    .highlight pre`;

  /* What is wider than its place scrolls sideways. Then it says so (see cae.css), and keys reach it. */
  function markScrolling(box) {
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

  /* Cells whose code is hidden and that stand in a row: one block for all, before the first output. */
  function foldCode(article) {
    const isHidden = cell => cell?.matches?.("div.cell.tag_hide-input");
    for (const first of article.querySelectorAll("div.cell.tag_hide-input")) {
      if (isHidden(first.previousElementSibling)) continue;
      const cells = [first];
      while (isHidden(cells.at(-1).nextElementSibling)) cells.push(cells.at(-1).nextElementSibling);
      const [target, ...others] = cells.map(cell => cell.querySelector("details.hide"));
      if (!target) continue;
      for (const other of others.filter(Boolean)) {
        target.append(...[...other.children].filter(child => !child.matches("summary")));
        other.remove();
      }
      for (const cell of cells.slice(1)) {
        if (!cell.textContent.trim() && !cell.querySelector("svg, img, canvas")) cell.remove();
      }
    }
  }

  /* A glued number is bold (see Jupyter Book), a glued sentence is not. */
  function unboldSentences(article) {
    for (const text of article.querySelectorAll(".pasted-text")) {
      if (text.textContent.length > 40) text.style.fontWeight = "inherit";
    }
  }

  /* The link to a figure's numbers: into the paragraph below the figure, if there is one. */
  function moveLinks(article) {
    for (const link of article.querySelectorAll(".cell_output .cae-data")) {
      const caption = link.closest("div.cell")?.nextElementSibling;
      if (!link.previousElementSibling?.matches(".cae-box:has(svg)") || !caption?.matches("p")) continue;
      caption.append(" ", ...link.childNodes);
      link.remove();
    }
  }

  document.addEventListener("DOMContentLoaded", () => {
    const article = document.querySelector(".bd-article");
    if (!article) return;
    foldCode(article);
    moveLinks(article);
    unboldSentences(article);
    const watch = new ResizeObserver(entries => entries.forEach(entry => markScrolling(entry.target)));
    for (const box of document.querySelectorAll(BOXES)) {
      markScrolling(box);
      watch.observe(box);
    }
  });
})();
