/* Lead against accuracy, by hand: a slider over the λ that were measured, of one method at a time. The
   rows are those that the page `bindings` has embedded behind its still figure, which is shown where
   there are no scripts, and in print. */
(() => {
  "use strict";
  const FT = "CLIP-FT", MARGIN = 0.2;  // of NegCLIP's gain, left free at both ends of the axis
  const WORLDS = {
    test: {
      words: "What words are worth, % of CLIP-FT's object words",
      gain: "Accuracy minus CLIP-FT, points", spoken: "accuracy",
      note: row => `Mean of families on test items; ${row.seeds > 1 ? `${row.seeds} seeds` :
        "one seed"}, 95 % interval. Line in a bar: CLIP-FT; bold λ: the one of the other pages.`,
    },
    validation: {
      words: "Lead of object words, % of CLIP-FT's, read by",
      gain: "Captions that beat their own swaps, minus CLIP-FT, points", spoken: "beating own swaps",
      note: row => `Swept on validation alone: one seed, no interval, margin ${row.margin}. Line in a
        bar: CLIP-FT; bold λ: the chosen one.`,
    },
  };

  const number = (value, digits, sign) => {
    const text = Math.abs(value).toFixed(digits);
    if (!Number(text)) return text;
    return (value < 0 ? "−" : sign ? "+" : "") + text;
  };
  const percent = share => number(100 * share, 0);
  const points = share => number(100 * share, 1, true);
  const known = value => value !== null && value !== undefined;

  function start(root, { colors, rows }) {
    const methods = [...new Set(rows.map(row => row.method))];
    const form = document.createElement("form");
    form.setAttribute("aria-label", "Lead against accuracy, by hand");
    form.innerHTML = `
      <fieldset><legend>CAE by</legend>${methods.map((method, at) => `<label><input type="radio"
        name="method" value="${method}" ${at ? "" : "checked"}> ${method}</label>`).join("")}</fieldset>
      <div class="weight"><label for="cae-lead-weight">λ</label><div><input type="range"
        id="cae-lead-weight" name="weight" min="0" step="1" value="0"><ol aria-hidden="true"></ol>
      </div></div>
      <div class="panels"><table class="words"><caption></caption><tbody></tbody></table>
        <div class="gain"><p></p><div class="axis" aria-hidden="true"></div></div></div>
      <p role="status" aria-live="polite"></p><p class="note"></p>`;
    root.prepend(form);
    root.classList.add("by-hand");
    const part = what => form.querySelector(what), { weight } = form.elements;
    let steps = [];

    /* The parts that stay while λ moves: words with their bars, the axis, a dot for each λ. */
    function choose() {
      steps = rows.filter(row => row.method === form.elements.method.value);
      const [first] = steps, world = WORLDS[first.split];
      const names = Object.keys(colors).filter(name => known(first[name]));
      const top = Math.max(...steps.flatMap(row => names.map(name => row[name])));
      const gains = rows.filter(row => row.split === first.split);
      const low = Math.min(-MARGIN * first.negclip, ...gains.map(row => row.low ?? row.estimate));
      const high = Math.max((1 + MARGIN) * first.negclip,
        ...gains.map(row => row.high ?? row.estimate));
      form.at = value => `${100 * (value - low) / (high - low)}%`;
      form.size = value => `${98 * value / top}%`;  // room for the line at its end
      weight.max = steps.length - 1;
      part("ol").innerHTML = steps.map(row => `<li${row.chosen ? ' class="chosen"' : ""}>${
        row.weight}</li>`).join("");
      part(".words caption").textContent = world.words;
      part("tbody").innerHTML = names.map(name => `<tr data-name="${name}"><th scope="row">${name}</th>
        <td class="number"></td><td class="bar" aria-hidden="true"><span style="background:${
        colors[name]}"></span><i style="left:${form.size(first[name])}"></i></td></tr>`).join("");
      part(".gain p").textContent = world.gain;
      part(".axis").innerHTML = `${[[0, FT], [first.negclip, "NegCLIP"]].map(([value, name]) =>
        `<i style="left:${form.at(value)}"></i><small style="left:${form.at(value)};translate:-${
        form.at(value)}">${name} ${
        value ? points(value) : 0}</small>`).join("")}${steps.map(row =>
        `<span class="past" style="left:${form.at(row.estimate)}"></span>`).join("")}
        <span class="interval"></span><span class="dot"></span>`;
      part(".note").textContent = world.note(first).replace(/\s+/g, " ");
      move();
    }

    function move() {
      const row = steps[Number(weight.value)], { spoken } = WORLDS[row.split];
      for (const line of form.querySelectorAll("tbody tr")) {
        const value = row[line.dataset.name];
        line.querySelector(".number").textContent = percent(value);
        line.querySelector(".bar span").style.width = form.size(value);
      }
      const [low, high] = known(row.low) ? [row.low, row.high] : [row.estimate, row.estimate];
      Object.assign(part(".interval").style, { left: form.at(low),
        right: `${100 - parseFloat(form.at(high))}%` });
      part(".dot").style.left = form.at(row.estimate);
      const interval = known(row.low) && row.weight
        ? ` [${number(100 * low, 1)}, ${number(100 * high, 1)}]` : "";
      const name = row.weight ? `λ ${row.weight}` : `λ 0, which is ${FT}`;
      weight.setAttribute("aria-valuetext", name);
      part("[role=status]").textContent = `${row.method}, ${name}: object lead ${percent(row.lead)
        } % of ${FT}'s, ${spoken} ${points(row.estimate)} points${interval}`;
    }

    form.addEventListener("submit", event => event.preventDefault());
    form.addEventListener("input", event => event.target === weight ? move() : choose());
    choose();
  }

  document.addEventListener("DOMContentLoaded", () => {
    const root = document.getElementById("cae-lead");
    if (root) start(root, JSON.parse(document.getElementById("cae-lead-data").textContent));
  });
})();
