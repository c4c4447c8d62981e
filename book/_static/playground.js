/* The playground: a scene that the reader composes, a caption, and what models make of both. Scenes are
   drawn as data/recipes/synthetic_scenes/draw.py draws them; live-model.js holds the models. */
(() => {
  "use strict";
  const SEEN = 112, SHOWN = 448;  // sides of the image that models see, and of the one that readers see
  const MOST_THINGS = 6, MOST_LETTERS = 400, MOST_CAPTIONS = 6, BASE_SCALE = 0.42;
  const NEAR = 0.9, FAR = 0.12;  // largest and smallest scale
  const PATTERNS = {  // 1 for the darker parts, at column x and row y of an image that models see
    striped: (x, y, phase) => (x + y + phase) / 4 % 2 >= 1,
    checkered: (x, y, phase) => (Math.floor((x + phase) / 5) + Math.floor((y + phase) / 5)) % 2 === 1,
    spotted: (x, y, phase) => ((x + phase) % 9 - 4) ** 2 + ((y + phase) % 9 - 4) ** 2 <= 7,
  };
  const LIGHT = [238, 238, 238];
  const METHODS = { perturbation: "masking the word", attention: "attention to the word" };

  /* Each shows what it says, which tests/pages/test_playground.py computes. `scene` numbers a scene of
     the test set, whose caption is true of it; `swap` is what is swapped. */
  const STATES = [
    { name: "CAE raises the other words", scene: 16, swap: "cow dog", models: ["clip-ft", "cae-all"],
      text: "In the first model, plain fine-tuning (CLIP-FT), the objects “cow” and “dog” count most. CAE, beside it, raises the "
        + "words for colours and positions, and even overshoots: “red” counts twice as much as “cow”. Both models still prefer "
        + "the swapped caption, which is false." },
    { name: "A loss on swaps changes the choice", scene: 16, swap: "cow dog", models: ["cae-all", "dependency-binding"],
      text: "The swap-margin loss, the second model, prefers the true caption to this swap by far, and objects still count more than "
        + "the other words on average. It is much less sure where the colours are swapped: choose red ↔ green." },
    { name: "Attributes, not relations", scene: 52, swap: "purple blue", models: ["clip-ft", "negclip"],
      text: "NegCLIP, the second model, trains on swapped captions and learns which colour is whose. Choose the swap "
        + "umbrella ↔ chair: here the false caption wins, so the order of the two is not taught as well." },
    { name: "A first word that does not count", scene: 39, swap: "umbrella chair", models: ["clip-ft", "cae-all"],
      caption: "there is a red umbrella to the left of a blue chair",
      text: "Masking the first word, “there”, moves the similarity of neither model by a point. But CAE, the second model, raises "
        + "words that say nothing, too: it needs “is” more than “chair”. Both models prefer the true caption." },
    { name: "Where it breaks", scene: 51, swap: "apple ball", models: ["clip-ft", "dependency-binding"],
      text: "The apple came out dark, and a duck is in the way. The swap-margin loss, the second model, prefers the false "
        + "caption, a ball on an apple, and masking “red” raises its similarity. Plain fine-tuning is undecided." },
    { name: "It learns what is swapped", scene: 39, swap: "umbrella chair", models: ["relations-binding", "attributes-binding"],
      text: "The first model was trained on swaps of relations alone, the second on swaps of attributes alone. Each "
        + "is sure of its own kind. Change the swap to red ↔ blue: now the second model is the sure one." },
  ];

  const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
  const escaped = text => String(text).replace(/[&<>"]/g, sign => `&#${sign.charCodeAt()};`);
  const options = (pairs, chosen) => pairs.map(([value, text]) => `<option value="${escaped(value)}"${
    value === chosen ? " selected" : ""}>${escaped(text)}</option>`).join("");

  /* ---- Scenes ---- */

  let sprites;  // by noun, two masks: of its silhouette and of its lines

  async function loadSprites({ nouns, side, columns, sprites: url }) {
    const image = new Image();
    image.src = url;
    await image.decode();
    const canvas = document.createElement("canvas");
    Object.assign(canvas, { width: image.width, height: image.height });
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(image, 0, 0);
    sprites = {};
    nouns.forEach((noun, number) => {
      const { data } = context.getImageData(number % columns * side, Math.floor(number / columns) * side, side, side);
      sprites[noun] = [0, 1].map(channel => Float32Array.from({ length: side * side }, (_, i) => data[4 * i + channel] / 255));
    });
  }

  /* A square mask in another size: the mean of what a triangle covers, in one direction after the other. */
  function resized(mask, from, to) {
    const ratio = from / to, reach = Math.max(1, ratio);
    const taps = Array.from({ length: to }, (_, i) => {
      const centre = (i + 0.5) * ratio, start = Math.max(0, Math.floor(centre - reach + 0.5));
      const end = Math.min(from, Math.floor(centre + reach + 0.5));
      const weights = Array.from({ length: end - start }, (_, j) => Math.max(0, 1 - Math.abs(start + j + 0.5 - centre) / reach));
      const sum = weights.reduce((total, weight) => total + weight, 0);
      return { start, weights: weights.map(weight => weight / sum) };
    });
    const wide = new Float32Array(from * to), result = new Float32Array(to * to);
    for (let y = 0; y < from; y++) {
      taps.forEach(({ start, weights }, x) => {
        let sum = 0;
        for (let j = 0; j < weights.length; j++) sum += weights[j] * mask[y * from + start + j];
        wide[y * to + x] = sum;
      });
    }
    taps.forEach(({ start, weights }, y) => {
      for (let j = 0; j < weights.length; j++) {
        for (let x = 0; x < to; x++) result[y * to + x] += weights[j] * wide[(start + j) * to + x];
      }
    });
    return result;
  }

  /* A square mask, mirrored and turned counter-clockwise by an angle in degrees. */
  function turned(mask, side, flip, angle) {
    const cos = Math.cos(angle * Math.PI / 180), sin = Math.sin(angle * Math.PI / 180), half = side / 2;
    const result = new Float32Array(side * side), last = side - 1;
    for (let y = 0; y < side; y++) {
      for (let x = 0; x < side; x++) {
        const dx = x + 0.5 - half, dy = y + 0.5 - half;
        const u = cos * dx - sin * dy + half, v = sin * dx + cos * dy + half;
        if (u < 0 || v < 0 || u >= side || v >= side) continue;
        const left = Math.floor(u - 0.5), top = Math.floor(v - 0.5), right = u - 0.5 - left, low = v - 0.5 - top;
        const at = (column, row) => {
          const c = clamp(column, 0, last);
          return mask[clamp(row, 0, last) * side + (flip ? last - c : c)];
        };
        result[y * side + x] = (1 - low) * ((1 - right) * at(left, top) + right * at(left + 1, top))
          + low * ((1 - right) * at(left, top + 1) + right * at(left + 1, top + 1));
      }
    }
    return result;
  }

  const masks = new Map();  // of things lately drawn

  function masksOf({ noun, flip, tilt }, side) {
    const key = [noun, side, flip, tilt].join();
    if (!masks.has(key)) {
      if (masks.size > 200) masks.clear();
      const spriteSide = Math.sqrt(sprites[noun][0].length);
      masks.set(key, sprites[noun].map(mask => turned(resized(mask, spriteSide, side), side, flip, tilt)));
    }
    return masks.get(key);
  }

  const backToFront = things => [...things].sort((one, other) => other.depth - one.depth);

  /* The pixels of a scene, red, green, blue and alpha, in a square of a side. */
  function compose(scene, side, colors) {
    const pixels = new Float32Array(3 * side * side), unit = side / SEEN;
    for (let y = 0; y < side; y++) {
      const share = y / (side - 1);
      for (let i = 0; i < 3 * side; i++) {
        pixels[3 * y * side + i] = scene.top[i % 3] * (1 - share) + scene.bottom[i % 3] * share;
      }
    }
    for (const thing of backToFront(scene.things)) {
      const thingSide = Math.round(Math.max(8, Math.round(thing.scale * SEEN)) * unit), [fill, line] = masksOf(thing, thingSide);
      const left = Math.round(thing.x * side - thingSide / 2), top = Math.round(thing.y * side - thingSide / 2);
      const rgb = thing.rgb ?? colors[thing.color], isDark = PATTERNS[thing.pattern];
      for (let y = Math.max(0, -top); y < Math.min(thingSide, side - top); y++) {
        for (let x = Math.max(0, -left); x < Math.min(thingSide, side - left); x++) {
          const at = y * thingSide + x, to = 3 * ((top + y) * side + left + x);
          if (!fill[at] && !line[at]) continue;
          const shade = isDark?.(Math.floor(x / unit), Math.floor(y / unit), thing.phase ?? 0) ? 0.5 : 1;
          for (let c = 0; c < 3; c++) {
            const painted = pixels[to + c] + fill[at] * (shade * rgb[c] - pixels[to + c]);
            pixels[to + c] = painted + line[at] * (0.35 * rgb[c] - painted);
          }
        }
      }
    }
    for (const thing of scene.things) marks(thing).forEach(([from, to, grey]) => stroke(pixels, side, unit, from, to, grey));
    const rgba = new Uint8ClampedArray(4 * side * side).fill(255);
    for (let i = 0; i < side * side; i++) {
      for (let c = 0; c < 3; c++) rgba[4 * i + c] = Math.floor(clamp(pixels[3 * i + c], 0, 255));
    }
    return rgba;
  }

  /* Lines of motion behind a thing, and marks where it touches another. */
  function marks({ x, y, scale, motion, contact }) {
    const half = SEEN * scale / 2, [cx, cy] = [SEEN * x, SEEN * y], lines = [];
    if (motion) {
      const start = cx - motion * (half + 2);
      for (const share of [-0.4, 0, 0.4]) lines.push([[start, cy + share * half], [start - motion * 9, cy + share * half], 70]);
    }
    if (contact) {
      const point = cx + contact * half;
      for (const share of [-0.9, -1.15]) {
        lines.push([[point, cy + share * half + 3], [point + contact * 7 * (1 + share), cy + share * half - 6], 40]);
      }
    }
    return lines;
  }

  function stroke(pixels, side, unit, from, to, grey) {
    const [[x0, y0], [x1, y1]] = [from, to].map(point => point.map(value => value * unit));
    const length = Math.hypot(x1 - x0, y1 - y0) || 1;
    for (let y = Math.max(0, Math.floor(Math.min(y0, y1) - unit - 1)); y < Math.min(side, Math.max(y0, y1) + unit + 1); y++) {
      for (let x = Math.max(0, Math.floor(Math.min(x0, x1) - unit - 1)); x < Math.min(side, Math.max(x0, x1) + unit + 1); x++) {
        const share = clamp(((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / length ** 2, 0, 1);
        const distance = Math.hypot(x - x0 - share * (x1 - x0), y - y0 - share * (y1 - y0));
        const cover = clamp(unit + 0.5 - distance, 0, 1), at = 3 * (y * side + x);
        for (let c = 0; c < 3; c++) pixels[at + c] += cover * (grey - pixels[at + c]);
      }
    }
  }

  /* A scene as a part of an address, and back; null if the text is none. */
  const digits = (value, factor) => Math.round(value * factor);
  const hex = rgb => rgb.map(value => Math.round(clamp(value, 0, 255)).toString(16).padStart(2, "0")).join("");
  const rgbOf = text => [0, 2, 4].map(at => parseInt(text.slice(at, at + 2), 16));

  const writeScene = ({ top, bottom, things }) => [`${hex(top)}-${hex(bottom)}`, ...things.map(thing => [
    thing.noun, thing.color, thing.pattern, digits(thing.x, 1000), digits(thing.y, 1000), digits(thing.scale, 1000),
    digits(thing.tilt, 10), Number(thing.flip), thing.depth, thing.motion, thing.contact, thing.phase ?? 0,
    thing.rgb ? hex(thing.rgb) : ""].join("."))].join("~");

  function readScene(text, { nouns, colors }) {
    const [light, ...things] = String(text).split("~");
    if (!/^[\da-f]{6}-[\da-f]{6}$/.test(light) || things.length > MOST_THINGS) return null;
    const [top, bottom] = light.split("-").map(rgbOf), read = [];
    for (const line of things) {
      const [noun, color, pattern, ...rest] = line.split("."), rgb = rest.pop();
      const [x, y, scale, tilt, flip, depth, motion, contact, phase] = rest.map(Number);
      if (!nouns.includes(noun) || !Object.hasOwn(colors, color) || (pattern && !Object.hasOwn(PATTERNS, pattern))
          || rest.length !== 9 || !rest.every(value => /^-?\d{1,5}$/.test(value)) || !/^([\da-f]{6})?$/.test(rgb)) return null;
      read.push({ noun, color, pattern, x: clamp(x / 1000, 0, 1), y: clamp(y / 1000, 0, 1),
        scale: clamp(scale / 1000, FAR, NEAR), tilt: tilt / 10 % 360, flip: Boolean(flip), depth: clamp(depth, -9, 9),
        motion: Math.sign(motion), contact: Math.sign(contact), phase: Math.abs(phase) % 8, ...(rgb && { rgb: rgbOf(rgb) }) });
    }
    return { top, bottom, things: read };
  }

  /* A scene that shows the first two things of a caption, placed as the recipe's layout places them. */
  function sceneOf(vocabulary, caption) {
    const { words, phrases, links, kind } = caeLive.parse(vocabulary, caption);
    const used = phrases.slice(0, 3).map(({ noun, attributes }) => {
      const named = name => attributes.map(at => words[at]).find(word => kind(word) === name);
      const factor = { small: 0.72, large: 1.3 }[named("size")] ?? 1;
      return { noun: words[noun], color: named("color") ?? "blue", pattern: named("pattern") ?? "", x: 0.5, y: 0.5,
        scale: BASE_SCALE * factor, tilt: 0, flip: false, depth: 0, motion: 0, contact: 0, phase: 0 };
    });
    const [one, other, third] = used;
    if (other) {
      const said = links[0].text;
      const name = Object.keys(vocabulary.relations).find(known => vocabulary.relations[known].includes(said)) ?? "left of";
      place(name, one, other);
      for (const axis of ["x", "y"]) {  // both are moved together until they lie in the image
        const low = Math.min(...[one, other].map(thing => thing[axis] - thing.scale / 2));
        const high = Math.max(...[one, other].map(thing => thing[axis] + thing.scale / 2));
        const shift = high - low > 1 ? 0.5 - (low + high) / 2 : Math.max(0, -low) - Math.max(0, high - 1);
        one[axis] += shift;
        other[axis] += shift;
      }
    }
    if (third) Object.assign(third, { scale: 0.75 * third.scale, x: 0.16, y: 0.16, depth: 2 });
    return { top: LIGHT, bottom: LIGHT, things: used };
  }

  function place(name, one, other) {
    const row = (side, gap) => {
      const shift = side * ((one.scale + other.scale) / 2 + gap) / 2;
      one.x += shift;
      other.x -= shift;
    };
    const column = (side, gap) => {
      const shift = side * ((one.scale + other.scale) / 2 + gap) / 2;
      one.y += shift;
      other.y -= shift;
    };
    const scale = (first, second) => { one.scale *= first; other.scale *= second; };
    const front = (near, far) => {
      const shift = 0.4 * (near.scale + far.scale) / 4;
      Object.assign(near, { x: near.x + shift, y: near.y + 0.07, scale: 1.1 * near.scale });
      Object.assign(far, { x: far.x - shift, y: far.y - 0.09, scale: 0.95 * far.scale, depth: 1 });
    };
    ({
      "left of": () => row(-1, 0.06), "right of": () => row(1, 0.06),
      above: () => column(-1, 0.06), below: () => column(1, 0.06),
      on: () => { scale(0.85, 1.15); column(-1, -0.09); other.depth = 1; },
      under: () => { scale(0.8, 1.2); column(1, -0.1); one.depth = 1; },
      "in front of": () => front(one, other), behind: () => front(other, one),
      riding: () => {
        scale(0.75, 1.2);
        column(-1, -0.11);
        Object.assign(one, { tilt: -12, flip: true });
        Object.assign(other, { flip: true, motion: 1, depth: 1 });
      },
      holding: () => {
        scale(1.25, 0.6);
        Object.assign(one, { x: 0.45, flip: true, depth: 1 });
        Object.assign(other, { x: 0.45 + 0.52 * one.scale, y: 0.53, tilt: -25 });
      },
      chasing: () => {
        scale(0.95, 0.95);
        row(-1, 0.05);
        Object.assign(one, { tilt: -10, flip: true, motion: 1 });
        Object.assign(other, { tilt: -10, flip: true });
      },
      touching: () => {
        row(-1, -0.04);
        Object.assign(one, { tilt: -18, flip: true, contact: 1 });
      },
    })[name]();
  }

  /* ---- Captions ---- */

  /* What can be swapped in a caption: a key, a label, and the caption that results. */
  function swapsOf(vocabulary, caption) {
    const all = [];
    for (const { kind, words, nouns, phrases } of caeLive.swaps(vocabulary, caption)) {
      const key = words.join(" "), label = words.join(" ↔ ");
      all.push({ key, label, text: phrases });
      if (kind === "arguments" && nouns !== phrases) all.push({ key: `${key} alone`, label: `${label}, without their adjectives`, text: nouns });
    }
    return all.filter(({ text }, i) => text !== caption && all.findIndex(other => other.text === text) === i);
  }

  /* A caption with one word replaced: easy to tell from it, unlike a swap. */
  function replacement(vocabulary, caption, role) {
    const { words, roles, kind } = caeLive.parse(vocabulary, caption);
    const at = words.findIndex((word, i) => roles[i] === role && (role === "object" || kind(word) === "color"));
    if (at < 0) return null;
    const others = role === "object" ? vocabulary.nouns : Object.keys(vocabulary.colors);
    const next = others.find(word => !words.includes(word));
    return words.map((word, i) => i === at ? next : i === at - 1 && (word === "a" || word === "an")
      ? (vocabulary.an.includes(next) ? "an" : "a") : word).join(" ");
  }

  function shortList(vocabulary, caption, swapped) {
    const others = swapsOf(vocabulary, caption).map(({ text }) => text);
    const easy = ["attribute", "object"].map(role => replacement(vocabulary, caption, role));
    const list = [caption, ...(swapped ? [swapped] : []), ...others].filter((text, i, all) => all.indexOf(text) === i);
    return [...list.slice(0, MOST_CAPTIONS - 2), ...easy.filter(Boolean)];
  }

  globalThis.caePlayground = { STATES, loadSprites, compose, readScene, writeScene, sceneOf, swapsOf, shortList };

  /* ---- The page ---- */

  function start(root) {
    const { vocabulary, models } = caeLiveIndex, { colors, nouns } = vocabulary;
    const palette = Object.entries(colors);
    const known = Object.keys(vocabulary.words);
    const modelOf = name => models.find(([run]) => run === name);
    const states = STATES.filter(({ models: names }) => names.every(modelOf));
    let scene, scenes = [], chosen = -1, imageTower, image, towers = {}, frame = 0, message = "";

    root.innerHTML = `<form aria-label="Playground">
      <fieldset class="try"><legend>Try this</legend>${states.map(({ name }, i) =>
        `<button type="button" name="state" value="${i}" aria-pressed="false">${escaped(name)}</button>`).join("")}</fieldset>
      <p class="about" role="status"></p>
      <div class="halves">
        <section aria-label="Scene">
          <div class="stage"><canvas width="${SHOWN}" height="${SHOWN}" role="img"></canvas><div class="handles"></div></div>
          <div class="tools">
            <button type="button" name="random">Random scene</button>
            <button type="button" name="draw">Draw the caption</button>
            <label>Add <select name="add">${options([["", "an object"], ...nouns.map(noun => [noun, noun])])}</select></label>
          </div>
          <div class="thing"></div>
        </section>
        <section aria-label="Caption">
          <label for="cae-caption">Caption</label>
          <input id="cae-caption" name="caption" maxlength="${MOST_LETTERS}" autocomplete="off" autocapitalize="off"
            spellcheck="false" aria-describedby="cae-caption-help">
          <p id="cae-caption-help" class="help" role="status"></p>
          <div class="offers" aria-label="Words that fit" role="group"></div>
          <details class="lexicon"><summary>All words that the models know</summary></details>
          <fieldset class="swaps"><legend>Swap</legend><div></div></fieldset>
          <p class="swapped"></p>
          <fieldset class="by"><legend>Score words by</legend>${Object.entries(METHODS).map(([name, text], i) =>
            `<label><input type="radio" name="by" value="${name}"${i ? "" : " checked"}> ${text}</label>`).join("")}</fieldset>
        </section>
      </div>
      <div class="cards">${[0, 1].map(i => `<section class="answering" aria-label="${i ? "Second" : "First"} model">
        <label>${i ? "Beside it" : "Model"} <select name="model${i}">${caeLive.optionsHtml(models)}</select></label>
        <div class="answer"></div></section>`).join("")}</div>
      <details class="all"><summary>All ${models.length} models</summary><div></div></details>
      <div class="tools share">
        <button type="button" name="link">Copy link</button>
        <button type="button" name="text">Copy as text</button>
        <button type="button" name="picture">Save as picture</button>
        <span role="status" class="done"></span>
      </div></form>`;
    const form = root.firstElementChild, part = what => form.querySelector(what), { caption, add } = form.elements;
    const canvas = part("canvas"), handles = part(".handles");
    canvas.getContext("2d").fillStyle = "#eee";
    canvas.getContext("2d").fillRect(0, 0, SHOWN, SHOWN);

    part(".lexicon").insertAdjacentHTML("beforeend", [["objects", nouns], ["attributes", Object.values(vocabulary.adjectives).flat()],
      ["relations", [...Object.values(vocabulary.relations).flat(), ...vocabulary.vague]],
      ["others", [...vocabulary.prefixes, ...vocabulary.positions, "and", "the", "no"]]].map(([name, words]) =>
      `<p><b>${name}</b> ${words.map(word => `<button type="button" name="word" value="${escaped(word)}">${escaped(word)}</button>`).join(" ")}</p>`).join(""));

    /* -- Scene -- */

    const nameOf = thing => [thing.pattern, thing.color, thing.noun].filter(Boolean).join(" ");

    function drawScene() {
      const pixels = compose(scene, SHOWN, colors);
      canvas.getContext("2d").putImageData(new ImageData(pixels, SHOWN, SHOWN), 0, 0);
      canvas.setAttribute("aria-label", scene.things.length ? `A scene of ${scene.things.map(nameOf).join(", ")}` : "An empty scene");
      image = imageTower && caeLive.encodeImage(imageTower, compose(scene, SEEN, colors));
    }

    function drawHandles() {
      const order = backToFront(scene.things).map(thing => scene.things.indexOf(thing));
      handles.innerHTML = order.map(i => `<button type="button" name="thing" value="${i}" aria-pressed="${i === chosen}"
        title="${escaped(nameOf(scene.things[i]))}" aria-label="${escaped(nameOf(scene.things[i]))}: arrow keys move, plus and minus scale, Delete removes"></button>`).join("");
      placeHandles();
    }

    function placeHandles() {
      for (const handle of handles.children) {
        const { x, y, scale } = scene.things[Number(handle.value)];
        Object.assign(handle.style, { left: `${100 * (x - scale / 2)}%`, top: `${100 * (y - scale / 2)}%`, width: `${100 * scale}%` });
        handle.setAttribute("aria-pressed", Number(handle.value) === chosen);
      }
    }

    function drawThing() {
      const thing = scene.things[chosen];
      part(".thing").innerHTML = thing ? `
        <div role="group" aria-label="Colour" class="colors">${palette.map(([name, rgb]) =>
          `<button type="button" name="color" value="${name}" aria-pressed="${name === thing.color}" aria-label="${name}"
            title="${name}" style="background:rgb(${rgb})"></button>`).join("")}</div>
        <div class="tools"><label>Object <select name="noun">${options(nouns.map(noun => [noun, noun]), thing.noun)}</select></label>
        <label>Pattern <select name="pattern">${options([["", "plain"], ...Object.keys(PATTERNS).map(name => [name, name])], thing.pattern)}</select></label>
        <label class="size">Size <input type="range" name="scale" min="${FAR}" max="${NEAR}" step="0.01" value="${thing.scale}"></label></div>
        <div class="tools"><button type="button" name="mirror">Mirror</button><button type="button" name="depth">${
          thing.depth > 0 ? "To the front" : "To the back"}</button><button type="button" name="motion" aria-pressed="${
          Boolean(thing.motion)}">Moving</button><button type="button" name="remove">Remove</button></div>`
        : `<p class="help">${scene.things.length ? "Drag an object, or select it to change its colour, pattern and size."
          : "The scene is empty: the models see the background alone."}</p>`;
    }

    function show(next) {
      scene = next;
      chosen = -1;
      drawHandles();
      drawThing();
      changed(true);
    }

    /* Draws and answers at most once a frame. */
    function changed(sceneToo) {
      changed.scene = changed.scene || sceneToo;
      frame = frame || requestAnimationFrame(() => {
        frame = 0;
        if (changed.scene) drawScene();
        changed.scene = false;
        answer();
        writeAddress();
      });
    }

    function edit(changes) {
      const thing = scene.things[chosen];
      if (!thing) return;
      Object.assign(thing, changes);
      if ("color" in changes) delete thing.rgb;
      thing.x = clamp(thing.x, 0, 1);
      thing.y = clamp(thing.y, 0, 1);
      thing.scale = clamp(thing.scale, FAR, NEAR);
      leaveState();
      placeHandles();
      changed(true);
    }

    function select(index) {
      chosen = index;
      placeHandles();
      drawThing();
    }

    function remove() {
      scene.things.splice(chosen, 1);
      leaveState();
      show(scene);
      (handles.firstElementChild ?? add).focus();
    }

    let held = null;  // where on a thing the pointer holds it
    handles.addEventListener("pointerdown", event => {
      const handle = event.target.closest("button"), box = canvas.getBoundingClientRect();
      if (!handle || !scene) return;
      select(Number(handle.value));
      const thing = scene.things[chosen];
      held = { x: thing.x - event.clientX / box.width, y: thing.y - event.clientY / box.height };
      handle.setPointerCapture(event.pointerId);
    });
    handles.addEventListener("pointermove", event => {
      if (!held) return;
      const box = canvas.getBoundingClientRect();
      edit({ x: held.x + event.clientX / box.width, y: held.y + event.clientY / box.height });
    });
    for (const type of ["pointerup", "pointercancel"]) handles.addEventListener(type, () => { held = null; });
    handles.addEventListener("focusin", event => {
      if (event.target.name === "thing" && Number(event.target.value) !== chosen) select(Number(event.target.value));
    });
    handles.addEventListener("keydown", event => {
      const thing = scene.things[chosen], step = event.shiftKey ? 0.1 : 0.02;
      const changes = thing && { ArrowLeft: { x: thing.x - step }, ArrowRight: { x: thing.x + step }, ArrowUp: { y: thing.y - step },
        ArrowDown: { y: thing.y + step }, "+": { scale: thing.scale + 0.02 }, "-": { scale: thing.scale - 0.02 } }[event.key];
      if (changes) {
        edit(changes);
        drawThing();
      } else if (thing && (event.key === "Delete" || event.key === "Backspace")) remove();
      else return;
      event.preventDefault();
      event.stopPropagation();  // the explorer and the theme listen, too
    });

    /* -- Caption -- */

    const text = () => caption.value.trim().toLowerCase().replace(/\s+/g, " ").slice(0, MOST_LETTERS);
    let tokens = null, swapped = null;

    function readCaption() {
      const partial = beingTyped();  // is no word yet
      tokens = caeLive.tokenize(vocabulary, partial ? text().slice(0, -partial.length) : text());
      const { unknown, truncated, words } = tokens, ok = !unknown.length && words.length > 0;
      const shown = unknown.slice(0, 5).map(word => `“${escaped(word.slice(0, 30))}”`).join(", ");
      part("#cae-caption-help").innerHTML = unknown.length ? `<b>The models do not know ${shown}${unknown.length > 5 ? " and more" : ""}.</b>`
        : !words.length ? "Write a caption, or choose words from the list." : truncated
          ? `Only the first ${words.length} words count: the models read 77 tokens.` : "";
      caption.setAttribute("aria-invalid", unknown.length > 0);
      const used = words.map(word => word.text).join(" ");
      if (!ok) tokens = null;
      const swaps = tokens ? swapsOf(vocabulary, used).slice(0, 8) : [];
      const now = form.dataset.swap, current = swaps.find(({ key }) => key === now) ?? swaps[0];
      swapped = current ? current.text : null;
      part(".swaps").hidden = !swaps.length;
      part(".swaps div").innerHTML = swaps.map(({ key, label }) => `<label><input type="radio" name="swap" value="${escaped(key)}"${
        key === current?.key ? " checked" : ""}> ${escaped(label)}</label>`).join("");
      part(".swapped").innerHTML = !tokens ? "" : swapped ? `<span>Swapped</span> ${escaped(swapped)}`
        : "Nothing in this caption can be swapped: it takes two objects and a relation, or two colours.";
      tokens = tokens && { ...tokens, used };
      offer();
    }

    const continuing = typed => typed ? known.filter(word => word.startsWith(typed) && word !== typed).slice(0, 6) : [];

    /* The beginning of a known word at the end of the caption, while the reader writes there; else "". */
    function beingTyped() {
      const typed = caption.value.toLowerCase().match(/\p{L}*$/u)[0];
      const isHere = document.activeElement === caption && caption.selectionStart === caption.value.length;
      return isHere && !known.includes(typed) && continuing(typed).length ? typed : "";
    }

    /* Words that continue what is being typed. */
    function offer() {
      const before = caption.value.slice(0, caption.selectionStart ?? caption.value.length).toLowerCase();
      const fitting = document.activeElement === caption ? continuing(before.match(/\p{L}*$/u)[0]) : [];
      part(".offers").innerHTML = fitting.map(word => `<button type="button" name="offer" value="${word}">${word}</button>`).join("");
    }

    function complete(word) {
      const at = caption.selectionStart, before = caption.value.slice(0, at).replace(/\p{L}*$/u, "");
      const after = caption.value.slice(at);
      caption.value = `${before}${word} ${after.trimStart()}`.slice(0, MOST_LETTERS);
      caption.focus();
      caption.setSelectionRange(before.length + word.length + 1, before.length + word.length + 1);
      readCaption();
      leaveState();
      changed();
    }

    /* -- Answers -- */

    /* A tower with what it makes of the present caption and of its list, each computed once. */
    function explained(run) {
      const tower = towers[run], list = shortList(vocabulary, tokens.used, swapped), { used } = tokens;
      if (tower.used !== used) Object.assign(tower, { used, main: caeLive.explain(tower, tokens) });
      return { tower, main: tower.main, list, features: featuresOf(tower, list) };
    }

    /* The features of captions; what is not yet known is computed in one pass. */
    function featuresOf(tower, captions) {
      const features = tower.features = tower.features?.size < 100 ? tower.features : new Map();
      if (tower.used) features.set(tower.used, tower.main.feature);
      const missing = captions.filter(caption => !features.has(caption));
      caeLive.encodeTexts(tower, missing.map(caption => caeLive.tokenize(vocabulary, caption).tokens))
        .forEach((feature, i) => features.set(missing[i], feature));
      return captions.map(caption => features.get(caption));
    }

    const points = value => (100 * value).toFixed(1).replace("-", "−");

    function answersOf(run) {
      const { tower, main, list, features } = explained(run);
      const scores = form.elements.by.value === "attention" ? caeLive.attentionScores(main, tokens) : caeLive.perturbationScores(main, image);
      const similarities = features.map(feature => caeLive.similarity(feature, image));
      return { scores, similarities, list, shares: caeLive.preferences(tower, image, features) };
    }

    function answer() {
      const begun = performance.now(), runs = [0, 1].map(i => form.elements[`model${i}`].value);
      const ready = runs.map(run => tokens && image && towers[run]);
      const answers = runs.map((run, i) => ready[i] ? answersOf(run) : null);
      const { roles } = tokens ? caeLive.parse(vocabulary, tokens.used) : {};
      const all = answers.filter(Boolean);
      const most = Math.max(1e-6, ...all.flatMap(({ scores }) => scores)), least = Math.min(0, ...all.flatMap(({ scores }) => scores));
      const highest = Math.max(1e-6, ...all.flatMap(({ similarities }) => similarities.slice(0, 2)));
      answers.forEach((card, i) => {
        const box = form.querySelectorAll(".answer")[i];
        box.innerHTML = card ? cardHtml(card, roles, least, most, highest)
          : !image && !message ? "<p>Loading …</p>" : message ? `<p>${escaped(message)}</p>` : tokens
            ? (towers[runs[i]] === null ? caeLive.lostHtml(modelOf(runs[i])[1]) : "<p>Loading …</p>") : "";
      });
      if (part(".all").open) drawAll();
      form.dataset.milliseconds = (performance.now() - begun).toFixed(1);
    }

    function cardHtml({ scores, similarities, list, shares }, roles, least, most, highest) {
      const difference = similarities[0] - similarities[1], right = difference > 0;
      const line = (name, value, wins) => `<tr class="${wins ? "wins" : ""}"><th scope="row">${name}</th><td class="number">${points(value)}</td>
        <td class="bar" aria-hidden="true"><span style="width:${100 * Math.max(0, value) / highest}%"></span></td></tr>`;
      const verdict = swapped === null ? "" : `<p class="verdict">Prefers <b>${right ? "your caption"
        : "the swapped caption"}</b> by ${points(Math.abs(difference))}</p>`;
      return `<table class="sims"><caption>Similarity × 100</caption><tbody>${line("caption", similarities[0], right || swapped === null)}${
        swapped === null ? "" : line("swapped", similarities[1], !right)}</tbody></table>${verdict}
        ${caeLive.barsHtml(tokens.words.map(word => word.text), roles, scores, { least, most, title:
          form.elements.by.value === "attention" ? "Attention to each word, %" : "How much masking a word lowers the similarity, × 100" })}
        <table class="shares"><caption>Choice among your caption (bold) and ${list.length - 1} like it, %</caption><tbody>${list.map((other, i) => ({ other, share: shares[i], i }))
          .sort((one, two) => two.share - one.share).map(({ other, share, i }) => `<tr class="${i ? "" : "yours"}"><th scope="row">${escaped(other)}${other === swapped ? " <small>(swapped)</small>" : ""}</th>
          <td class="number">${Math.round(100 * share)}</td><td class="bar" aria-hidden="true"><span style="width:${100 * share}%"></span></td></tr>`).join("")}</tbody></table>`;
    }

    /* Similarities by all models that are loaded: no word scores, which take most of the time. */
    function drawAll() {
      const box = part(".all div");
      if (!tokens || !image || !swapped) {
        box.innerHTML = "<p class='help'>Write a caption with something to swap.</p>";
        return;
      }
      const rows = models.map(([run, label]) => {
        const tower = towers[run];
        if (!tower) return `<tr><th scope="row">${escaped(label)}</th><td colspan="4">${tower === null ? "could not be loaded" : "loading …"}</td></tr>`;
        const [ofCaption, ofSwapped] = featuresOf(tower, [tokens.used, swapped]).map(feature => caeLive.similarity(feature, image));
        const difference = 100 * (ofCaption - ofSwapped);
        const width = Math.min(50, 2.5 * Math.abs(difference));
        return `<tr><th scope="row">${escaped(label)}</th><td class="number">${points(ofCaption)}</td><td class="number">${points(ofSwapped)}</td>
          <td class="number">${difference > 0 ? "+" : ""}${points(ofCaption - ofSwapped)}</td><td class="bar both" aria-hidden="true"><span class="${difference > 0 ? "good"
          : "bad"}" style="left:${difference > 0 ? 50 : 50 - width}%;width:${width}%"></span></td></tr>`;
      });
      box.innerHTML = `<table><thead><tr><th scope="col">Similarity × 100</th><th scope="col">caption</th><th scope="col">swapped</th>
        <th scope="col">difference</th><td class="wide"></td></tr></thead><tbody>${rows.join("")}</tbody></table>`;
    }

    function loadModel(run) {
      const file = models.find(([name]) => name === run)[2];
      return towers[run] ? Promise.resolve() : caeLive.load(file).then(tower => { towers[run] = tower; }, () => { towers[run] = null; }).then(() => changed());
    }

    /* -- Address and states -- */

    function writeAddress() {
      const { by, model0, model1 } = form.elements;
      const state = { c: caption.value, k: form.dataset.swap ?? "", m: `${model0.value},${model1.value}`, by: by.value, s: writeScene(scene) };
      history.replaceState(null, "", `#${new URLSearchParams(Object.entries(state).filter(([, value]) => value))}`);
    }

    function readAddress() {
      const given = new URLSearchParams(location.hash.slice(1)), next = given.has("s") ? readScene(given.get("s"), vocabulary) : null;
      if (!given.has("c") && !given.has("s")) return false;
      caption.value = (given.get("c") ?? "").slice(0, MOST_LETTERS);
      form.dataset.swap = given.get("k") ?? "";
      (given.get("m") ?? "").split(",").slice(0, 2).forEach((name, i) => {
        const model = modelOf(name);
        if (model) form.elements[`model${i}`].value = model[0];
      });
      if (Object.hasOwn(METHODS, given.get("by") ?? "")) form.elements.by.value = given.get("by");
      leaveState(next ? "" : given.has("s") ? "The address holds no scene that can be drawn; this one shows its caption."
        : "This scene was drawn for the caption.");
      readCaption();
      show(next ?? sceneOf(vocabulary, text()));
      return true;
    }

    function leaveState(about = "") {
      part(".about").textContent = about;
      for (const button of form.querySelectorAll("[name=state]")) button.setAttribute("aria-pressed", false);
    }

    const copyOf = ({ top, bottom, things }) => ({ top, bottom, things: things.map(thing => ({ ...thing })) });

    function enter(number) {
      const state = states[number];
      caption.value = state.caption ?? scenes[state.scene].caption;
      form.dataset.swap = state.swap;
      form.elements.by.value = state.by ?? "perturbation";
      state.models.forEach((name, i) => { form.elements[`model${i}`].value = modelOf(name)[0]; });
      leaveState(state.text);
      form.querySelector(`[name=state][value="${number}"]`).setAttribute("aria-pressed", true);
      readCaption();
      show(copyOf(scenes[state.scene]));
      loadChosen();
    }

    /* Show a scene of the test set with its caption. */
    function showTest(next) {
      caption.value = next.caption;
      leaveState();
      readCaption();
      show(copyOf(next));
    }

    const loadChosen = () => Promise.all([0, 1].map(i => loadModel(form.elements[`model${i}`].value)));

    /* -- Sharing -- */

    function asText() {
      const runs = [0, 1].map(i => form.elements[`model${i}`]), names = runs.map(one => one.selectedOptions[0].text);
      const lines = [`Scene: ${scene.things.map(nameOf).join(", ") || "empty"}`, `Caption: ${text()}`, swapped ? `Swapped: ${swapped}` : ""];
      runs.forEach((one, i) => {
        if (!tokens || !towers[one.value]) return;
        const { scores, similarities } = answersOf(one.value);
        lines.push("", names[i], `similarity x 100: ${points(similarities[0])}${swapped ? `, swapped ${points(similarities[1])}` : ""}`,
          `words (${form.elements.by.value}, x 100): ${tokens.words.map((word, j) => `${word.text} ${points(scores[j])}`).join(", ")}`);
      });
      return [...lines.filter((line, i) => line || i > 2), "", location.href].join("\n");
    }

    function picture() {
      const sheet = document.createElement("canvas"), pad = 24, tall = 2 * pad + Math.max(SHOWN + 70, 120 + 24 * (tokens?.words.length ?? 0));
      Object.assign(sheet, { width: 1240, height: tall });
      const pen = sheet.getContext("2d");
      const write = (words, x, y, font = "16px sans-serif", color = "#222") => Object.assign(pen, { font, fillStyle: color }) && pen.fillText(words, x, y);
      pen.fillStyle = "#fff";
      pen.fillRect(0, 0, sheet.width, tall);
      pen.drawImage(canvas, pad, pad);
      write(text().slice(0, 60), pad, SHOWN + 50, "bold 16px sans-serif");
      if (swapped) write(`swapped: ${swapped.slice(0, 55)}`, pad, SHOWN + 74);
      const { roles } = tokens ? caeLive.parse(vocabulary, tokens.used) : {};
      const answers = [0, 1].map(i => form.elements[`model${i}`]).map(one => ({ name: one.selectedOptions[0].text,
        ...(tokens && towers[one.value] ? answersOf(one.value) : { scores: [], similarities: [] }) }));
      const most = Math.max(1e-6, ...answers.flatMap(({ scores }) => scores));
      answers.forEach(({ name, scores, similarities }, i) => {
        const left = SHOWN + 2 * pad + i * 370;
        write(name.slice(0, 42), left, pad + 16, "bold 16px sans-serif");
        if (similarities.length) write(`caption ${points(similarities[0])}${swapped ? `   swapped ${points(similarities[1])}` : ""}`, left, pad + 42);
        scores.forEach((score, j) => {
          const y = pad + 76 + 24 * j;
          write(tokens.words[j].text, left, y);
          pen.fillStyle = caeLive.ROLE_COLORS[roles[j]] ?? "#888";
          pen.fillRect(left + 100, y - 13, 190 * Math.max(0, score) / most, 16);
          write(points(score), left + 300, y);
        });
      });
      return new Promise(done => sheet.toBlob(done));
    }

    function done(words) {
      part(".done").textContent = words;
      setTimeout(() => { if (part(".done").textContent === words) part(".done").textContent = ""; }, 4000);
    }

    async function copy(words) {
      try {
        await navigator.clipboard.writeText(words);
      } catch {  // a page from a disk may not write to the clipboard this way
        const area = Object.assign(document.createElement("textarea"), { value: words });
        form.append(area);
        area.select();
        const copied = document.execCommand("copy");
        area.remove();
        if (!copied) return done("This browser does not allow copying.");
      }
      return done("Copied.");
    }

    async function save() {
      const url = URL.createObjectURL(await picture());
      Object.assign(document.createElement("a"), { href: url, download: "playground.png" }).click();
      setTimeout(() => URL.revokeObjectURL(url), 10000);
      done("Saved.");
    }

    /* -- Events -- */

    form.addEventListener("submit", event => event.preventDefault());
    form.addEventListener("click", event => {
      const { name, value } = event.target.closest("button") ?? {}, thing = scene?.things[chosen];
      if (!scene || !name) return;
      const act = {
        state: () => enter(Number(value)),
        random: () => showTest(scenes[Math.floor(Math.random() * scenes.length)]),
        draw: () => {
          if (tokens) leaveState();
          if (tokens) show(sceneOf(vocabulary, tokens.used));
        },
        color: () => { edit({ color: value }); drawHandles(); drawThing(); part(`[name=color][value="${value}"]`).focus(); },
        mirror: () => edit({ flip: !thing.flip, tilt: -thing.tilt, motion: -thing.motion, contact: -thing.contact }),
        depth: () => { edit({ depth: thing.depth > 0 ? -1 : 3 }); drawHandles(); drawThing(); part("[name=depth]").focus(); },
        motion: () => { edit({ motion: thing.motion ? 0 : thing.flip ? 1 : -1 }); drawThing(); part("[name=motion]").focus(); },
        remove,
        offer: () => complete(value),
        word: () => complete(value),
        link: () => copy(location.href),
        text: () => copy(asText()),
        picture: save,
      }[name];
      if (act) act();
    });
    form.addEventListener("input", event => {
      const { name, value } = event.target;
      if (name === "caption") { leaveState(); readCaption(); changed(); }
      if (name === "scale") edit({ scale: Number(value) });
    });
    form.addEventListener("change", event => {
      const { name, value } = event.target;
      if (name === "noun" || name === "pattern") { edit({ [name]: value }); drawHandles(); }
      if (name === "swap") { form.dataset.swap = value; readCaption(); changed(); part("[name=swap]:checked").focus(); }
      if (name === "by") changed();
      if (name === "model0" || name === "model1") { changed(); loadModel(value); }
      if (name === "add" && value) {
        if (scene.things.length < MOST_THINGS) {
          const { length } = scene.things, [color] = palette[length % palette.length];
          scene.things.push({ noun: value, color, pattern: "", x: 0.3 + 0.13 * length % 0.5, y: 0.35 + 0.17 * length % 0.4,
            scale: 0.36, tilt: 0, flip: false, depth: 0, motion: 0, contact: 0, phase: 0 });
          leaveState();
          show(scene);
          select(length);
        } else done(`A scene holds at most ${MOST_THINGS} objects.`);
        add.value = "";
      }
    });
    for (const type of ["focusin", "focusout", "keyup"]) caption.addEventListener(type, () => setTimeout(() => {
      if (!part(".offers").contains(document.activeElement)) {
        readCaption();
        if (type === "focusout") changed();
      }
    }, type === "focusout" ? 150 : 0));
    part(".all").addEventListener("toggle", () => {
      if (!part(".all").open) return;
      for (const [run] of models) loadModel(run);
      changed();
    });
    window.addEventListener("hashchange", () => { if (readAddress()) loadChosen(); });

    (async () => {
      try {
        await caeLive.loadScript("scenes");
        scenes = caeLiveScenes.scenes;
        await loadSprites(caeLiveScenes);
      } catch {
        root.textContent = "The scenes of the playground could not be loaded.";
        return;
      }
      if (!readAddress()) states.length ? enter(0) : showTest(scenes[0]);
      caeLive.load("image-tower").then(tower => { imageTower = tower; }, () => {
        message = "The image tower could not be loaded, so there are no answers.";
      }).then(() => changed(true));
      loadChosen();
    })();
  }

  if (typeof document !== "undefined") document.addEventListener("DOMContentLoaded", () => {
    const root = document.getElementById("cae-playground");
    if (root && globalThis.caeLiveIndex) start(root);
  });
})();
