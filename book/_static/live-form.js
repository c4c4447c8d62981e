/* The live model of the front page: a scene, its caption and the swapped one. What the page shows at
   first is in its text; models and further scenes are loaded when a reader asks for one. */
(() => {
  "use strict";
  const here = document.currentScript.src.replace(/[^/]*$/, "");
  const points = value => (100 * value).toFixed(1).replace("-", "−");

  const loadModels = () => new Promise((done, failed) => {
    const script = document.createElement("script");
    Object.assign(script, { src: `${here}live-model.js`, onload: done, onerror: failed });
    document.head.append(script);
  }).then(() => Promise.all(["index", "front"].map(caeLive.loadScript)));

  /* As `_answer_html` of book/extension/live.py. */
  function answerHtml(tower, { captions, feature }, title) {
    const { vocabulary } = caeLiveIndex, live = caeLive;
    const texts = captions.map(caption => live.tokenize(vocabulary, caption)), explained = live.explain(tower, texts[0]);
    const similarities = [explained.feature, live.encodeText(tower, texts[1].tokens).feature]
      .map(text => live.similarity(text, feature));
    const wins = similarities[0] > similarities[1], highest = Math.max(...similarities);
    const lines = ["true", "swapped"].map((name, i) => `<tr class="${(i === 0) === wins ? "wins" : ""}">
      <th scope="row"><small>${name}</small> ${captions[i]}</th><td class="number">${points(similarities[i])}</td>
      <td class="bar" aria-hidden="true"><span style="width:${100 * similarities[i] / highest}%"></span></td></tr>`);
    const scores = live.perturbationScores(explained, feature), { roles } = live.parse(vocabulary, captions[0]);
    return `<table class="sims"><caption>Similarity × 100</caption><tbody>${lines.join("")}</tbody></table>
      <p class="verdict ${wins ? "caption" : "swap"}">Prefers <b>${wins ? "the true caption" : "the swapped caption"}</b>
      by ${points(Math.abs(similarities[0] - similarities[1]))}</p>${live.barsHtml(texts[0].words.map(word => word.text), roles, scores,
      { least: Math.min(0, ...scores), most: Math.max(...scores), title })}`;
  }

  function start(root) {
    const form = root.querySelector("form"), answer = root.querySelector(".answer");
    const image = root.querySelector("img"), another = root.querySelector("button");
    const title = root.querySelector(".words caption").textContent;
    form.querySelector("fieldset").hidden = another.hidden = false;
    let loaded = null, number = 0;

    async function show() {
      const run = form.elements.model.value, scene = caeLiveFront.scenes[number];
      const isChosen = () => run === form.elements.model.value && scene === caeLiveFront.scenes[number];
      for (const input of form.elements.model)
        input.parentNode.querySelector(".tick").textContent = scene.prefersTrue[input.value] ? "✓" : "✗";
      const [, label, file] = caeLiveIndex.models.find(([name]) => name === run);
      answer.ariaBusy = "true";
      try {
        const tower = await caeLive.load(file);
        if (isChosen()) {
          Object.assign(image, { src: scene.image, alt: `The scene: ${scene.captions[0]}` });
          answer.innerHTML = answerHtml(tower, scene, title);
        }
      } catch {
        if (isChosen()) answer.innerHTML = caeLive.lostHtml(label);
      }
      answer.ariaBusy = "false";
    }

    answer.setAttribute("aria-live", "polite");
    form.addEventListener("submit", event => event.preventDefault());
    const answerAfter = step => {
      loaded = loaded ?? loadModels();
      loaded.then(() => {
        number = (number + step) % caeLiveFront.scenes.length;
        return show();
      }, () => {
        loaded = null;  // the next choice tries again
        answer.innerHTML = "<p>The models could not be loaded. Try again later.</p>";
      });
    };
    form.addEventListener("change", () => answerAfter(0));
    another.addEventListener("click", () => answerAfter(1));
  }

  document.addEventListener("DOMContentLoaded", () => {
    const root = document.getElementById("cae-live-form");
    if (root?.querySelector("form")) start(root);
  });
})();
