/* Pages of this book: boxes that scroll say so and keep the headers of a table's rows, the cells of a
   section's code fold as one, the link to a figure's numbers stands at the end of the caption, and glued
   sentences are not bold. */
(() => {
  "use strict";
  const BOXES = `.cae-box, .cell_output .output, .pst-scrollable-table-container, div.math,
    .highlight pre`;
  const PADDING = 6;  // of a table's cell: what is cut off by less needs no scrolling
  const BORDER = 2;  // of a cell at most: a browser leaves it without background
  const MOST_HEADERS = 0.6;  // of a box's width

  /* What is wider than its place scrolls sideways. Then it says so (see cae.css), and keys reach it. */
  function markScrolling(box) {
    const scrolls = box.scrollWidth > box.clientWidth + PADDING;
    box.classList.toggle("cae-scrolls", scrolls);
    markEnd(box);
    keepHeaders(box, scrolls);
    if (scrolls) {
      box.tabIndex = 0;
      box.setAttribute("role", "group");
      box.setAttribute("aria-label", "Scrolls sideways");
    } else {
      for (const name of ["tabindex", "role", "aria-label"]) box.removeAttribute(name);
    }
  }

  function markEnd(box) {
    box.classList.toggle("cae-at-end", box.scrollLeft + box.clientWidth >= box.scrollWidth - PADDING);
  }

  /* The columns of row headers, or the first column, stay in sight, as many as leave room for others. */
  function keepHeaders(box, scrolls) {
    const rows = [...(box.querySelector(":scope > table")?.rows ?? [])];
    const isHeader = cell => cell.tagName === "TH";
    const first = rows.find(row => row.parentElement.tagName === "TBODY");
    if (!first) return;
    const count = Math.max(1, [...first.cells].findIndex(cell => !isHeader(cell)));
    const ends = [0];
    for (const cell of [...first.cells].slice(0, count)) {
      ends.push(ends.at(-1) + cell.getBoundingClientRect().width);
    }
    for (const row of rows) {
      const nHeaders = row.parentElement.tagName === "THEAD" || count === 1
        ? count : [...row.cells].filter(isHeader).length;  // without those that span several rows
      [...row.cells].slice(0, nHeaders).forEach((cell, place) => {
        const column = count - nHeaders + place;
        const stays = scrolls && ends[column + 1] <= MOST_HEADERS * box.clientWidth;
        cell.classList.toggle("cae-stays", stays);
        cell.style.left = `${Math.floor(ends[column]) - BORDER * (column + 1)}px`;
      });
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

  /* The paragraph below a figure; on the front page, no cell is around the figure. */
  function captionOf(part) {
    const below = (part.closest("div.cell") ?? part.closest("div.output"))?.nextElementSibling;
    return below?.matches("p") ? below : null;
  }

  /* The link to a figure's numbers: into the paragraph below the figure, if there is one. */
  function moveLinks(article) {
    for (const link of article.querySelectorAll(".output .cae-data")) {
      const caption = captionOf(link);
      if (!link.previousElementSibling?.matches(".cae-box:has(svg)") || !caption) continue;
      caption.append(" ", ...link.childNodes);
      link.remove();
    }
  }

  /* Where panels stand below each other, captions that tell them apart by left and right say so. */
  function noteStacks(article) {
    for (const box of article.querySelectorAll(".output .cae-box:has(.cae-stacked)")) {
      const caption = captionOf(box);
      if (!caption || !/\b(left|middle|right)\b/i.test(caption.textContent)) continue;
      const note = document.createElement("span");
      note.className = "cae-stacked-note";
      note.textContent = " (On this narrow screen, the panels stand below each other, from left to right.)";
      caption.append(note);
    }
  }

  document.addEventListener("DOMContentLoaded", () => {
    const article = document.querySelector(".bd-article");
    if (!article) return;
    foldCode(article);
    noteStacks(article);
    moveLinks(article);
    unboldSentences(article);
    const watch = new ResizeObserver(entries => entries.forEach(entry => markScrolling(entry.target)));
    for (const box of document.querySelectorAll(BOXES)) {
      markScrolling(box);
      watch.observe(box);
      box.addEventListener("scroll", () => markEnd(box));
    }
  });
})();
