// What temperature would do: bars that follow four sliders. Everything is reckoned here, from the log-probabilities that
// came with the completion; the kernel is asked only for places that have not been sent yet. Text from a model enters
// the page as text nodes and no other way.

const ROWS = 12;
const SCALES = [0.1, 0.2, 0.4, 0.6, 0.8, 1]; // what a full bar may stand for
const PAUSE = 600; // ms of rest after which the summary is spoken
const BEFORE = 60; // tokens of the text that are shown around the place
const AFTER = 12;
const AS_GIVEN = { temperature: 1, top_p: 1, top_k: null, min_p: 0 };
const HELP = {
  temperature: "0 always takes the likeliest token, 2 is wild",
  top_p: "only the likeliest tokens that hold this much probability",
  top_k: "only this many of the likeliest tokens",
  min_p: "only tokens with at least this part of the likeliest's probability",
};

function press(parent, text, onClick) {
  const node = button("distribution-button", parent, text);
  node.onclick = onClick;
  return node;
}

function chance([low, high]) {
  const [from, to] = [low, high].map((part) => (100 * part).toFixed(1));
  if (high === 0) return "out";
  if (from !== to) return `${from}–${to}%`;
  return to === "0.0" ? "<0.1%" : `${to}%`;
}

function range([low, high], digits) {
  const [from, to] = [low, high].map((value) => value.toFixed(digits));
  return from === to ? from : `${from}–${to}`;
}

function together(shares) {
  return [0, 1].map((end) => Math.min(1, total(shares.map((share) => share[end]))));
}

// The steps of a slider for whole numbers up to `most`: all of the first, then ever larger ones; after the last it is off.
function stopsUpTo(most) {
  const stops = [];
  for (let stop = 1; stop < most; stop += 10 ** Math.max(0, Math.floor(Math.log10(stop)) - 1)) stops.push(stop);
  return [...stops, most, null];
}

// A slider and a field for one parameter.
class Knob {
  constructor(parent, name, { high, step }, onChange) {
    this.name = name;
    this.high = high;
    const box = element("div", "distribution-knob", parent);
    const label = element("label", "", box, name);
    this.field = element("input", "distribution-field", box);
    this.field.type = "number";
    this.field.min = 0;
    this.field.step = step;
    this.field.max = high;
    this.field.setAttribute("aria-label", `${name}, as a number`);
    this.slider = element("input", "distribution-slider", box);
    this.slider.type = "range";
    this.slider.min = 0;
    this.slider.max = high;
    this.slider.step = step;
    this.slider.id = label.htmlFor = `distribution-${crypto.randomUUID?.() ?? Math.random()}`;
    box.title = HELP[name];
    this.slider.oninput = () => onChange(name, this.fromSlider(Number(this.slider.value)));
    this.field.oninput = () => this.read(onChange);
    this.field.onblur = () => this.show(this.value);
  }

  read(onChange) {
    const value = this.field.value === "" ? this.empty : Number(this.field.value);
    if (value === undefined || !Number.isFinite(value ?? 0)) return;
    onChange(this.name, this.sound(value));
  }

  fromSlider(value) {
    return value;
  }

  sound(value) {
    return Math.max(0, Math.min(this.high, value));
  }

  show(value) {
    this.value = value;
    this.slider.value = value;
    this.slider.style.setProperty("--part", `${(100 * value) / this.high}%`);
    if (document.activeElement !== this.field) this.field.value = Number(value.toFixed(4));
  }
}

class CountKnob extends Knob {
  constructor(parent, name, onChange) {
    super(parent, name, { high: 1, step: 1 }, onChange);
    this.field.min = 1;
    this.field.placeholder = "off";
    this.empty = null;
    this.limit(1);
  }

  limit(most) {
    this.stops = stopsUpTo(most);
    this.most = most;
    this.field.max = most;
    this.slider.max = this.stops.length - 1;
  }

