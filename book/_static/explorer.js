/* The explorer of items: the reader guesses, then sees what the models answered. It shows what
   book/extension/explorer.py has written. Data come as scripts and images beside this file, so it
   works from a folder and without a network. */
(() => {
  "use strict";
  const here = document.currentScript.src.replace(/[^/]*$/, "");
  const families = (window.caeExplorerSets = {});
  const STORE = "cae-explorer-guesses";
  const LETTERS = "ABCDEFGH";
  const NO_SCORE = -128;

  const escaped = text => String(text).replace(/[&<>"]/g, sign => `&#${sign.charCodeAt()};`);
  const options = pairs => pairs.map(([value, text]) =>
    `<option value="${escaped(value)}">${escaped(text)}</option>`).join("");

  function number(value) {
    const text = value.toFixed(1);
    return Number(text) ? text.replace("-", "−") : "0.0";
  }

  /* The same order of an item's options at each visit; the true one is first as often as any. */
  function shuffled(count, seed) {
    let state = [...seed].reduce((hash, sign) => Math.imul(hash ^ sign.charCodeAt(), 16777619), 2166136261);
    const order = [...Array(count).keys()];
    for (let last = count - 1; last > 0; last--) {
      state = Math.imul(state ^ (state >>> 15), 2246822507) + 0x9e3779b9 | 0;
      const other = ((state ^ (state >>> 13)) >>> 0) % (last + 1);
      [order[last], order[other]] = [order[other], order[last]];
    }
    return order;
  }

  /* Guesses of this session by item: the option that was picked, and whether it is right. */
  const guesses = {
    all: {},
    load() {
      try { this.all = JSON.parse(sessionStorage.getItem(STORE)) ?? {}; } catch { this.all = {}; }
    },
    save() {
      try { sessionStorage.setItem(STORE, JSON.stringify(this.all)); } catch { /* kept in memory */ }
    },
  };

  function load(name) {
    if (families[name]) return Promise.resolve();
    return new Promise((done, failed) => {
      const script = document.createElement("script");
      Object.assign(script, { src: `${here}explorer-${name}.js`, onload: done, onerror: failed });
      document.head.append(script);
    });
  }

  /* What is asked about an item, what is picked, and which pick is right. */
  function question(item) {
    const { task, texts, tiles, truth } = item;
    if (task === "itt" || task === "tot") {
      return { ask: "One of these captions is false of the image. Which one?", pick: "texts", right: 2 };
    }
    if (task === "ordered") {
      return { ask: "Which caption says the most that is true of the image?", pick: "texts", right: 0 };
    }
    if (tiles.length > 1 && texts.length > 1) {
      return { ask: `Which image shows this: “${texts[0]}”? The other one shows: “${texts[1]}”.`,
               pick: "images", right: 0 };
    }
    if (tiles.length > 1) return { ask: `Which image shows this: “${texts[0]}”?`, pick: "images", right: truth };
    return { ask: "Which caption is true of the image?", pick: "texts", right: truth };
  }

  const NOTES = {
    group: "Models must match both captions and both images, which is harder than your choice between two.",
    itt: "Models must place both true captions closer to the image than the false one.",
    ordered: "Models must also place the shorter caption before the false one.",
  };

  function start(root) {
    const page = JSON.parse(document.getElementById("cae-explorer-data").textContent);
    const full = window.caeExplorerIndex?.profile === page.index.profile;
    const index = full ? window.caeExplorerIndex : page.index;
    if (!full) Object.assign(families, page.sample);
    const names = Object.keys(index.families), tours = page.tours;
    let shown = [], current = "", named = [];  // runs that the tour is about
    guesses.load();

    root.innerHTML = `<form aria-label="Explorer of items">
      <div class="filters">
        <label>Show <select name="tour">${options([["", "one benchmark"],
          ...tours.map((tour, place) => [place + 1, `Tour: ${tour.title}`])])}</select></label>
        <label>Benchmark <select name="family">${options(
          names.map(name => [name, index.families[name].label]))}</select></label>
        <label>Subset <select name="subset"></select></label>
        <label>Only where <select name="model">${options([["", "(no condition)"],
          ...index.runs])}</select></label>
        <label>is <select name="answer">${options(
          [["1", "right"], ["0", "wrong"]])}</select></label>
        <label><input type="checkbox" name="every"> Show all ${index.runs.length} models</label>
      </div>
      <p class="about"></p>
      <div class="turn">
        <button type="button" name="turn" value="-1" aria-keyshortcuts="ArrowLeft">← Previous</button>
        <span class="place"></span>
        <button type="button" name="turn" value="1" aria-keyshortcuts="ArrowRight">Next →</button>
      </div>
      <div class="item"></div>
      <p role="status"></p>
      <div class="answers"></div>
      <div class="words"></div>
      <p class="note"></p>
    </form>`;
    const form = root.firstElementChild, part = what => form.querySelector(what);
    const { tour, family, subset, model, answer } = form.elements;

    const counts = names.flatMap(name => index.families[name].subsets)
      .reduce((sum, [, , drawn, total]) => [sum[0] + drawn, sum[1] + total], [0, 0]);
    const inCopy = full ? counts[0]
      : names.reduce((sum, name) => sum + families[name].items.length, 0);
    const [have, total] = [inCopy, counts[1]].map(count => count.toLocaleString("en"));
    part(".note").innerHTML = `This explorer has ${have} of the ${total} items, drawn at random with
      a fixed seed. Models: seed 0. Keys: a number or letter picks an option, the arrow keys turn.${full ? "" :
      " <code>cae book</code> adds the others, with their images, to the book that it renders."}`;

    function fillSubsets() {
      const subsets = index.families[family.value]?.subsets ?? [];
      subset.innerHTML = options([["", "all"], ...subsets.map(([name]) => [name, name])]);
      subset.disabled = subsets.length < 2;
    }

    /* The address holds what differs from these. */
    const usual = { tour: "", family: names[0], subset: "", model: "", answer: "1" };

    function readAddress() {
      const given = new URLSearchParams(location.hash.slice(1));
      current = given.get("item") ?? "";
      for (const [name, value] of Object.entries(usual)) {
        const control = form.elements[name];
        if (name === "subset") fillSubsets();
        control.value = given.get(name) ?? value;
        if (control.selectedIndex < 0) control.value = value;  // the address names none that exists
      }
    }

    function writeAddress() {
      const changed = Object.entries(usual)
        .map(([name]) => [name, form.elements[name].value])
        .filter(([name, value]) => value !== usual[name]);
      history.replaceState(null, "", `#${new URLSearchParams([...changed, ["item", current]])}`);
    }

    const itemsOf = name => families[name].items.map(item => {
      const [, task] = index.families[name].subsets.find(([title]) => title === item.subset);
      return { ...item, family: name, task, id: `${name}/${item.subset}/${item.row}` };
    });

    async function update() {
      const chosen = tours[Number(tour.value) - 1], asked = `${tour.value} ${family.value}`;
      const needed = chosen ? [...new Set(chosen.items.map(id => id.split("/")[0]))] : [family.value];
      root.ariaBusy = "true";
      try {
        await Promise.all(needed.map(load));
      } catch {
        part(".place").textContent = "The items could not be loaded.";
        return;
      }
      if (asked !== `${tour.value} ${family.value}`) return;  // the reader went on meanwhile
      root.ariaBusy = "false";
      const known = needed.flatMap(itemsOf);
      if (chosen) {
        const byId = new Map(known.map(item => [item.id, item]));
        shown = chosen.items.filter(id => byId.has(id)).map(id => byId.get(id));
      } else {
        const place = index.runs.findIndex(([run]) => run === model.value);
        shown = known.filter(item => (!subset.value || item.subset === subset.value)
          && (place < 0 || item.answers[place] === answer.value));
      }
      for (const control of [family, subset, model, answer]) control.parentElement.hidden = Boolean(chosen);
      answer.parentElement.hidden ||= !model.value;
      part(".about").textContent = chosen ? chosen.text : "";
      named = chosen?.runs ?? [];
      turn(0);
    }

    function turn(step) {
      const place = Math.max(0, shown.findIndex(item => item.id === current));
      const next = shown.length ? (place + step + shown.length) % shown.length : 0;
      current = shown[next]?.id ?? "";
      part(".place").textContent = shown.length ? `${next + 1} of ${shown.length}` : "No item fits these filters.";
      for (const button of form.querySelectorAll("[name=turn]")) button.hidden = shown.length < 2;
      draw();
      writeAddress();
    }

    const currentItem = () => shown.find(item => item.id === current);

    function draw() {
      const item = currentItem(), guess = item && guesses.all[item.id];
      part(".item").innerHTML = item ? itemHtml(item, guess) : "";
      part("[role=status]").textContent = item && guess ? verdict(item, guess) : "";
      part(".answers").innerHTML = item && guess ? answersHtml(item) : "";
      part(".words").innerHTML = item && guess ? wordsHtml(item) : "";
    }

    function guessOption(option) {
      const item = currentItem();
      if (!item || guesses.all[item.id]) return;
      const right = option === null ? null : option === question(item).right;
      guesses.all[item.id] = { option, right, answers: item.answers };
      guesses.save();
      draw();
      part("[name=turn][value='1']").focus({ preventScroll: true });
    }

    function image(item, row) {
      const file = families[item.family].sheets[item.subset], tile = item.tiles[row];
      const source = file.startsWith("data:") ? file : here + file;
      const name = item.tiles.length > 1 ? `Image ${LETTERS[shuffled(item.tiles.length, item.id).indexOf(row)]}`
        : "The image of this item";
      return `<span class="frame"><img src="${source}" alt="${name}" style="width:${index.columns}00%;
        left:-${tile % index.columns}00%;top:-${Math.floor(tile / index.columns)}00%"></span>`;
    }

    /* Buttons before the guess; afterwards the same options, marked. */
    function itemHtml(item, guess) {
      const { ask, pick, right } = question(item), several = item.tiles.length > 1;
      const title = [index.families[item.family].label, item.subset,
        item.subset.endsWith(item.group) ? "" : item.group].filter(Boolean).join(", ");
      const count = pick === "images" ? item.tiles.length : item.texts.length;
      const false_ = item.task === "itt" || item.task === "tot";
      const buttons = shuffled(count, item.id).map((option, place) => {
        const key = pick === "images" ? LETTERS[place] : place + 1;
        const content = `<b>${key}</b> ${pick === "images" ? image(item, option)
          : `<span>${escaped(item.texts[option])}</span>`}`;
        if (!guess) return `<li><button type="button" name="option" value="${option}"
          aria-keyshortcuts="${key}">${content}</button></li>`;
        const isRight = option === right;
        const mark = false_ ? (isRight ? "✗ false" : "✓ true") : item.task === "ordered"
          ? ["✓ true, all of it", "✓ true, in part", "✗ false"][option] : isRight ? "✓ true" : "✗ false";
        const yours = guess.option === option ? " <em>your guess</em>" : "";
        return `<li class="${mark[0] === "✓" ? "good" : "bad"}${yours ? " yours" : ""}">${content}
          <strong>${mark}</strong>${yours}</li>`;
      });
      return `${several ? "" : image(item, 0)}<div><p>${escaped(title)}</p><p class="ask">${
        escaped(ask)}</p><ul class="${pick}">${buttons.join("")}</ul>${guess ? "" :
        '<button type="button" name="reveal">Show the answer</button>'}</div>`;
    }

    function verdict(item, guess) {
      const measured = [...item.answers].filter(sign => sign !== "-");
      const correct = measured.filter(sign => sign === "1").length;
      const own = guess.right === null ? "" : guess.right ? "You are right. " : "You are wrong. ";
      return `${own}${correct} of ${measured.length} models are right.`;
    }

    function answersHtml(item) {
      const counted = Object.values(guesses.all).filter(guess => guess.right !== null);
      const score = (isRight, of) => of.length
        ? `${of.filter(isRight).length} of ${of.length}` : "–";
      const isShown = run => form.elements.every.checked || index.usual.includes(run) || named.includes(run);
      const lines = index.runs.map(([run, text], place) => {
        if (!isShown(run)) return "";
        const sign = item.answers[place];
        const word = { 1: "✓ right", 0: "✗ wrong" }[sign] ?? `not measured: ${reason(run)}`;
        const own = counted.filter(guess => guess.answers.length === index.runs.length
          && guess.answers[place] !== "-");
        return `<tr class="${{ 1: "good", 0: "bad" }[sign] ?? ""}"><th scope="row">${escaped(text)}</th>
          <td>${escaped(word)}</td><td>${score(guess => guess.answers[place] === "1", own)}</td></tr>`;
      });
      const guess = guesses.all[item.id];
      const mine = { true: "✓ right", false: "✗ wrong" }[guess.right] ?? "no guess";
      const kind = { true: "good", false: "bad" }[guess.right] ?? "";
      return `<table><caption>Answers to this item, and to the items that you have guessed
        (${counted.length})</caption><thead><tr><th scope="col">who</th><th scope="col">this item</th>
        <th scope="col">right so far</th></tr></thead><tbody><tr class="you ${kind}"><th scope="row">You</th>
        <td>${mine}</td><td>${score(one => one.right, counted)}</td></tr>${lines.join("")}</tbody></table>
        ${NOTES[item.task] ? `<p class="note">${NOTES[item.task]}</p>` : ""}
        <button type="button" name="forget">Forget my guesses</button>`;
    }

    /* Why a run has no answer here: it was measured on some subsets only. */
    function reason(run) {
      const subsets = index.measured[run] ?? [];
      if (!subsets.length) return "this item is not stored";
      return `${subsets.slice(0, 2).join(", ")}${subsets.length > 2 ? ` and ${subsets.length - 2} more` : ""} only`;
    }

    const methodsHtml = (methods, place) => `<fieldset><legend>Scores of the words by</legend>${methods.map(([name, text], at) =>
      `<label><input type="radio" name="method" value="${escaped(name)}"${at === place ? " checked" : ""}> ${
        escaped(text)}</label>`).join("")}</fieldset>`;
    const placeOf = methods => Math.max(0, methods.findIndex(([name]) => name === form.dataset.method));

    function wordsHtml(item) {
      if (window.caeLiveIndex && families[item.family].features) return liveHtml(item);
      const { runs, methods, items } = page.words, captions = items[item.id];
      if (!captions) return runs.length ? "" : `<p class="note">This copy has no scores of words:
        they need trained models.</p>`;
      const place = placeOf(methods);
      return `${methodsHtml(methods, place)}${captions.map(caption => storedTable(item, caption, place)).join("")}
        <p class="note">Scores × 100, each method in its own unit. Grey words have no role in the
        paper's parser; –: the method gives no score.</p>`;
    }

    function storedTable(item, caption, method) {
      const { runs, methods, roles } = page.words, text = item.texts[caption.text];
      const words = caption.words ?? text.toLowerCase().split(/\s+/).filter(Boolean);
      const bytes = Int8Array.from(atob(caption.scores), sign => sign.charCodeAt() << 24 >> 24);
      const scores = runs.map((_, run) => words.map((_, word) => {
        const step = bytes[(run * methods.length + method) * words.length + word];
        return step === NO_SCORE ? null : step * caption.largest[method] / 127;
      }));
      return wordTable(text, words, [...caption.roles].map(role => roles[role] ?? ["other", "gray"]), runs, scores);
    }

    function wordTable(text, words, roles, runs, scores) {
      const known = scores.flat().filter(score => score !== null);
      if (!known.length) return `<p><i>${escaped(text)}</i>: this method scores none of its words.</p>`;
      const low = Math.min(0, ...known), range = Math.max(0, ...known) - low || 1;
      const cell = (score, color) => score === null ? "<td>–</td>" : `<td><span class="number">${
        number(100 * score)}</span><span class="bar" aria-hidden="true"><span class="zero" style="left:${
        100 * -low / range}%"></span><span style="left:${100 * (Math.min(score, 0) - low) / range}%;width:${
        100 * Math.abs(score) / range}%;background:${color}"></span></span></td>`;
      const lines = words.map((word, at) => {
        const [role, color] = roles[at];
        return `<tr><th scope="row">${escaped(word)} ${role === "other" ? "" : `<small>${role}</small>`}</th>${
          scores.map(own => cell(own[at], color)).join("")}</tr>`;
      });
      return `<table><caption>${escaped(text)}</caption><thead><tr><th scope="col">word</th>${
        runs.map(run => `<th scope="col">${escaped(run)}</th>`).join("")}</tr></thead><tbody>${
        lines.join("")}</tbody></table>`;
    }

    /* Scores that the models compute here, of the true captions of an item. */
    const LIVE_METHODS = [["perturbation", "masking the word"], ["attention", "attention to the word"]];
    let towers = null;  // by label, once the reader has asked for them

    function liveHtml(item) {
      const link = document.querySelector('a[href$="playground.html"]');
      const links = link ? `<p class="note">Edit in the playground: ${item.texts.map(text =>
        `<a href="${escaped(link.getAttribute("href"))}#${escaped(new URLSearchParams({ c: text }))}">${escaped(text)}</a>`).join(" · ")}</p>` : "";
      if (!towers) return `<button type="button" name="score">Score the words by ${liveModels().length} models, here in your browser</button>${links}`;
      const { vocabulary } = caeLiveIndex, place = placeOf(LIVE_METHODS), labels = Object.keys(towers);
      const pairs = item.tiles.length === 1 ? [[item.truth, 0]] : item.texts.length === 1 ? [[0, item.truth]] : [[0, 0], [1, 1]];
      const tables = pairs.map(([text, image]) => {
        const caption = item.texts[text], tokens = caeLive.tokenize(vocabulary, caption), { roles } = caeLive.parse(vocabulary, caption);
        if (!tokens.words.length) return `<p><i>${escaped(caption)}</i>: has words that the models do not know.</p>`;
        const feature = featureOf(item, image), scores = labels.map(label => {
          const explained = caeLive.explain(towers[label], tokens);
          return place ? caeLive.attentionScores(explained, tokens) : caeLive.perturbationScores(explained, feature);
        });
        return wordTable(caption, tokens.words.map(word => word.text),
          roles.map(role => [role, caeLive.ROLE_COLORS[role] ?? "gray"]), labels, scores);
      });
      const further = caeLiveIndex.models.filter(([, label]) => !labels.includes(label));
      const adding = further.length ? `<label>Add a model <select name="added"><option value=""></option>${
        caeLive.optionsHtml(further)}</select></label>` : "";
      return `${methodsHtml(LIVE_METHODS, place)}${adding}${tables.join("")}<p class="note">Scores × 100: by how much the similarity
        drops when a word is masked, or the share of attention on it. Grey words have no role.</p>${links}`;
    }

    /* The models of the published book that stand for those shown. */
    function liveModels() {
      const find = name => caeLiveIndex.models.find(([run]) => run === name);
      return index.usual.map(find).filter(Boolean);
    }

    /* The feature of an item's image, stored as 16-bit integers. */
    function featureOf(item, image) {
      const { [item.subset]: text } = families[item.family].features;
      const bytes = Uint8Array.from(atob(text), sign => sign.charCodeAt()), steps = new Int16Array(bytes.buffer);
      const [{ embed }] = Object.values(towers), start = item.tiles[image] * embed;
      return Float32Array.from(steps.subarray(start, start + embed), step => step / 32767);
    }

    async function loadTowers(button) {
      button.disabled = true;
      button.textContent = "Loading …";
      try {
        const models = liveModels(), loaded = await Promise.all(models.map(([, , file]) => caeLive.load(file)));
        towers = Object.fromEntries(models.map(([, label], i) => [label, loaded[i]]));
      } catch {
        button.textContent = "The models could not be loaded. Try again.";
        button.disabled = false;
        return;
      }
      draw();
      form.querySelector("[name=method]")?.focus({ preventScroll: true });
    }

    async function addTower(select) {
      const [, label, file] = caeLiveIndex.models.find(([run]) => run === select.value);
      select.disabled = true;
      try {
        towers[label] = await caeLive.load(file);
      } catch {
        select.disabled = false;
        select.value = "";
        select.options[0].text = `${label} could not be loaded`;
        return;
      }
      draw();
      form.querySelector("[name=added]")?.focus({ preventScroll: true });
    }

    form.addEventListener("submit", event => event.preventDefault());
    form.addEventListener("click", event => {
      const button = event.target.closest("button");
      if (button?.name === "turn") turn(Number(button.value));
      if (button?.name === "option") guessOption(Number(button.value));
      if (button?.name === "reveal") guessOption(null);
      if (button?.name === "score") loadTowers(button);
      if (button?.name === "forget") {
        guesses.all = {};
        guesses.save();
        draw();
        form.querySelector("[name=option]")?.focus();
      }
    });
    form.addEventListener("change", event => {
      const { target } = event;
      if (target.name === "method") {
        form.dataset.method = target.value;
        draw();
        form.querySelector("[name=method]:checked").focus();
        return;
      }
      if (target.name === "added") {
        if (target.value) addTower(target);
        return;
      }
      if (target.name === "every") {
        draw();
        return;
      }
      if (target === family) fillSubsets();
      current = "";
      update();
    });
    document.addEventListener("keydown", event => {
      const inside = event.target === document.body || form.contains(event.target);
      if (!inside || event.target.matches("select, input")
          || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      const button = [...form.querySelectorAll("[name=option]")]
        .find(one => one.getAttribute("aria-keyshortcuts") === event.key.toUpperCase());
      if (step) turn(step);
      else if (button) guessOption(Number(button.value));
      else return;
      event.preventDefault();
    });
    window.addEventListener("hashchange", () => { readAddress(); update(); });
    readAddress();
    update();
  }

  document.addEventListener("DOMContentLoaded", () => {
    const root = document.getElementById("cae-explorer");
    if (root) start(root);
  });
})();
