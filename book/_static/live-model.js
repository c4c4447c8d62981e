/* CLIP of the synthetic scenes in the reader's browser: its tokenizer, its two towers, the scores of
   words, and the swaps of captions, all as cae_lib computes them. book/extension/live.py writes the
   weights as scripts beside this file, so it works from a folder and without a network. */
(() => {
  "use strict";
  const EPSILON = 1e-5;  // of layer norm
  const MOST_ROWS = 256;  // states of a pass: a caption of ten words and all its masked variants have 77
  const QUICK_GELU = 1.702, PAGE = 65536, FLOAT = 4;
  const here = typeof document === "undefined" ? "" : document.currentScript.src.replace(/[^/]*$/, "");
  const towers = (globalThis.caeLiveTowers = {});  // what the files of models set

  /* ---- The product of matrices, by 128-bit instructions where the browser has them ---- */

  /* y (rows, nOut) = x (rows, nIn) w (nIn, nOut) + b, at offsets of bytes; nOut is a multiple of 8.
     Plain JavaScript, four rows by four columns at a time, whose 16 sums stay in registers. */
  function plainProduct(f) {
    return (xByte, wByte, bByte, yByte, rows, nIn, nOut) => {
      const x = xByte / FLOAT, w = wByte / FLOAT, b = bByte / FLOAT, y = yByte / FLOAT;
      let row = 0;
      for (; row + 4 <= rows; row += 4) {
        const x0 = x + row * nIn, x1 = x0 + nIn, x2 = x1 + nIn, x3 = x2 + nIn;
        for (let column = 0; column < nOut; column += 4) {
          let p0 = f[b + column], p1 = f[b + column + 1], p2 = f[b + column + 2], p3 = f[b + column + 3];
          let q0 = p0, q1 = p1, q2 = p2, q3 = p3, r0 = p0, r1 = p1, r2 = p2, r3 = p3;
          let s0 = p0, s1 = p1, s2 = p2, s3 = p3;
          for (let k = 0, at = w + column; k < nIn; k++, at += nOut) {
            const w0 = f[at], w1 = f[at + 1], w2 = f[at + 2], w3 = f[at + 3];
            const a = f[x0 + k], c = f[x1 + k], d = f[x2 + k], e = f[x3 + k];
            p0 += a * w0; p1 += a * w1; p2 += a * w2; p3 += a * w3;
            q0 += c * w0; q1 += c * w1; q2 += c * w2; q3 += c * w3;
            r0 += d * w0; r1 += d * w1; r2 += d * w2; r3 += d * w3;
            s0 += e * w0; s1 += e * w1; s2 += e * w2; s3 += e * w3;
          }
          let to = y + row * nOut + column;
          f[to] = p0; f[to + 1] = p1; f[to + 2] = p2; f[to + 3] = p3; to += nOut;
          f[to] = q0; f[to + 1] = q1; f[to + 2] = q2; f[to + 3] = q3; to += nOut;
          f[to] = r0; f[to + 1] = r1; f[to + 2] = r2; f[to + 3] = r3; to += nOut;
          f[to] = s0; f[to + 1] = s1; f[to + 2] = s2; f[to + 3] = s3;
        }
      }
      for (; row < rows; row++) {
        const x0 = x + row * nIn;
        for (let column = 0; column < nOut; column += 4) {
          let p0 = f[b + column], p1 = f[b + column + 1], p2 = f[b + column + 2], p3 = f[b + column + 3];
          for (let k = 0, at = w + column; k < nIn; k++, at += nOut) {
            const a = f[x0 + k];
            p0 += a * f[at]; p1 += a * f[at + 1]; p2 += a * f[at + 2]; p3 += a * f[at + 3];
          }
          const to = y + row * nOut + column;
          f[to] = p0; f[to + 1] = p1; f[to + 2] = p2; f[to + 3] = p3;
        }
      }
    };
  }

  const plainQuickGelu = f => (start, end) => {
    for (let i = start / FLOAT; i < end / FLOAT; i++) f[i] /= 1 + Math.exp(-QUICK_GELU * f[i]);
  };

  /* Both functions as WebAssembly, assembled here: with four numbers an instruction
     they take a quarter of the time. */
  function wasmModule() {
    const number = value => {  // signed LEB128
      const low = value & 127, rest = value >> 7;
      return (rest === 0 && low < 64) || (rest === -1 && low > 63) ? [low] : [low | 128, ...number(rest)];
    };
    const count = value => value < 128 ? [value] : [value & 127 | 128, ...count(value >> 7)];
    const list = items => [...count(items.length), ...items.flat()];
    const section = (id, content) => [id, ...count(content.length), ...content];
    const I32 = 0x7f, V128 = 0x7b, VOID = 0x40;
    const get = local => [0x20, local], set = local => [0x21, local];
    const constant = value => [0x41, ...number(value)];
    const LOOP = [0x03, VOID], BLOCK = [0x02, VOID], END = [0x0b], ADD = [0x6a], MUL = [0x6c];
    const LESS = [0x48], jump = depth => [0x0c, depth], jumpIf = depth => [0x0d, depth];
    const vector = code => [0xfd, ...count(code)];
    const load = offset => [...vector(0x00), 2, offset], store = offset => [...vector(0x0b), 2, offset];
    const LOAD_SPLAT = [...vector(0x09), 2, 0], SHIFT = vector(0xab), INTEGER_ADD = vector(0xae);
    const NEAREST = vector(0x6a), TRUNCATE = vector(0xf8);
    const [VADD, VSUB, VMUL, VDIV, VMIN, VMAX] = [0xe4, 0xe5, 0xe6, 0xe7, 0xe8, 0xe9].map(vector);
    const floats = value => [0x43, ...new Uint8Array(Float32Array.of(value).buffer), ...vector(0x13)];
    const integers = value => [...constant(value), ...vector(0x11)];
    const increase = (local, step) => [...get(local), ...step, ...ADD, ...set(local)];

    const [x, w, b, y, left, nIn, nOut] = [0, 1, 2, 3, 4, 5, 6];  // `left` counts rows
    const [column, weight, depth, strideIn, strideOut, to] = [7, 8, 9, 10, 11, 12];
    const from = row => 13 + row, sum = (row, half) => 17 + 2 * row + half, pair = half => 25 + half;
    const value = 27, halves = [0, 1];
    const loadPair = halves.flatMap(half => [...get(weight), ...load(16 * half), ...set(pair(half))]);

    const blocks = height => {  // of so many rows and 8 columns, whose sums stay in registers
      const all = [...Array(height).keys()];
      return [
        ...BLOCK, ...LOOP, ...get(left), ...constant(height), ...LESS, ...jumpIf(1),
        ...constant(0), ...set(column),
        ...LOOP,
        ...get(b), ...get(column), ...ADD, ...set(weight), ...loadPair,
        ...all.flatMap(row => [
          ...halves.flatMap(half => [...get(pair(half)), ...set(sum(row, half))]),
          ...(row ? [...get(from(row - 1)), ...get(strideIn), ...ADD] : get(x)), ...set(from(row))]),
        ...get(w), ...get(column), ...ADD, ...set(weight), ...get(nIn), ...set(depth),
        ...LOOP, ...loadPair,
        ...all.flatMap(row => [
          ...get(from(row)), ...LOAD_SPLAT, ...set(value),
          ...halves.flatMap(half => [...get(sum(row, half)), ...get(value), ...get(pair(half)),
            ...VMUL, ...VADD, ...set(sum(row, half))]),
          ...increase(from(row), constant(FLOAT))]),
        ...increase(weight, get(strideOut)),
        ...increase(depth, constant(-1)), ...get(depth), ...jumpIf(0), ...END,
        ...get(y), ...get(column), ...ADD, ...set(to),
        ...all.flatMap(row => [
          ...halves.flatMap(half => [...get(to), ...get(sum(row, half)), ...store(16 * half)]),
          ...increase(to, get(strideOut))]),
        ...increase(column, constant(32)), ...get(column), ...get(strideOut), ...LESS, ...jumpIf(0), ...END,
        ...increase(x, [...get(strideIn), ...constant(height), ...MUL]),
        ...increase(y, [...get(strideOut), ...constant(height), ...MUL]),
        ...increase(left, constant(-height)), ...jump(0), ...END, ...END,
      ];
    };
    const product = [
      ...list([[6, I32], [4, I32], [11, V128]]),  // locals 7 to 12, 13 to 16, 17 to 27
      ...get(nIn), ...constant(FLOAT), ...MUL, ...set(strideIn),
      ...get(nOut), ...constant(FLOAT), ...MUL, ...set(strideOut),
      ...blocks(4), ...blocks(1), ...END,
    ];

    const [at, end, input, whole, rest] = [0, 1, 2, 3, 4];
    const series = [6, 5, 4, 3, 2, 1, 0].map(power =>  // of 2 ** rest, exact to float32
      Math.LN2 ** power / [1, 1, 2, 6, 24, 120, 720][power]);
    const quickGelu = [
      ...list([[3, V128]]), ...LOOP,
      ...get(at), ...load(0), ...set(input),
      ...get(input), ...floats(-QUICK_GELU / Math.LN2), ...VMUL,
      ...floats(126), ...VMIN, ...floats(-126), ...VMAX, ...set(rest),
      ...get(rest), ...NEAREST, ...set(whole), ...get(rest), ...get(whole), ...VSUB, ...set(rest),
      ...get(at), ...get(input),
      ...floats(series[0]), ...series.slice(1).flatMap(c => [...get(rest), ...VMUL, ...floats(c), ...VADD]),
      ...get(whole), ...TRUNCATE, ...integers(127), ...INTEGER_ADD, ...constant(23), ...SHIFT,  // 2 ** whole
      ...VMUL, ...floats(1), ...VADD, ...VDIV, ...store(0),
      ...increase(at, constant(16)), ...get(at), ...get(end), ...LESS, ...jumpIf(0), ...END, ...END,
    ];

    const name = text => list([...text].map(sign => sign.charCodeAt()));
    return new WebAssembly.Module(new Uint8Array([
      0, 0x61, 0x73, 0x6d, 1, 0, 0, 0,
      ...section(1, list([7, 2].map(n => [0x60, ...list(Array(n).fill(I32)), 0]))),
      ...section(2, list([[...name("m"), ...name("m"), 2, 0, 1]])),  // memory, of at least a page
      ...section(3, list([[0], [1]])),
      ...section(7, list([[...name("product"), 0, 0], [...name("quickGelu"), 0, 1]])),
      ...section(10, list([product, quickGelu].map(code => [...count(code.length), ...code]))),
    ]));
  }

  let compiled;  // undefined until it is needed, null where the browser has no such instructions
  function allocate(bytes, plain) {
    if (compiled === undefined) try { compiled = wasmModule(); } catch { compiled = null; }
    if (!compiled || plain) {
      const f = new Float32Array(bytes / FLOAT);
      return { f, product: plainProduct(f), quickGelu: plainQuickGelu(f) };
    }
    const memory = new WebAssembly.Memory({ initial: Math.ceil(bytes / PAGE) });
    const { product, quickGelu } = new WebAssembly.Instance(compiled, { m: { m: memory } }).exports;
    return { f: new Float32Array(memory.buffer), product, quickGelu };
  }

  /* ---- Reading a file ---- */

  /* Numbers of so many bits, one after another, as `_text` of book/extension/live.py writes them: two
     signs hold 13 bits. */
  const PLACES = new Uint8Array(128);
  Array.from({ length: 94 }, (_, i) => String.fromCharCode(33 + i)).filter(sign => !'"\\<'.includes(sign))
    .forEach((sign, place) => { PLACES[sign.charCodeAt()] = place; });

  function readNumbers(text, bits, count) {
    const numbers = new Uint16Array(count);
    let rest = 0, n = 0, at = 0;  // the last `n` bits of `rest` are not yet read
    for (let i = 0; i < count; i++) {
      for (; n < bits; n += 13, at += 2) {
        rest = rest << 13 | 91 * PLACES[text.charCodeAt(at)] + PLACES[text.charCodeAt(at + 1)];
      }
      n -= bits;
      numbers[i] = rest >> n;
      rest &= (1 << n) - 1;
    }
    return numbers;
  }

  /* A tower as book/extension/live.py writes it; `reference` is the tower that its file names. Matrices
     that multiply states are transposed, so that neighbouring outputs are neighbours. `plain` avoids
     WebAssembly. */
  function readTower(file, { reference = null, plain = false } = {}) {
    const shapes = Object.entries(file.shapes);
    const size = shape => shape.reduce((product, side) => product * side, 1);
    const width = file.shapes["ln_last.weight"][0], depth = shapes.filter(([n]) => n.endsWith(".query.weight")).length;
    const hidden = file.shapes["0.hidden.bias"][0], embed = file.shapes.projection[0];
    if (width % 8 || hidden % 8 || embed % 8 || width / file.heads % 4) throw new RangeError("odd width");
    const states = { x: width, normed: width, query: width, keys: 2 * width, mixed: width, hidden, taken: width };
    const rows = file.imageSize ? file.shapes.positions[0] : MOST_ROWS;
    const inputs = file.imageSize ? rows * file.shapes.patches[1] : 0;
    const floats = shapes.reduce((sum, [, shape]) => sum + size(shape), 0)
      + rows * (Object.values(states).reduce((sum, n) => sum + n, 0) + embed) + inputs + Math.max(hidden, embed);
    const tower = { ...file, width, depth, embed, at: {}, ...allocate(floats * FLOAT, plain) };
    let free = 0;
    const take = (name, n) => { tower.at[name] = free; free += n; return tower.at[name]; };

    const matrices = shapes.filter(([, shape]) => shape.length === 2), zero = 2 ** (file.bits - 1);
    const numbers = readNumbers(file.matrices, file.bits, matrices.reduce((sum, [, shape]) => sum + size(shape), 0));
    const halves = readNumbers(file.floats, 16, shapes.reduce((sum, [, [rows]]) => sum + 2 * rows, 0));
    const vectors = new Float32Array(halves.buffer);
    let vector = 0, number = 0;
    for (const [name, shape] of shapes) {
      const start = take(name, size(shape));
      if (shape.length === 1) {
        tower.f.set(vectors.subarray(vector, vector += shape[0]), start);
        continue;
      }
      const [nOut, nIn] = shape, isTable = name === "tokens" || name === "positions";
      if (reference) tower.f.set(reference.f.subarray(start, start + size(shape)), start);
      for (let row = 0; row < nOut; row++) {
        const scale = vectors[vector++];
        for (let column = 0; column < nIn; column++) {
          const to = isTable ? row * nIn + column : column * nOut + row;
          tower.f[start + to] += (numbers[number++] - zero) * scale;
        }
      }
    }
    take("none", Math.max(hidden, embed));  // the bias of a product without one
    for (const [name, n] of Object.entries(states)) take(name, rows * n);
    take("features", rows * embed);
    take("inputs", inputs);
    return tower;
  }

  /* ---- Both towers ---- */

  function multiply(tower, from, weight, bias, to, rows, nIn, nOut) {
    const { at } = tower;
    tower.product(at[from] * FLOAT, at[weight] * FLOAT, at[bias] * FLOAT, at[to] * FLOAT, rows, nIn, nOut);
  }

  function normalise({ f, at, width }, from, name, to, rows) {
    const weight = at[`${name}.weight`], bias = at[`${name}.bias`];
    for (let row = 0; row < rows; row++) {
      const start = at[from] + row * width, end = at[to] + row * width;
      let mean = 0, variance = 0;
      for (let i = 0; i < width; i++) mean += f[start + i];
      mean /= width;
      for (let i = 0; i < width; i++) variance += (f[start + i] - mean) ** 2;
      const scale = 1 / Math.sqrt(variance / width + EPSILON);
      for (let i = 0; i < width; i++) f[end + i] = (f[start + i] - mean) * scale * f[weight + i] + f[bias + i];
    }
  }

  function add({ f, at }, to, from, n) {
    const start = at[to], other = at[from];
    for (let i = 0; i < n; i++) f[start + i] += f[other + i];
  }

  function gather({ f, at, width }, from, rows, to) {
    rows.forEach((row, i) => f.copyWithin(at[to] + i * width, at[from] + row * width, at[from] + (row + 1) * width));
  }

  /* Attention of the states `rows`, whose queries lie one after another, on the states `keys[row]`.
     Adds what state `watched` attends to, the mean over heads and layers, to `attention`. */
  function attend({ f, at, width, heads, depth }, rows, keys, watched, attention) {
    const size = width / heads, factor = size ** -0.5;
    const weights = new Float64Array(MOST_ROWS), starts = new Int32Array(MOST_ROWS);
    for (let number = 0; number < rows.length; number++) {
      const attended = keys[rows[number]], n = attended.length;
      for (let head = 0; head < width; head += size) {
        const query = at.query + number * width + head, mixed = at.mixed + number * width + head;
        let most = -Infinity, sum = 0;
        for (let j = 0; j < n; j++) {
          const key = starts[j] = at.keys + attended[j] * 2 * width + head;
          let even = 0, odd = 0;
          for (let i = 0; i < size; i += 2) {
            even += f[query + i] * f[key + i];
            odd += f[query + i + 1] * f[key + i + 1];
          }
          weights[j] = (even + odd) * factor;
          if (weights[j] > most) most = weights[j];
        }
        for (let j = 0; j < n; j++) sum += weights[j] = Math.exp(weights[j] - most);
        for (let j = 0; j < n; j++) weights[j] /= sum;
        for (let i = 0; i < size; i += 4) {
          let a = 0, b = 0, c = 0, d = 0;
          for (let j = 0; j < n; j++) {
            const weight = weights[j], value = starts[j] + width + i;
            a += weight * f[value];
            b += weight * f[value + 1];
            c += weight * f[value + 2];
            d += weight * f[value + 3];
          }
          f[mixed + i] = a; f[mixed + i + 1] = b; f[mixed + i + 2] = c; f[mixed + i + 3] = d;
        }
        if (rows[number] === watched) {
          for (let j = 0; j < n; j++) attention[j] += weights[j] / (heads * depth);
        }
      }
    }
  }

  /* Run all blocks on the states in `x`. The last one computes only the states `read`, whose
     projections are returned, normalised. */
  function encode(tower, keys, read, watched, attention) {
    const { f, at, width, depth, embed } = tower, all = keys.map((_, row) => row);
    const hidden = tower.shapes["0.hidden.bias"][0];
    let rows = all;
    for (let number = 0; number < depth; number++) {
      const name = part => `${number}.${part}`;
      normalise(tower, "x", name("ln_1"), "normed", rows.length);
      multiply(tower, "normed", name("keys.weight"), name("keys.bias"), "keys", rows.length, width, 2 * width);
      let queries = "normed";
      if (number === depth - 1) {
        rows = read;
        gather(tower, "normed", rows, "taken");
        queries = "taken";
      }
      multiply(tower, queries, name("query.weight"), name("query.bias"), "query", rows.length, width, width);
      attend(tower, rows, keys, watched, attention);
      multiply(tower, "mixed", name("out.weight"), name("out.bias"), "normed", rows.length, width, width);
      if (number === depth - 1) {
        gather(tower, "x", rows, "taken");
        f.copyWithin(at.x, at.taken, at.taken + rows.length * width);
      }
      add(tower, "x", "normed", rows.length * width);
      normalise(tower, "x", name("ln_2"), "normed", rows.length);
      multiply(tower, "normed", name("hidden.weight"), name("hidden.bias"), "hidden", rows.length, width, hidden);
      tower.quickGelu(at.hidden * FLOAT, (at.hidden + rows.length * hidden) * FLOAT);
      multiply(tower, "hidden", name("mlp.weight"), name("mlp.bias"), "normed", rows.length, hidden, width);
      add(tower, "x", "normed", rows.length * width);
    }
    normalise(tower, "x", "ln_last", "normed", rows.length);
    multiply(tower, "normed", "projection", "none", "features", rows.length, width, embed);
    return rows.map((_, i) => {
      const feature = f.slice(at.features + i * embed, at.features + (i + 1) * embed);
      const length = Math.hypot(...feature);
      return feature.map(value => value / length);
    });
  }

  /* The feature of an image from its pixels, red, green, blue and alpha, as a canvas gives them. */
  function encodeImage(tower, pixels) {
    const { f, at, width, imageSize: side, patchSize: patch, mean, std } = tower;
    if (pixels.length !== 4 * side * side) throw new RangeError(`expected ${side} × ${side} pixels`);
    const across = side / patch, rows = 1 + across * across, nIn = 3 * patch * patch;
    for (let y = 0; y < side; y++) {
      for (let x = 0; x < side; x++) {
        const row = Math.floor(y / patch) * across + Math.floor(x / patch);
        const to = at.inputs + row * nIn + (y % patch) * patch + x % patch;
        for (let c = 0; c < 3; c++) {
          f[to + c * patch * patch] = (pixels[4 * (y * side + x) + c] / 255 - mean[c]) / std[c];
        }
      }
    }
    multiply(tower, "inputs", "patches", "none", "x", rows - 1, nIn, width);
    f.copyWithin(at.x + width, at.x, at.x + (rows - 1) * width);
    f.copyWithin(at.x, at.class, at.class + width);
    add(tower, "x", "positions", rows * width);
    normalise(tower, "x", "ln_first", "normed", rows);
    f.copyWithin(at.x, at.normed, at.normed + rows * width);
    const every = [...Array(rows).keys()];
    return encode(tower, every.map(() => every), [0])[0];
  }

  /* Write the states of tokens at positions, of which token -1 is the mask. */
  function writeStates({ f, at, width }, states) {
    states.forEach(([token, position], row) => {
      const from = token < 0 ? at.mask : at.tokens + token * width;
      const to = at.x + row * width, place = at.positions + position * width;
      for (let i = 0; i < width; i++) f[to + i] = f[from + i] + f[place + i];
    });
  }

  /* The features of several texts, as many in one pass as fit. Texts that begin alike share states. */
  function encodeTexts(tower, texts) {
    const features = [];
    for (let next = 0; next < texts.length;) {
      const states = [], keys = [], read = [], rows = new Map();
      for (; next < texts.length && states.length + texts[next].length <= MOST_ROWS; next++) {
        let row = -1;
        texts[next].forEach((token, position) => {
          const name = `${row} ${token}`, earlier = row < 0 ? [] : keys[row];
          if (!rows.has(name)) {
            rows.set(name, states.length);
            keys.push([...earlier, states.length]);
            states.push([token, position]);
          }
          row = rows.get(name);
        });
        read.push(row);
      }
      writeStates(tower, states);
      features.push(...encode(tower, keys, read, -1));
    }
    return features;
  }

  /* The features of a text and of its variants, in each of which a range of tokens is masked.
     Returns `feature`, `variants`, and `attention` of the last token on each token. The tower is
     causal, so that a variant has states of its own only from the first masked token on. */
  function encodeText(tower, tokens, ranges = []) {
    const length = tokens.length, variants = [];
    const attention = new Float32Array(length);
    let feature, next = 0;
    do {
      const states = tokens.map((token, position) => [token, position]);
      const keys = states.map((_, position) => states.slice(0, position + 1).map((_, i) => i));
      const read = [length - 1];
      for (; next < ranges.length && states.length + length - ranges[next][0] <= MOST_ROWS; next++) {
        const [start, end] = ranges[next], visible = [...Array(start).keys()];
        for (let position = start; position < length; position++) {
          visible.push(states.length);
          keys.push([...visible]);
          states.push([position < end ? -1 : tokens[position], position]);
        }
        read.push(states.length - 1);
      }
      writeStates(tower, states);
      const first = feature === undefined;
      const features = encode(tower, keys, read, first ? length - 1 : -1, attention);
      if (first) feature = features[0];
      variants.push(...features.slice(1));
    } while (next < ranges.length);
    return { feature, variants, attention };
  }

  /* ---- Similarities and scores ---- */

  const similarity = (first, second) => first.reduce((sum, value, i) => sum + value * second[i], 0);

  function softmax(values) {
    const most = Math.max(...values), powers = values.map(value => Math.exp(value - most));
    const sum = powers.reduce((total, power) => total + power, 0);
    return powers.map(power => power / sum);
  }

  /* The share of each of several captions, whose features are `texts`, in the choice for an image. */
  const preferences = (tower, image, texts) =>
    softmax(texts.map(text => tower.logitScale * similarity(image, text)));

  /* What is needed to score the words of a caption for any image: `text` is what `tokenize` returns. */
  const explain = (tower, text) => encodeText(tower, text.tokens, text.words.map(({ range }) => range));

  /* For each word, by how much the similarity drops if it is masked. */
  function perturbationScores(explained, image) {
    const whole = similarity(explained.feature, image);
    return explained.variants.map(variant => whole - similarity(variant, image));
  }

  /* For each word, the attention of the end-of-text token on all its tokens. */
  const attentionScores = (explained, text) => text.words.map(({ range }) =>
    explained.attention.slice(...range).reduce((sum, value) => sum + value, 0));

  /* ---- Captions ---- */

  const split = caption => String(caption).toLowerCase().match(/\p{L}+|\p{N}|[^\s\p{L}\p{N}]+/gu) ?? [];

  /* The tokens of a caption as rows of the vocabulary, and its words with the ranges of their
     tokens. A caption with `unknown` words has no tokens; a text that is too long is `truncated`. */
  function tokenize(vocabulary, caption, context = 77) {
    const texts = split(caption), known = word => Object.keys(vocabulary.words).includes(word);
    const unknown = [...new Set(texts.filter(word => !known(word)))];
    if (unknown.length) return { tokens: [], words: [], unknown, truncated: false };
    const tokens = [0], words = [];
    for (const text of texts) {
      const start = tokens.length;
      tokens.push(...vocabulary.words[text]);
      if (start < context - 1) words.push({ text, range: [start, Math.min(tokens.length, context - 1)] });
      if (tokens.length >= context) break;
    }
    const truncated = words.length < texts.length || tokens.length > context - 1;
    return { tokens: [...tokens.slice(0, context - 1), 1], words, unknown, truncated };
  }

  const ARTICLES = ["a", "an", "the", "no"];

  /* The phrases of a caption by the recipe's templates, and what is said between two of them. Words
     are named by their numbers, and a range has the number after its last word. */
  function parse(vocabulary, caption) {
    const words = split(caption), { nouns, adjectives, relations, vague } = vocabulary;
    const kind = word => Object.keys(adjectives).find(name => adjectives[name].includes(word));
    const wordings = Object.values(relations).flat();
    const phrases = [], roles = words.map(() => "other"), links = [];
    for (let noun = 0; noun < words.length; noun++) {
      if (!nouns.includes(words[noun])) continue;
      let first = noun;
      while (first > 0 && kind(words[first - 1])) first--;
      const attributes = words.slice(first, noun).map((_, i) => first + i);
      const start = first > 0 && ARTICLES.includes(words[first - 1]) ? first - 1 : first;
      phrases.push({ noun, attributes, range: [start, noun + 1] });
      roles[noun] = "object";
      for (const attribute of attributes) roles[attribute] = "attribute";
    }
    for (let i = 0; i + 1 < phrases.length; i++) {
      const [start, end] = [phrases[i].range[1], phrases[i + 1].range[0]];
      const first = words[start] === "is" ? start + 1 : start, text = words.slice(first, end).join(" ");
      const states = wordings.includes(text);
      links.push({ text, states });
      if (!states && !vague.includes(text)) continue;
      const quiet = text.includes("to the") ? ["to", "the", "of"] : [];
      for (let at = first; at < end; at++) if (!quiet.includes(words[at])) roles[at] = "relation";
    }
    return { words, phrases, links, roles, kind };
  }

  /* A caption with two ranges of words swapped; "a" and "an" fit the words that now follow them. */
  function swapRanges(vocabulary, words, [a, b], [c, d]) {
    const order = words.map((_, i) => i);
    const swapped = [order.slice(0, a), order.slice(c, d), order.slice(b, c), order.slice(a, b), order.slice(d)].flat();
    return swapped.map((origin, place) => {
      const word = words[origin], next = swapped[place + 1];
      if ((word !== "a" && word !== "an") || next === undefined || next === origin + 1) return word;
      return vocabulary.an.includes(words[next]) ? "an" : "a";
    }).join(" ");
  }

  /* What a swap of subject and object, or of two attributes that contradict each other, makes of a
     caption: `kind` is "arguments" or "attributes", `words` names the two, and `nouns` and `phrases`
     are the captions in which the words alone or the whole phrases are swapped. */
  function swaps(vocabulary, caption) {
    const { words, phrases, links, kind } = parse(vocabulary, caption), found = [];
    const alone = word => [word, word + 1];
    const record = (name, first, second, nouns, whole) => {
      if (words[first] === words[second]) return;
      found.push({ kind: name, words: [words[first], words[second]],
                   nouns: swapRanges(vocabulary, words, ...nouns), phrases: swapRanges(vocabulary, words, ...whole) });
    };
    links.forEach(({ states }, i) => {
      const [first, second] = [phrases[i], phrases[i + 1]];
      if (states) record("arguments", first.noun, second.noun, [alone(first.noun), alone(second.noun)],
                         [first.range, second.range]);
    });
    phrases.forEach((one, i) => phrases.slice(i + 1).forEach(other => {
      for (const first of one.attributes) {
        for (const second of other.attributes) {
          const pair = [alone(first), alone(second)];
          if (kind(words[first]) === kind(words[second])) record("attributes", first, second, pair, pair);
        }
      }
    }));
    return found;
  }

  /* ---- Files ---- */

  const loading = {};

  /* What `start` promises, once for each name; after a failure, the next call tries again. */
  function once(name, start) {
    loading[name] = loading[name] ?? start();
    loading[name].catch(() => { delete loading[name]; });
    return loading[name];
  }

  /* A file of the models by its name, such as "index". */
  const loadScript = name => once(`${name}.js`, () => new Promise((done, failed) => {
    const script = document.createElement("script");
    const lost = () => failed(new Error(`live-${name}.js is missing`));
    Object.assign(script, { src: `${here}live-${name}.js`, onload: done, onerror: lost });
    document.head.append(script);
  }));

  /* A tower by the name of its file, such as "image-tower"; its script is loaded when first needed, and
     so is the tower that it is stored as a difference from. */
  const load = name => once(name, async () => {
    await loadScript(name);
    const { reference } = towers[name];
    const tower = readTower(towers[name], { reference: reference && await load(reference) });
    delete towers[name];  // most of a megabyte of text
    return tower;
  });

  /* ---- Showing ---- */

  const ROLE_COLORS = { object: "#0173b2", attribute: "#de8f05", relation: "#029e73" };  // as cae_lab/plots.py
  const escaped = text => String(text).replace(/[&<>"]/g, sign => `&#${sign.charCodeAt()};`);
  const points = value => (100 * value).toFixed(1).replace("-", "−").replace(/^−0\.0$/, "0.0");

  /* Options of a list to choose a model from, by groups. */
  const optionsHtml = models => [...new Set(models.map(([, , , group]) => group))].map(name =>
    `<optgroup label="${escaped(name)}">${models.filter(([, , , group]) => group === name).map(([run, label]) =>
      `<option value="${escaped(run)}">${escaped(label)}</option>`).join("")}</optgroup>`).join("");

  /* What a page says where a model is missing. */
  const lostHtml = label => `<p>${escaped(label)} could not be loaded. Choose another model, or try again later.</p>`;

  /* A table of words with their scores as bars in the colours of their roles, on a scale from `least`
     to `most`, and by how much object words lead the other words with a role. */
  function barsHtml(words, roles, scores, { least, most, title }) {
    const range = most - least || 1, zero = 100 * -least / range;
    const lines = words.map((word, i) => {
      const left = zero + 100 * Math.min(0, scores[i]) / range, width = 100 * Math.abs(scores[i]) / range;
      return `<tr class="${roles[i]}"><th scope="row">${escaped(word)}</th><td class="number">${points(scores[i])}</td>
        <td class="bar" aria-hidden="true"><span style="left:${left}%;width:${width}%"></span></td></tr>`;
    });
    const mean = isInGroup => {
      const groupScores = scores.filter((_, i) => isInGroup(roles[i]));
      return groupScores.length ? groupScores.reduce((sum, score) => sum + score, 0) / groupScores.length : null;
    };
    const objects = mean(role => role === "object"), others = mean(role => role === "attribute" || role === "relation");
    const gap = objects === null || others === null ? "" : `<p class="gap"><b class="object">Objects</b> ${points(objects)},
      <b class="attribute">attributes</b> and <b class="relation">relations</b> ${points(others)} on average</p>`;
    return `<table class="words"><caption>${title}</caption><tbody>${lines.join("")}</tbody></table>${gap}`;
  }

  globalThis.caeLive = {
    load, loadScript, readTower, tokenize, optionsHtml, lostHtml, barsHtml, ROLE_COLORS, parse, swaps, encodeImage, encodeText, encodeTexts, explain, similarity,
    preferences, perturbationScores, attentionScores,
  };
})();