  fromSlider(at) {
    return this.stops[at];
  }

  sound(value) {
    return value === null || value > this.most ? null : Math.max(1, Math.round(value));
  }

  show(value) {
    this.value = value;
    const at = value === null ? this.stops.length - 1 : this.stops.findLastIndex((stop) => stop !== null && stop <= value);
    this.slider.value = at;
    this.slider.style.setProperty("--part", `${(100 * at) / (this.stops.length - 1)}%`);
    this.slider.setAttribute("aria-valuetext", value === null ? "off" : `${value}`);
    if (document.activeElement !== this.field) this.field.value = value ?? "";
  }
}

// One bar: pale what the model gave, full what is left of it for certain, hatched what it may be besides.
class Row {
  constructor(parent, className) {
    this.node = element("li", `distribution-row ${className}`, parent);
    this.label = element("span", "distribution-label", this.node);
    const track = element("span", "distribution-track", this.node);
    track.setAttribute("aria-hidden", "true");
    this.given = element("span", "distribution-given", track);
    this.maybe = element("span", "distribution-maybe", track);
    this.sure = element("span", "distribution-sure", track);
    this.value = element("span", "distribution-value", this.node);
    this.was = element("span", "distribution-was", this.node);
  }

  show(share, given, scale) {
    const part = (value) => `${Math.min(100, (100 * value) / scale).toFixed(3)}%`;
    this.maybe.style.left = part(share[0]);
    this.given.style.width = part(given[1]);
    this.sure.style.width = part(share[0]);
    this.maybe.style.width = part(share[1] - share[0]);
    this.value.textContent = chance(share);
    this.was.textContent = chance(given);
    this.node.classList.toggle("distribution-out", share[1] === 0);
  }
}

class Bars {
  constructor(parent) {
    const head = element("div", "distribution-row distribution-heads", parent);
    head.setAttribute("aria-hidden", "true");
    element("span", "", head, "next token");
    this.axis = element("span", "distribution-axis", head);
    this.ticks = [0, 1, 2].map(() => element("span", "", this.axis));
    element("span", "distribution-value", head, "now");
    element("span", "distribution-was", head, "given");
    this.list = element("ul", "distribution-bars", parent);
    this.list.setAttribute("aria-label", "tokens by probability: now, and as the model gave it");
  }

  // The rows of a place: the likeliest tokens, the chosen one, and what is left in a row or two.
  open(place, outside) {
    const { tokens, chosen } = place;
    this.list.replaceChildren();
    this.shown = tokens.map((_, at) => at).filter((at) => at < ROWS || at === chosen);
    this.rest = tokens.map((_, at) => at).filter((at) => at >= ROWS && at !== chosen);
    this.rows = this.shown.map((at) => {
      const row = new Row(this.list, at === chosen ? "distribution-chosen" : "");
      const name = element("span", "distribution-token", row.label);
      putToken(name, tokens[at]);
      row.label.title = tokens[at];
      if (at === chosen) element("span", "distribution-tag", row.label, "chosen");
      return row;
    });
    this.more = this.rest.length ? new Row(this.list, "distribution-sum") : undefined;
    if (this.more) element("span", "distribution-rest", this.more.label, `${this.rest.length.toLocaleString("en")} more listed`);
    this.others = outside ? new Row(this.list, "distribution-sum") : undefined;
    if (this.others) element("span", "distribution-rest", this.others.label, "the other tokens");
  }

  show(found, given) {
    const parts = ({ shares, others }) => [
      ...this.shown.map((at) => shares[at]),
      ...(this.more ? [together(this.rest.map((at) => shares[at]))] : []),
      ...(this.others ? [others] : []),
    ];
    const [now, before] = [parts(found), parts(given)];
    const most = Math.max(...now.map(([, high]) => high), ...before.map(([, high]) => high));
    const scale = SCALES.find((step) => most <= step) ?? 1;
    [0, scale / 2, scale].forEach((tick, at) => {
      this.ticks[at].textContent = `${Number((100 * tick).toFixed(1))}%`;
    });
    [...this.rows, this.more, this.others].filter(Boolean).forEach((row, at) => row.show(now[at], before[at], scale));
  }
}

