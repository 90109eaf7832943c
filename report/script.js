"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;
  const byId = (id) => document.getElementById(id);

  function make(tag, properties = {}, ...children) {
    const node = Object.assign(document.createElement(tag), properties);
    node.append(...children);
    return node;
  }

  // the theme follows the system until the user clicks the button
  const themeButton = byId("theme");
  const systemDark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : systemDark.matches);
  const nameTheme = () => { themeButton.textContent = isDark() ? "Light theme" : "Dark theme"; };
  try { if (["dark", "light"].includes(localStorage.getItem("theme"))) root.dataset.theme = localStorage.getItem("theme"); } catch { /* no storage */ }
  themeButton.hidden = false;
  themeButton.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try { localStorage.setItem("theme", root.dataset.theme); } catch { /* no storage */ }
    nameTheme();
  });
  systemDark.addEventListener("change", nameTheme);
  nameTheme();
  if (!data.cards.length) return;

  const signed = (value) => (value < 0 ? "−" : "+") + Math.abs(value).toFixed(2);
  const known = (value) => typeof value === "number";
  const source = (view) => `data:image/jpeg;base64,${view.data}`;
  const viewOf = (card, key) => card.views.find((view) => view.key === key) || card.views[card.views.length - 1];
  const allViews = [...new Map(data.cards.flatMap((card) => card.views).map((view) => [view.key, view.label]))];
  const state = { left: data.left, right: data.right, set: "", order: 0, shown: [], at: 0, single: "" };

  // a frame: two panes, the second clipped at --cut, and a handle between them; `cut` is in percent
  function frame() {
    const first = make("div", { className: "pane first" }), second = make("div", { className: "pane second" });
    const handle = make("div", { className: "handle", tabIndex: 0 });
    const tags = [make("span", { className: "tag first" }), make("span", { className: "tag last" })];
    const node = make("div", { className: "frame" }, first, second, ...tags, handle);
    const images = [make("img", { draggable: false, decoding: "async" }), make("img", { draggable: false, decoding: "async" })];
    const fits = images.map((picture) => make("div", { className: "fit" }, picture));
    first.append(fits[0]);
    second.append(fits[1]);
    handle.setAttribute("role", "slider");
    handle.setAttribute("aria-valuemin", 0);
    handle.setAttribute("aria-valuemax", 100);
    const self = { node, handle, fits, cut: 50 };
    self.move = (percent) => {
      self.cut = Math.min(100, Math.max(0, percent));
      node.style.setProperty("--cut", `${self.cut}%`);
      handle.setAttribute("aria-valuenow", Math.round(self.cut));
    };
    self.moveTo = (x) => {
      const box = node.getBoundingClientRect();
      self.move((100 * (x - box.left)) / box.width);
    };
    const set = (picture, href, of, at) => {
      picture.style.width = `${100 * of}%`;
      picture.style.left = `${-100 * at}%`;
      if (picture.getAttribute("src") !== href) picture.src = href;
    };
    // show two views, or one if they are equal; `sharp` is called when both are loaded in full size, if full-size files exist
    self.show = (card, left, right, sharp = null) => {
      const one = left.key === right.key, shown = [left, right];
      self.shown = shown;
      if (sharp && left.full && right.full) {
        const loading = shown.map((view) => Object.assign(new Image(), { src: view.full.href }).decode());
        Promise.all(loading).then(() => {
          if (self.shown !== shown) return;                       // other views were chosen in the meantime
          shown.forEach(({ full }, side) => set(images[side], full.href, full.of, full.at));
          sharp();
        }, () => { /* the files were moved or deleted: keep the thumbnails */ });
      }
      shown.forEach((view, side) => {
        const picture = images[side];
        set(picture, source(view), 1, 0);
        picture.alt = side && one ? "" : `${card.name}, ${view.label}`;
        tags[side].textContent = view.label;
      });
      tags[1].hidden = handle.hidden = one;
      node.classList.toggle("one", one);
      handle.setAttribute("aria-label", `${card.name}: border between ${left.label} and ${right.label}`);
    };
    handle.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -5, ArrowRight: 5, Home: -100, End: 100 }[event.key];
      if (!step) return;
      event.preventDefault();
      event.stopPropagation();
      self.move(self.cut + step);
    });
    self.move(50);
    return self;
  }

  // the numbers under a card
  function scores(card) {
    const several = card.scores.length > 1;
    const list = make("p", { className: several ? "score runs" : "score" });
    if (several) {
      const over = make("span", { textContent: `over ${card.scores[0].label}`, title: `over ${card.scores[0].label}` });
      list.append(make("span", { className: "run" }), make("span", { textContent: "dB" }), over, make("span", { textContent: "SSIM" }));
    }
    for (const score of card.scores) {
      const change = several ? score.over : score.gain;
      const label = several ? make("span", { className: "run", textContent: score.label, title: score.label }) : "";
      const gain = make("span", { title: several ? "dB over the first run" : "dB over the input" });
      if (known(change)) gain.append(several ? "" : "gain ", make("span", { className: change < 0 ? "loss" : "gain", textContent: signed(change) }));
      const psnr = make("span", {}, make("b", { textContent: known(score.psnr) ? score.psnr.toFixed(2) : "" }), known(score.psnr) && !several ? " dB" : "");
      list.append(label, psnr, gain, make("span", { textContent: known(score.ssim) ? `${several ? "" : "SSIM "}${score.ssim.toFixed(4)}` : "" }));
    }
    return list;
  }

  const several = new Set(data.cards.map((card) => card.set)).size > 1;
  const cards = data.cards.map((card) => {
    const picture = frame();
    const height = Math.min(card.height, card.width / 0.75), share = height / card.height;           // a tall image is narrower than its frame
    picture.node.style.aspectRatio = `${card.width} / ${height}`;
    for (const fit of picture.fits) Object.assign(fit.style, { width: `${100 * share}%`, left: `${50 - 50 * share}%` });
    const open = make("button", { className: "open", type: "button", textContent: card.name, title: card.name });
    const caption = make("div", { className: "caption" }, open);
    if (several) caption.append(make("span", { textContent: card.set, title: card.set }));
    const item = make("li", {}, picture.node, caption);
    if (card.scores.length) item.append(scores(card));
    item.dataset.name = card.name;
    const ratio = card.width / height;                            // the width of a card, so the frames of a row have one height
    item.style.setProperty("--ratio", ratio);
    const entry = { card, picture, item, open, ratio };
    open.addEventListener("click", () => enlarge(entry));
    let start = null, moved = false;
    picture.node.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      start = event.clientX;
      moved = false;
      event.preventDefault();
      picture.node.setPointerCapture(event.pointerId);
    });
    picture.node.addEventListener("pointermove", (event) => {
      if (start === null) return;
      moved = moved || Math.abs(event.clientX - start) > 4;
      if (moved) picture.moveTo(event.clientX);
    });
    picture.node.addEventListener("pointerup", () => {
      if (start !== null && !moved) enlarge(entry);
      start = null;
    });
    picture.node.addEventListener("pointercancel", () => { start = null; });
    picture.handle.addEventListener("keydown", (event) => { if (event.key === "Enter") enlarge(entry); });
    return entry;
  });

  // the tools above the cards
  const count = make("output");
  function choose(label, options, value, change) {
    const select = make("select", {}, ...options.map(([key, text]) => make("option", { value: key, textContent: text })));
    select.value = value;
    select.name = label.toLowerCase();
    select.addEventListener("change", () => { change(select.value); arrange(); });
    byId("tools").append(make("label", {}, label, select));
  }
  if (several) {
    const sets = [...new Set(data.cards.map((card) => card.set))].map((name) => [`=${name}`, name]);
    choose("Data set", [["", "All"], ...sets], "", (value) => { state.set = value; });
  }
  choose("Sort", data.orders.map((order, place) => [String(place), order.label]), "0", (value) => { state.order = Number(value); });
  choose("Left", allViews, state.left, (value) => { state.left = value; });
  choose("Right", allViews, state.right, (value) => { state.right = value; });
  byId("tools").append(count);
  byId("tools").addEventListener("submit", (event) => event.preventDefault());

  function arrange() {
    const { key, up } = data.orders[state.order];
    const byName = (a, b) => a.card.set.localeCompare(b.card.set) || a.card.name.localeCompare(b.card.name, undefined, { numeric: true });
    const byValue = (a, b) => {
      const [one, other] = [a, b].map((entry) => entry.card.values[key]);
      if (known(one) !== known(other)) return known(one) ? -1 : 1;        // images without numbers come last
      return (known(one) && (up ? one - other : other - one)) || byName(a, b);
    };
    state.shown = cards.filter((entry) => !state.set || `=${entry.card.set}` === state.set).sort(key ? byValue : byName);
    for (const entry of state.shown) entry.picture.show(entry.card, viewOf(entry.card, state.left), viewOf(entry.card, state.right));
    const mean = state.shown.reduce((sum, entry) => sum + entry.ratio, 0) / state.shown.length;
    byId("cards").style.setProperty("--row", `${18 / mean}rem`);   // the least height of a row: a card of the mean ratio is 18rem wide
    byId("cards").replaceChildren(...state.shown.map((entry) => entry.item));
    count.textContent = state.shown.length === 1 ? "1 image" : `${state.shown.length} images`;
  }

  // the large view
  const viewer = byId("viewer"), stage = byId("stage"), large = frame();
  const view = { zoom: 1, x: 0, y: 0 };
  stage.append(large.node);

  function place() {
    const { card } = state.shown[state.at];
    const scale = Math.min(stage.clientWidth / card.width, stage.clientHeight / card.height);
    const size = [card.width * scale, card.height * scale], most = [stage.clientWidth, stage.clientHeight];
    const gap = size.map((length, side) => (most[side] - length) / 2);
    const held = (at, side) => {           // a large image covers the stage; a small one is centred
      const length = size[side] * view.zoom;
      return length <= most[side] ? (most[side] - length) / 2 : Math.min(0, Math.max(most[side] - length, at));
    };
    view.x = held(view.x, 0);
    view.y = held(view.y, 1);
    for (const fit of large.fits) {
      Object.assign(fit.style, { width: `${size[0]}px`, height: `${size[1]}px`, inset: "0 auto auto 0", transformOrigin: "0 0",
        transform: `translate(${view.x}px, ${view.y}px) scale(${view.zoom})` });
    }
    large.node.style.setProperty("--side", `${Math.max(0, view.zoom > 1 ? view.x : gap[0])}px`);
    large.node.style.setProperty("--foot", `${Math.max(0, view.zoom > 1 ? view.y : gap[1])}px`);
    large.node.classList.toggle("zoomed", view.zoom > 1);
    large.node.classList.toggle("coarse", view.zoom >= 4);
    byId("zoom").textContent = view.zoom === 1 ? "fit" : `${view.zoom.toFixed(1)}×`;
  }

  function zoomBy(factor, x = stage.clientWidth / 2, y = stage.clientHeight / 2) {
    const zoom = Math.min(16, Math.max(1, view.zoom * factor)), change = zoom / view.zoom;
    view.x = x - (x - view.x) * change;
    view.y = y - (y - view.y) * change;
    view.zoom = zoom;
    place();
  }

  function fill() {
    const { card } = state.shown[state.at];
    byId("viewer-name").textContent = card.name;
    byId("viewer-where").textContent = `${card.set ? `${card.set}, ` : ""}${card.width} × ${card.height}, ${state.at + 1} of ${state.shown.length}`;
    const single = card.views.find((each) => each.key === state.single);
    const left = viewOf(card, single ? single.key : state.left), right = viewOf(card, single ? single.key : state.right);
    const button = (key, text, digit) => {
      const each = make("button", { type: "button", textContent: text, title: digit ? `${text} (${digit})` : "Slider (S)" });
      each.setAttribute("aria-pressed", key === (single ? single.key : ""));
      each.addEventListener("click", () => choosing(key));
      return each;
    };
    byId("viewer-show").replaceChildren(button("", "Slider", 0), ...card.views.map((each, number) => button(each.key, each.label, number + 1)));
    byId("viewer-last").textContent = card.views.length;
    byId("viewer-scores").replaceChildren(...card.scores.map((score) => {
      const line = make("span", {}, card.scores.length > 1 ? `${score.label} ` : "");
      if (known(score.psnr)) line.append(make("b", { textContent: `${score.psnr.toFixed(2)} dB` }));
      if (known(score.input_psnr) && card.scores.length === 1) line.append(`, input ${score.input_psnr.toFixed(2)} dB (${signed(score.gain)})`);
      if (known(score.over)) line.append(` (${signed(score.over)})`);
      if (known(score.ssim)) line.append(card.scores.length > 1 ? `, SSIM ${score.ssim.toFixed(4)}` : `; SSIM ${score.ssim.toFixed(4)}`);
      if (known(score.input_ssim) && card.scores.length === 1) line.append(`, input ${score.input_ssim.toFixed(4)}`);
      return line;
    }));
    const whole = [right, left, ...card.views].find((each) => each.full);
    byId("viewer-full").hidden = !whole;
    if (whole) byId("viewer-full").href = whole.full.href;
    byId("viewer-small").hidden = false;
    large.show(card, left, right, () => { byId("viewer-small").hidden = true; });
  }

  function choosing(key) {
    state.single = key;
    const focused = [...byId("viewer-show").children].indexOf(document.activeElement);
    fill();
    if (focused >= 0) byId("viewer-show").children[focused].focus();
  }

  function enlarge(entry) {
    state.at = state.shown.indexOf(entry);
    state.single = "";
    large.move(entry.picture.cut);
    viewer.showModal();
    viewer.focus();
    root.style.overflow = "hidden";
    Object.assign(view, { zoom: 1, x: 0, y: 0 });
    fill();
    place();
  }

  function step(by) {
    state.at = (state.at + by + state.shown.length) % state.shown.length;
    Object.assign(view, { zoom: 1, x: 0, y: 0 });
    fill();
    place();
  }

  viewer.tabIndex = -1;
  viewer.addEventListener("close", () => {
    root.style.overflow = "";
    state.shown[state.at].open.focus();
    state.shown[state.at].item.scrollIntoView({ block: "nearest" });
  });
  viewer.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const digit = Number(event.key), views = state.shown[state.at].card.views;
    if (event.key === "ArrowLeft") step(-1);
    else if (event.key === "ArrowRight") step(1);
    else if (event.key === "+" || event.key === "=") zoomBy(1.5);
    else if (event.key === "-") zoomBy(1 / 1.5);
    else if (event.key === "0") zoomBy(1 / view.zoom);
    else if (event.key === "s" || event.key === "S") choosing("");
    else if (digit >= 1 && digit <= views.length) choosing(views[digit - 1].key);
    else return;
    event.preventDefault();
  });
  byId("viewer-close").addEventListener("click", () => viewer.close());
  byId("zoom-in").addEventListener("click", () => zoomBy(1.5));
  byId("zoom-out").addEventListener("click", () => zoomBy(1 / 1.5));
  byId("previous").addEventListener("click", () => step(-1));
  byId("next").addEventListener("click", () => step(1));
  addEventListener("resize", () => { if (viewer.open) place(); });

  // pointers on the stage: one pointer drags the slider or, when zoomed, the image; two pointers zoom
  const pointers = new Map();
  let sliding = false;
  const within = (event) => {
    const box = stage.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  const spread = () => {
    const [a, b] = [...pointers.values()];
    return { distance: Math.hypot(a[0] - b[0], a[1] - b[1]), x: (a[0] + b[0]) / 2, y: (a[1] + b[1]) / 2 };
  };
  stage.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoomBy(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.002)), ...within(event));
  }, { passive: false });
  stage.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    event.preventDefault();
    viewer.focus();
    stage.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, within(event));
    sliding = pointers.size === 1 && !large.handle.hidden && (event.target === large.handle || view.zoom === 1);
    if (sliding) large.moveTo(event.clientX);
  });
  stage.addEventListener("pointermove", (event) => {
    const before = pointers.get(event.pointerId), now = within(event);
    if (!before) return;
    if (pointers.size === 2) {
      const old = spread();
      pointers.set(event.pointerId, now);
      const fresh = spread();
      view.x += fresh.x - old.x;
      view.y += fresh.y - old.y;
      if (old.distance > 0) zoomBy(fresh.distance / old.distance, fresh.x, fresh.y);
    } else {
      pointers.set(event.pointerId, now);
      if (sliding) large.moveTo(event.clientX);
      else { view.x += now[0] - before[0]; view.y += now[1] - before[1]; place(); }
    }
  });
  for (const name of ["pointerup", "pointercancel"]) stage.addEventListener(name, (event) => pointers.delete(event.pointerId));

  arrange();
})();
