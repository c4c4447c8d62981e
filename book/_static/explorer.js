/* The explorer of items: shows what cae_lib/pages/explorer.py has written. It reads scripts and
   pictures that lie beside this file, so it works from a folder and without a network. */
(() => {
  "use strict";
  const here = document.currentScript.src.replace(/[^/]*$/, "");
  const sets = (window.caeExplorerSets = {});
  const PAIR = ["clip-ft", "cae-binding"];

  const escaped = text => String(text).replace(/[&<>"]/g, sign => `&#${sign.charCodeAt()};`);
  const options = pairs => pairs.map(([value, text]) =>
    `<option value="${escaped(value)}">${escaped(text)}</option>`).join("");
  /* A number that is not zero does not read as zero: it gets a digit more, or two. */
  function number(value, digits) {
    const text = value.toFixed(digits);
    return (Number(text) || !value ? text : value.toPrecision(1)).replace("-", "−");
  }

  function load(name) {
    if (sets[name]) return Promise.resolve();
    return new Promise((done, failed) => {
      const script = document.createElement("script");
      Object.assign(script, { src: `${here}explorer-${name}.js`, onload: done, onerror: failed });
      document.head.append(script);
    });
  }

  function start(root) {
    const own = JSON.parse(document.getElementById("cae-explorer-data").textContent);
    const full = window.caeExplorerIndex?.build === own.index.build;
    const index = full ? window.caeExplorerIndex : own.index;
    if (!full) Object.assign(sets, own.sets);
    const runs = Object.keys(index.runs), labels = Object.values(index.runs);
    let shown = [], current = "";

    root.innerHTML = `<form aria-label="Explorer of items">
      <div class="filters">
        <label>Set <select name="set">${options([["all", "all sets"],
          ...Object.entries(index.sets).map(([name, set]) => [name, set.label])])}</select></label>
        <label>Subset <select name="subset"></select></label>
        <label>Model <select name="model">${options(Object.entries(index.runs))}</select></label>
        <label>Its choice <select name="choice">${options(
          [["", "right or wrong"], ["right", "right"], ["wrong", "wrong"]])}</select></label>
        <label class="check"><input type="checkbox" name="disagree">
          ${PAIR.map(run => escaped(index.runs[run])).join(" and ")} disagree</label>
      </div>
      <div class="turn">
        <button type="button" value="-1" aria-keyshortcuts="ArrowLeft">← Previous</button>
        <p role="status"></p>
        <button type="button" value="1" aria-keyshortcuts="ArrowRight">Next →</button>
      </div>
      <div class="item" role="group" aria-label="Item" tabindex="0"></div>
      <fieldset><legend>Words of the true caption, scored by</legend>${
        Object.entries(index.ways).map(([way, text]) => `<label><input type="radio" name="way"
          value="${way}"> ${escaped(text)}</label>`).join("")}</fieldset>
      <div class="words"></div>
      <p class="note"></p>
    </form>`;
    const form = root.firstElementChild, part = what => form.querySelector(what);
    const { set, subset, model, choice, disagree } = form.elements;

    const size = name => index.sets[name].subsets.reduce(([drawn, all], [, n, total]) =>
      [drawn + (full ? n : 1), all + total], [0, 0]);
    const all = Object.keys(index.sets).map(size).reduce((a, b) => [a[0] + b[0], a[1] + b[1]]);
    part(".note").innerHTML = `Scores × 100, each method in its own unit; grey: the paper's parser
      gives the word no role; –: the method does not score the word, as "bindings" scores none that binds
      nothing. ${all.map(n => n.toLocaleString("en")).join(" of ")} items, drawn by a
      fixed seed; of each subset those come first on which CLIP-FT and CAE on bindings disagree; seed 0
      of each model.${full ? "" : " This copy of the book has the first item of each subset: " +
      "<code>cae run explorer</code>, where the runs are trained, and then <code>cae book</code> " +
      "put more beside it."}`;

    function fill(name) {
      const subsets = index.sets[name]?.subsets ?? [];
      subset.innerHTML = options([["", "all"], ...subsets.map(([text]) => [text, text])]);
      subset.disabled = subsets.length < 2;
    }

    /* The address holds what differs from these. */
    const usual = { set: Object.keys(index.sets)[0], subset: "", model: PAIR[0], choice: "",
                    disagree: "", way: Object.keys(index.ways)[0] };

    function read() {
      const given = new URLSearchParams(location.hash.slice(1));
      current = given.get("item") ?? "";
      const state = { ...usual, ...Object.fromEntries(given) };
      for (const [name, value] of Object.entries(usual)) {
        const control = form.elements[name];
        if (name === "subset") fill(set.value);
        if (name === "disagree") control.checked = state.disagree === "1";
        else control.value = state[name];
        if (!control.value) control.value = value;  // the address names none that there is
      }
    }

    function write() {
      const state = Object.fromEntries(
        Object.keys(usual).map(name => [name, form.elements[name].value]));
      state.disagree = disagree.checked ? "1" : "";
      const changed = Object.entries(state).filter(([name, value]) => value !== usual[name]);
      const hash = new URLSearchParams([...changed, ["item", current]]);
      history.replaceState(null, "", `#${hash}`);
    }

    async function update() {
      const wanted = set.value, names = wanted === "all" ? Object.keys(index.sets) : [wanted];
      root.ariaBusy = "true";
      await Promise.all(names.map(load));
      if (wanted !== set.value) return;  // another set was chosen while this one came
      root.ariaBusy = "false";
      const [first, second] = PAIR.map(run => runs.indexOf(run)), asked = runs.indexOf(model.value);
      shown = names.flatMap(name => sets[name].items.map(item => {
        const title = index.sets[name].subsets[item.subset][0];
        return { ...item, name, title, id: `${name}/${title}/${item.item}` };
      })).filter(item => (!subset.value || item.title === subset.value)
        && (!choice.value || item.right[asked] === Number(choice.value === "right"))
        && (!disagree.checked || item.right[first] !== item.right[second]));
      turn(0);
    }

    function turn(by) {
      const place = Math.max(0, shown.findIndex(item => item.id === current));
      const next = (place + by + shown.length) % shown.length;
      current = shown[next]?.id ?? "";
      show(shown[next], next);
      write();
    }

    function show(item, place) {
      part(".item").innerHTML = item ? `${pictures(item)}${captions(item)}${choices(item)}` : "";
      for (const hidden of form.querySelectorAll("button, fieldset")) hidden.hidden = !item;
      part("[role=status]").innerHTML = item
        ? `<b>${place + 1}</b> of ${shown.length}<span class="spoken">: ${
          escaped(told(item))}</span>`
        : "No item fits these filters.";
      words(item);
    }

    const trueTexts = item => item.true.map(row => item.texts[row]);

    const told = item => `${trueTexts(item).join("; ")}. ${PAIR.map(run =>
      `${index.runs[run]} is ${item.right[runs.indexOf(run)] ? "right" : "wrong"}`).join(", ")}.`;

    function pictures(item) {
      const { columns } = index, file = sets[item.name].sheets[item.subset];
      const source = file.startsWith("data:") ? file : here + file;
      return `<div class="pictures">${item.pictures.map((tile, row) => {
        const own = item.words.find(words => words.picture === row);
        const name = own ? `Picture of: ${item.texts[own.text]}` : "The other picture";
        const mark = item.texts.length > 1 ? `of caption ${row + 1}` : own ? "✓ true" : "✗ false";
        const below = item.pictures.length > 1 ? `<figcaption>${mark}</figcaption>` : "";
        return `<figure><div><img src="${source}" alt="${escaped(name)}" style="width:${columns}00%;
          left:-${tile % columns}00%;top:-${Math.floor(tile / columns)}00%"></div>${below}</figure>`;
      }).join("")}</div>`;
    }

    function captions(item) {
      const both = item.pictures.length > 1 && item.texts.length > 1;
      const others = item.texts.map((_, row) => row).filter(row => !item.true.includes(row));
      const lines = [...item.true, ...others].map(row => {
        const text = item.texts[row], good = item.true.includes(row);
        const mark = both ? `caption ${row + 1}` : good ? "✓ true" : "✗ false";
        return `<li class="${good ? "good" : "bad"}"><b>${mark}</b> ${escaped(text)}</li>`;
      });
      const group = item.title.endsWith(item.group) ? "" : `, ${escaped(item.group)}`;
      return `<div class="captions"><p>${escaped(index.sets[item.name].label)}, ${
        escaped(item.title)}${group}. ${question(item)}</p><ul>${lines.join("")}</ul></div>`;
    }

    function question(item) {
      if (item.pictures.length > 1) {
        return item.texts.length > 1 ? "Which caption belongs to which picture, both ways?"
          : "Which picture does the caption fit?";
      }
      return item.true.length > 1 ? "Do both true captions fit better than the false one?"
        : "Which caption fits the picture?";
    }

    function choices(item) {
      const most = Math.max(...item.margin.map(Math.abs), 1e-9);
      const lines = labels.map((name, row) => {
        const right = item.right[row], margin = item.margin[row];
        const rank = item.texts.length > 3 && !right
          ? `, rank ${item.rank[row]} of ${item.texts.length}` : "";
        const width = 50 * Math.abs(margin) / most, side = margin < 0 ? "right" : "left";
        return `<tr class="${right ? "good" : "bad"}"><th scope="row">${escaped(name)}</th>
          <td><b>${right ? "✓ right" : "✗ wrong"}</b>${rank}</td><td class="number">${
          number(100 * margin, 1)}</td><td class="bar" aria-hidden="true"><span class="zero"
          style="left:50%"></span><span style="${side}:50%;width:${width}%"></span></td></tr>`;
      });
      return `<table class="choices"><thead><tr><th scope="col">model</th>
        <th scope="col">choice</th><th scope="col" colspan="2">margin</th></tr></thead>
        <tbody>${lines.join("")}</tbody></table>`;
    }

    function words(item) {
      part(".words").innerHTML = (item?.words ?? []).map(own => table(own, item)).join("");
    }

    function table(own, item) {
      const way = Object.keys(index.ways).indexOf(form.elements.way.value);
      const scores = own.scores.map(run => run[way]);
      const rows = own.words.map((word, at) =>
        ({ word, role: own.roles[at], values: scores.map(run => run[at]) }));
      const means = index.roles.map(([role], at) => {
        const inside = rows.filter(row => row.role === at && row.values[0] !== null);
        const values = scores.map((_, run) =>
          inside.reduce((sum, row) => sum + row.values[run], 0) / inside.length);
        return { word: `mean of ${role} words`, role: at, mean: true, n: inside.length, values };
      }).filter(row => row.role && row.n);
      const known = rows.flatMap(row => row.values).filter(value => value !== null);
      const caption = escaped(item.texts[own.text]);
      if (!known.length) return `<p><i>${caption}</i>: no word has a score by this method.</p>`;
      const low = Math.min(0, ...known), range = (Math.max(0, ...known) - low) || 1;
      const cell = (value, role) => value === null ? "<td>–</td>" : `<td><span class="number">${
        number(value / 10, 1)}</span><span class="bar" aria-hidden="true"><span class="zero"
        style="left:${100 * -low / range}%"></span><span style="left:${
        100 * (Math.min(value, 0) - low) / range}%;width:${100 * Math.abs(value) / range
        }%;background:${index.roles[role][1]}"></span></span></td>`;
      const line = row => `<tr class="${row.mean ? "mean" : ""}"><th scope="row">${escaped(row.word)}${
        row.role && !row.mean ? ` <small>${index.roles[row.role][0]}</small>` : ""}</th>${
        row.values.map(value => cell(value, row.role)).join("")}</tr>`;
      return `<table><caption>${caption}</caption><thead><tr><td></td>${
        index.scored.map(run => `<th scope="col">${escaped(index.runs[run])}</th>`).join("")
        }</tr></thead><tbody>${[...rows, ...means].map(line).join("")}</tbody></table>`;
    }

    form.addEventListener("submit", event => event.preventDefault());
    form.addEventListener("click", event => {
      if (event.target.matches("button")) turn(Number(event.target.value));
    });
    form.addEventListener("change", event => {
      if (event.target.name === "way") {
        words(shown.find(item => item.id === current));
        write();
        return;
      }
      if (event.target === set) fill(set.value);
      update();
    });
    document.addEventListener("keydown", event => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      const inside = event.target === document.body || form.contains(event.target);
      if (!step || !inside || event.target.matches("select, input") || event.altKey || event.ctrlKey
          || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      turn(step);
    });
    window.addEventListener("hashchange", () => { read(); update(); });
    read();
    update();
  }

  document.addEventListener("DOMContentLoaded", () => {
    const root = document.getElementById("cae-explorer");
    if (root) start(root);
  });
})();