// The text around the place, and the way to its neighbours.
class Place {
  constructor(parent, count, onWalk) {
    this.node = element("div", "distribution-place", parent);
    this.text = element("p", "distribution-text", this.node);
    const walk = element("div", "distribution-walk", this.node);
    walk.setAttribute("role", "group");
    walk.setAttribute("aria-label", "place in the text");
    this.previous = press(walk, "‹", () => this.go(-1));
    this.where = element("span", "distribution-where", walk);
    this.next = press(walk, "›", () => this.go(1));
    this.previous.setAttribute("aria-label", "previous token");
    this.next.setAttribute("aria-label", "next token");
    this.count = count;
    this.onWalk = onWalk;
  }

  go(way) {
    const to = this.at + way;
    if (to >= 0 && to < this.count) this.onWalk(to);
  }

  show(before, tokens, at) {
    this.at = at;
    this.where.textContent = `token ${(at + 1).toLocaleString("en")} of ${this.count.toLocaleString("en")}`;
    this.previous.setAttribute("aria-disabled", at === 0);
    this.next.setAttribute("aria-disabled", at === this.count - 1);
    const start = Math.max(0, at - BEFORE);
    this.text.replaceChildren();
    element("span", "distribution-pale", this.text, `${start ? "…" : before.slice(-160)}`);
    for (const token of tokens.slice(start, at)) putText(this.text, token);
    putToken(element("mark", "distribution-here", this.text), tokens[at]);
    const rest = element("span", "distribution-pale", this.text);
    for (const token of tokens.slice(at + 1, at + 1 + AFTER)) putText(rest, token);
    if (at + 1 + AFTER < tokens.length) rest.append("…");
  }
}

// A token within a text: only what could not be seen has a sign.
function putText(parent, token) {
  if (token.startsWith("bytes:")) putToken(parent, token);
  else parent.append(token.replaceAll("\n", "↵\n"));
}

class View {
  constructor(model, el) {
    this.model = model;
    this.at = model.get("at");
    this.sampling = { ...AS_GIVEN, ...model.get("asked") };
    this.vocabulary = model.get("vocabulary");
    el.classList.add("completions-distribution");
    this.place = new Place(el, model.get("tokens").length, (at) => this.walk(at));
    const main = element("div", "distribution-main", el);
    const left = element("div", "distribution-left", main);
    this.bars = new Bars(left);
    this.nothing = element("p", "distribution-nothing", left, "No alternatives are known at this token.");
    this.sums(element("dl", "distribution-sums", left));
    this.controls(element("div", "distribution-controls", main));
    this.foot = element("p", "distribution-foot", el);
    this.said = element("p", "distribution-said", el);
    this.said.setAttribute("role", "status");
    this.changed = () => this.expected && this.open();
    this.gone = () => {
      this.lost = true;
      if (this.expected) this.open();
    };
    model.on("change", this.changed);
    model.on("comm_live_update", this.gone);
    this.open();
  }

  sums(box) {
    const sum = (name) => {
      const line = element("div", "", box);
      element("dt", "", line, name);
      return element("dd", "", line);
    };
    this.entropy = sum("entropy");
    this.left = sum("tokens left");
  }

