/* A slider over the weights λ of the attribution loss that were measured, one method at a time: the
   attribution of words and the accuracy, both on the test set. The page on the
   gap and accuracy has embedded the rows; what it shows without scripts is hidden. */
(() => {
  "use strict";
  const SPACE = 0.08;  // of the axis, left free at both ends

  const number = (value, digits, sign) => {
    const text = Math.abs(value).toFixed(digits);
    if (!Number(text)) return text;
    return (value < 0 ? "−" : sign ? "+" : "") + text;
  };
  const percent = share => number(100 * share, 0);
  const points = share => number(100 * share, 1, true);

  function start(root, { colors, references, rows }) {
    const methods = [...new Set(rows.map(row => row.method))];
    const marks = Object.entries(references);
    const ends = row => [row.low ?? row.estimate, row.high ?? row.estimate];  // null: no interval
    const values = [...rows.flatMap(ends), ...marks.map(([, value]) => value)];
    const [least, most] = [Math.min(...values), Math.max(...values)];
    const low = least - SPACE * (most - least), high = most + SPACE * (most - least);
    const share = value => (value - low) / (high - low), at = value => `${100 * share(value)}%`;
    // Near an end of the axis, a mark's label begins or ends at its line. In this order, hardly a line
    // crosses a label: those that begin at it, then those that end at it, then those in the middle.
    const before = value => share(value) < 0.25 ? 0 : share(value) > 0.75 ? 1 : share(value);
    const inside = value => Number(before(value) > 0 && before(value) < 1);
    const order = [...marks].sort(([, a], [, b]) => inside(a) - inside(b)
      || before(a) - before(b) || (before(a) ? b - a : a - b));
    const top = mark => `${1.3 * order.indexOf(mark)}rem`;
    const roles = Object.keys(colors), largest = Math.max(...rows.flatMap(row => roles.map(r => row[r])));
    const size = value => `${98 * Math.max(value, 0) / largest}%`;

    const form = document.createElement("form");
    form.setAttribute("aria-label", "Accuracy by weight of the attribution loss");
    form.innerHTML = `
      <fieldset><legend>CAE trained by</legend>${methods.map((method, place) => `<label><input
        type="radio" name="method" value="${method}"${place ? "" : " checked"}> ${method}</label>`)
        .join("")}</fieldset>
      <div class="weight"><label for="cae-weight">Weight λ</label><div><input type="range"
        id="cae-weight" name="weight" min="0" step="1" value="0"><ol aria-hidden="true"></ol></div></div>
      <div class="panels">
        <table><caption>Mean attribution of words, % of that of CLIP-FT's object words</caption>
          <tbody>${roles.map(role => `<tr data-role="${role}"><th scope="row">${role}</th>
            <td class="number"></td><td class="bar" aria-hidden="true"><span style="background:${
            colors[role]}"></span></td></tr>`).join("")}</tbody></table>
        <div class="accuracy"><p>Accuracy minus CLIP-FT's, points</p>
          <div class="axis" aria-hidden="true">${marks.map(mark => `<i style="left:${
            at(mark[1])};top:${top(mark)}"></i><small style="top:${top(mark)};left:${at(mark[1])
            };translate:${-100 * before(mark[1])}%">${mark[0]} ${mark[1] ? points(mark[1]) : 0}</small>`).join("")}
            <span class="line"></span><span class="interval"></span><span class="dot"></span></div></div>
      </div>
      <p role="status" aria-live="polite"></p><p class="note"></p>`;
    form.style.setProperty("--marks", marks.length);
    root.prepend(form);
    root.classList.add("moves");
    const part = what => form.querySelector(what), { weight } = form.elements;
    let steps = [];

    function chooseMethod() {
      steps = rows.filter(row => row.method === form.elements.method.value);
      weight.max = steps.length - 1;
      weight.value = Math.max(0, steps.findIndex(row => row.chosen));
      part("ol").innerHTML = steps.map(row =>
        `<li${row.chosen ? ' class="chosen"' : ""}>${row.weight}</li>`).join("");
      moveWeight();
    }

    function moveWeight() {
      const row = steps[Number(weight.value)];
      for (const line of form.querySelectorAll("tbody tr")) {
        const value = row[line.dataset.role];
        line.querySelector(".number").textContent = percent(value);
        line.querySelector(".bar span").style.width = size(value);
      }
      const [left, right] = ends(row);
      part(".interval").style.left = at(left);
      part(".interval").style.right = `${100 - parseFloat(at(right))}%`;
      part(".dot").style.left = at(row.estimate);
      const name = row.weight ? `λ ${row.weight}` : "λ 0, which is CLIP-FT";
      const range = row.low === null ? "(no interval)" : `[${points(left)},\u00a0${points(right)}]`;
      const interval = row.weight ? ` ${range}` : "";
      const seeds = row.seeds > 1 ? `mean of ${row.seeds} seeds` : "one seed";
      part(".note").textContent = `Test set, ${seeds}. Accuracy is the mean over benchmark families; the
        bar through the dot is its 95 % interval. λ 0 is CLIP-FT. Bold: the λ of the other figures.`
        .replace(/\s+/g, " ");
      weight.setAttribute("aria-valuetext", name);
      part("[role=status]").textContent = `CAE by ${row.method}, ${name}: object-word gap ${
        percent(row.gap)} % of CLIP-FT's, accuracy ${points(row.estimate)} points${interval}`;
    }

    form.addEventListener("submit", event => event.preventDefault());
    form.addEventListener("input", event => event.target === weight ? moveWeight() : chooseMethod());
    chooseMethod();
  }

  document.addEventListener("DOMContentLoaded", () => {
    const root = document.getElementById("cae-weight-slider");
    const data = document.getElementById("cae-weight-slider-data");
    if (root) start(root, JSON.parse(data.textContent));
  });
})();