  controls(box) {
    box.setAttribute("role", "group");
    box.setAttribute("aria-label", "sampling parameters");
    const change = (name, value) => this.set({ ...this.sampling, [name]: value });
    this.knobs = {
      temperature: new Knob(box, "temperature", { high: 2, step: 0.05 }, change),
      top_p: new Knob(box, "top_p", { high: 1, step: 0.01 }, change),
      top_k: new CountKnob(box, "top_k", change),
      min_p: new Knob(box, "min_p", { high: 1, step: 0.01 }, change),
    };
    const bar = element("div", "distribution-resets", box);
    this.given = press(bar, "As the model gave it", () => this.set(AS_GIVEN));
    const asked = this.model.get("asked");
    if (asked) press(bar, "As it was asked for", () => this.set({ ...AS_GIVEN, ...asked }));
    this.assumed = element("label", "distribution-assumed", box, "vocabulary up to");
    const field = element("input", "distribution-field", this.assumed);
    field.type = "number";
    field.min = 1;
    field.step = 1;
    field.value = this.vocabulary;
    field.oninput = () => {
      if (!(field.value >= 1)) return;
      this.vocabulary = Math.round(Number(field.value));
      this.open();
    };
  }

  walk(at) {
    this.moved = true;
    this.at = at;
    this.open();
  }

  set(sampling) {
    this.moved = true;
    this.sampling = sampling;
    this.show();
  }

  // Shows a place, or asks the kernel for it.
  open() {
    const { model } = this;
    const place = model.get(`place_${this.at}`);
    this.expected = !place;
    this.place.show(model.get("before"), model.get("tokens"), this.at);
    this.listed = undefined;
    if (!place && !this.lost) model.send({ look: this.at });
    const known = Boolean(place?.logprobs.length);
    this.nothing.hidden = known;
    this.bars.list.parentNode.classList.toggle("distribution-empty", !known);
    this.nothing.textContent = place
      ? "No alternatives are known at this token."
      : this.lost ? "The kernel is gone, and with it this token's alternatives." : "…";
    if (!known) return;
    this.listed = { ...place, vocabulary: Math.max(1, this.vocabulary) };
    const outside = outsideOf(this.listed);
    this.assumed.hidden = !outside;
    this.knobs.top_k.limit(place.likeliest);
    this.bars.open(place, outside > 0);
    this.asGiven = reweigh(this.listed);
    const least = place.tokens[place.likeliest - 1];
    this.limits = outside
      ? `How the other tokens share their ${chance([outside, outside])} is not known, only that none is likelier than “${spoken(least)}”: ` +
        "hatched is what may be, and with top_k it is exact."
      : `All ${place.tokens.length.toLocaleString("en")} tokens are listed: exact at every setting.`;
    this.foot.replaceChildren();
    for (const note of [this.limits, ...model.get("notes")]) element("span", "", this.foot, note).after(" ");
    this.show();
  }

  show() {
    for (const [name, knob] of Object.entries(this.knobs)) knob.show(this.sampling[name]);
    const changed = Object.keys(AS_GIVEN).some((name) => this.sampling[name] !== AS_GIVEN[name]);
    this.given.setAttribute("aria-disabled", !changed);
    if (!this.listed) return;
    const found = reweigh(this.listed, this.sampling);
    this.bars.show(found, this.asGiven);
    const [few, many] = found.left;
    const count = few.toLocaleString("en");
    this.entropy.textContent = `${range(found.entropy, 2)} bits`;
    this.left.textContent = few === many ? count : `${count} or more`;
    this.say(found);
  }

  // Spoken when the sliders rest, not at every step.
  say(found) {
    clearTimeout(this.saying);
    const words = () => {
      const likeliest = `${spoken(this.listed.tokens[0])} ${chance(found.shares[0])}`;
      const others = this.bars.others ? `, the other tokens ${chance(found.others)}` : "";
      return `${this.entropy.textContent} of entropy, ${this.left.textContent} tokens left, likeliest ${likeliest}${others}`;
    };
    this.saying = setTimeout(() => {
      if (this.moved) this.said.textContent = words();
    }, PAUSE);
  }

  remove() {
    clearTimeout(this.saying);
    this.model.off("change", this.changed);
    this.model.off("comm_live_update", this.gone);
  }
}

export default {
  initialize: inSlots((model, root) => {
    const view = new View(model, root);
    return () => view.remove();
  }),
};
