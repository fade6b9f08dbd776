// The tuner: knobs on the left, the text on the right, below them the runs and what differs between those that are
// pinned. Text from a model enters the page as text nodes and no other way. The kernel sends state only; what goes
// back are wishes, each with the whole setting, so that none depends on one before it.

const SETTLED = 400; // ms after the last change when auto-run runs
const TOLD = 120; // ms after which the kernel hears of a change, to say what is wrong with it
const CLAMP = 280; // characters of a text that its card shows while closed
const LARGEST = 2 ** 31;
const MARKS = { same: "span", gone: "del", come: "ins" };

// The module is loaded once for every panel, and ids are the page's.
const HOME = `tuner-${Math.random().toString(36).slice(2)}`;
let serial = 0;

function newId() {
  serial += 1;
  return `${HOME}-${serial}`;
}

// No landmark: a notebook may hold many panels, and landmarks that are alike help nobody.
function group(className, parent, name) {
  const node = element("div", className, parent);
  node.setAttribute("role", "group");
  node.setAttribute("aria-label", name);
  return node;
}

function option(parent, value, text) {
  const node = element("option", "", parent, text);
  node.value = value;
  return node;
}

function plural(count, noun) {
  return `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
}

// What was set for a run; what the run before had otherwise is emphasised.
function putRows(parent, rows, emphasise) {
  for (const [name, text, differs] of rows) {
    const strong = emphasise && differs;
    const row = element(strong ? "strong" : "span", strong ? "tuner-differs" : "", parent, `${name} `);
    element("span", "tuner-value", row, text.replaceAll("\n", " ").slice(0, 80));
  }
  if (!rows.length) element("span", "", parent, "server's defaults");
}

// One parameter. Its text is what the line would say; undefined where it is not set, and then it is not sent.
class Knob {
  constructor(parent, face, onChange) {
    this.face = face;
    this.onChange = onChange;
    this.text = undefined;
    const id = newId();
    this.row = element("div", "tuner-knob", parent);
    this.row.dataset.kind = face.kind;
    this.row.title = face.help;
    const label = element("label", "tuner-label", this.row);
    label.htmlFor = id;
    face.name.split(/(?<=_)/).forEach((part, at) => label.append(...(at ? [document.createElement("wbr")] : []), part));
    const control = element("div", "tuner-control", this.row);
    if (face.slider) this.addSlider(control, face);
    this.addField(control, face, id);
    if (face.kind === "random") this.addDice(control);
    this.addReset();
    const help = element("span", "tuner-hidden", this.row, face.help);
    this.problem = element("p", "tuner-problem", this.row);
    help.id = `${id}-help`;
    this.problem.id = `${id}-problem`;
    this.field.setAttribute("aria-describedby", `${help.id} ${this.problem.id}`);
  }

  addSlider(parent, { name, slider: [low, high, step] }) {
    this.slider = element("input", "tuner-slider", parent);
    Object.assign(this.slider, { type: "range", min: low, max: high, step });
    this.slider.setAttribute("aria-label", name);
    this.slider.oninput = () => this.change(String(Number(this.slider.value)));
  }

  addField(parent, { kind, name }, id) {
    const tag = { flag: "select", texts: "textarea" }[kind] ?? "input";
    this.field = element(tag, "tuner-field", parent);
    this.field.id = id;
    this.field.dataset.knob = name;
    if (kind === "flag") for (const value of ["", "true", "false"]) option(this.field, value, value);
    if (kind === "texts") this.field.rows = 1;
    if (kind === "integer" || kind === "random") this.field.inputMode = "numeric";
    if (kind === "number") this.field.inputMode = "decimal";
    this.field.autocomplete = "off";
    this.field.spellcheck = false;
    this.field.oninput = () => this.change(this.field.value === "" ? undefined : this.field.value);
  }

  addDice(parent) {
    this.dice = button("tuner-small", parent, "new");
    this.dice.setAttribute("aria-label", `new ${this.face.name}`);
    this.dice.title = "Another one, by chance";
    this.dice.onclick = () => this.change(String(Math.floor(Math.random() * LARGEST)));
  }

  addReset() {
    this.reset = button("tuner-reset", this.row, "×");
    this.reset.title = "Back to the server's default: not sent";
    this.reset.setAttribute("aria-label", `${this.face.name}: server's default`);
    this.reset.onclick = () => {
      this.change(undefined);
      (this.slider ?? this.field).focus();
    };
    this.unset = element("span", "tuner-unset", this.row, "default");
  }

  change(text) {
    this.show(text);
    this.onChange();
  }

  show(text) {
    this.text = text;
    const isSet = text !== undefined;
    this.row.classList.toggle("tuner-set", isSet);
    this.reset.hidden = !isSet;
    this.unset.hidden = isSet;
    if (this.field.value !== (text ?? "")) this.field.value = text ?? "";
    if (this.face.kind === "texts") this.field.rows = Math.min(4, Math.max(1, (text ?? "").split("\n").length));
    if (!this.slider) return;
    const number = Number(isSet ? text : this.usual());
    this.slider.value = Number.isFinite(number) ? number : this.slider.min;
    this.slider.setAttribute("aria-valuetext", isSet ? text : `server's default, ${this.usual()}`);
  }

  usual() {
    return this.inherited ?? this.face.default;
  }

  // `inherited` is what is sent although the knob is not set: from the profile, the settings, or a hole in the prompt.
  showRest(inherited, problem) {
    const sent = inherited !== undefined && this.face.name !== "stream";
    if (this.inherited !== inherited) {
      this.inherited = inherited;
      this.show(this.text);
    }
    if (this.face.kind === "flag") this.field.options[0].textContent = `default (${this.face.default})`;
    else this.field.placeholder = this.usual();
    this.unset.textContent = sent ? "profile" : "default";
    this.unset.title = sent
      ? `Not set here: ${inherited} is sent, from the profile, the settings or the prompt`
      : "The server's default: not sent";
    this.problem.textContent = problem ?? "";
    this.field.setAttribute("aria-invalid", String(Boolean(problem)));
  }
}

// A text that grows, in pages; it is read from the model, and only what is new is put into the page.
class Pane {
  constructor(parent) {
    this.box = element("div", "tuner-pane", parent);
    this.label = element("p", "tuner-about", this.box);
    this.pre = element("pre", "tuner-text", this.box);
    this.node = this.pre.appendChild(document.createTextNode(""));
  }

  show(text, label) {
    this.label.textContent = label;
    this.label.hidden = !label;
    const old = this.node.data;
    if (text === old) return;
    if (text.startsWith(old)) this.node.appendData(text.slice(old.length));
    else this.node.data = text;
  }
}

// One run: what was set, its text, and what can be done with it.
class Card {
  constructor(parent, at, view) {
    this.at = at;
    this.node = element("li", "tuner-card");
    parent.prepend(this.node);
    const head = element("div", "tuner-card-head", this.node);
    this.restore = button("tuner-restore", head, `Run ${at + 1}`);
    this.restore.title = "Put the knobs back to where they were for this run";
    this.pin = this.toggle(head, "Pin", "Compare this run with others that are pinned", () => view.pin(at));
    this.star = this.toggle(head, "Star", "", () => view.model.send({ star: at }));
    this.rows = element("p", "tuner-rows", this.node);
    this.text = element("p", "tuner-glimpse", this.node);
    const foot = element("div", "tuner-card-foot", this.node);
    this.meters = element("span", "tuner-about", foot);
    this.open = button("tuner-open", foot, "more");
    this.open.setAttribute("aria-label", `the whole text of run ${at + 1}`);
    this.open.setAttribute("aria-expanded", "false");
    this.restore.onclick = () => view.restore(at);
    this.node.onclick = ({ target }) => target.closest("button") || view.restore(at);
    this.open.onclick = () => {
      this.open.setAttribute("aria-expanded", String(this.open.getAttribute("aria-expanded") === "false"));
      this.showText();
    };
  }

  toggle(parent, word, title, act) {
    const node = button("tuner-toggle", parent, word);
    node.setAttribute("aria-label", `${word} run ${this.at + 1}`);
    node.title = title;
    node.onclick = act;
    return node;
  }

  show(model, view) {
    const run = model.get(`run_${this.at}`);
    this.node.hidden = run.state === "gone";
    if (this.node.hidden) return;
    if (!this.rows.hasChildNodes()) putRows(this.rows, model.get(`card_${this.at}`), true);
    const ended = run.state === "running" ? "running" : view.reason(this.at);
    this.meters.textContent = [plural(run.tokens, "token"), `${run.seconds.toFixed(1)} s`, ended].join(" · ");
    const shown = model.get("shown") === this.at;
    this.node.classList.toggle("tuner-shown", shown);
    if (shown) this.restore.setAttribute("aria-current", "true");
    else this.restore.removeAttribute("aria-current");
    const out = model.get("out");
    this.star.title = out ? `Bind this run to ${out}` : "Keep this run as what the notebook saves";
    this.star.setAttribute("aria-pressed", String(model.get("bound") === this.at));
    this.pin.setAttribute("aria-pressed", String(model.get("pins").includes(this.at)));
    this.star.disabled = this.pin.disabled = run.state === "running" || view.lost;
    if (this.ended) return;
    this.ended = run.state !== "running";
    this.whole = view.text(this.at);
    this.showText();
  }

  showText() {
    const text = this.whole.trim();
    const whole = this.open.getAttribute("aria-expanded") === "true";
    this.open.hidden = text.length <= CLAMP && text.split("\n").length <= 3;
    this.open.textContent = whole ? "less" : "more";
    this.text.classList.toggle("tuner-whole", whole);
    const glimpse = whole ? text : text.slice(0, CLAMP);
    if (this.text.textContent !== glimpse) this.text.textContent = glimpse;
  }

}

class Panel {
  constructor(model, el) {
    this.model = model;
    this.id = `${Date.now()}-${Math.random()}`;
    this.edition = -1;
    this.cards = [];
    this.panes = [];
    this.pageTexts = new Map();
    this.ticket = 0;
    this.note = "";
    el.classList.add("completions-tuner");
    this.el = el;
    const main = element("div", "tuner-main", el);
    this.addKnobs(group("tuner-knobs", main, "knobs"));
    this.addText(element("div", "tuner-right", main));
    this.addRuns(el);
    this.listen(el);
  }

  addKnobs(box) {
    this.profile = this.menu(box, "profile");
    this.modelMenu = this.menu(box, "model");
    this.profile.onchange = () => {
      this.modelMenu.value = "";
      this.changed();
    };
    this.modelMenu.onchange = () => this.changed();
    for (const name of ["focus", "pointerenter"]) this.modelMenu.addEventListener(name, () => this.askModels());
    const faces = this.model.get("faces");
    const add = (parent) => (face) => new Knob(parent, face, () => this.changed());
    this.knobs = faces.filter((face) => !face.rare).map(add(box));
    const rare = faces.filter((face) => face.rare);
    this.more = element("details", "tuner-more", box);
    element("summary", "", this.more, "more");
    this.knobs.push(...rare.map(add(this.more)));
    this.extra = element("p", "tuner-about", box);
    element("p", "tuner-about", box, "A knob at default is not sent: the server's own default holds.");
  }

  menu(parent, name) {
    const row = element("div", "tuner-knob", parent);
    const label = element("label", "tuner-label", row, name);
    const field = element("select", "tuner-field tuner-wide", row);
    field.id = label.htmlFor = newId();
    return field;
  }

  addText(right) {
    const label = element("label", "tuner-heading", right, "Prompt");
    this.prompt = element("textarea", "tuner-prompt", right);
    this.prompt.id = label.htmlFor = newId();
    this.prompt.spellcheck = false;
    this.prompt.oninput = () => {
      this.fit();
      this.changed();
    };
    const bar = element("div", "tuner-bar", right);
    this.run = button("tuner-button tuner-main-button", bar, "Run");
    this.run.title = "Ctrl+Enter";
    this.stop = button("tuner-button tuner-stop", bar, "Stop");
    const auto = element("label", "tuner-auto", bar);
    this.auto = element("input", "", auto);
    this.auto.type = "checkbox";
    this.auto.setAttribute("role", "switch");
    auto.append("Auto-run");
    auto.title = "Run by itself after every change";
    this.line = element("p", "tuner-line", right);
    this.line.setAttribute("role", "status");
    this.result = group("tuner-result", right, "the text");
    this.result.tabIndex = 0;
    this.foot = element("p", "tuner-foot", right);
    this.addWriting(right);
  }

  addWriting(right) {
    const bar = element("div", "tuner-writing", right);
    this.write = button("tuner-button", bar, "Write to cell");
    this.write.title = "Put the line that asks exactly this into the cell, in place of --tune";
    this.code = element("p", "tuner-code", bar);
    this.copy = element("textarea", "tuner-prompt tuner-copy", right);
    this.copy.readOnly = true;
    this.copy.hidden = true;
    this.copy.setAttribute("aria-label", "the cell, to copy");
  }

  addRuns(el) {
    this.compare = group("tuner-compare", el, "pinned runs");
    this.history = group("tuner-history", el, "runs");
    element("p", "tuner-heading", this.history, "Runs");
    this.list = element("ul", "tuner-cards", this.history);
    this.list.tabIndex = 0;
    this.list.setAttribute("aria-label", "runs, the last first");
  }

  listen(el) {
    const { model } = this;
    this.run.onclick = () => this.runNow();
    this.stop.onclick = () => {
      this.rest();
      model.send({ stop: true });
    };
    this.write.onclick = () => {
      this.ticket += 1;
      model.send({ write: this.setting(), ticket: this.ticket });
    };
    this.auto.onchange = () => (this.auto.checked ? this.settle() : this.rest());
    el.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
      event.preventDefault();
      this.runNow();
    });
    this.heard = ({ written, ticket }) => {
      if (written !== undefined && ticket === this.ticket) this.put(written);
    };
    this.updated = () => {
      this.frame ||= requestAnimationFrame(() => this.show());
    };
    this.gone = () => {
      this.lost = true;
      this.show();
    };
    model.on("change", this.updated);
    model.on("msg:custom", this.heard);
    model.on("comm_live_update", this.gone);
  }

  setting() {
    const knobs = {};
    for (const { face, text } of this.knobs) if (text !== undefined) knobs[face.name] = text;
    const prompt = this.prompt.readOnly ? this.model.get("setting").prompt : this.prompt.value;
    return { knobs, prompt, model: this.modelMenu.value, profile: this.profile.value };
  }

  changed() {
    this.note = "";
    this.telling ||= setTimeout(() => this.tell(), TOLD);
    if (this.auto.checked) this.settle();
  }

  tell() {
    clearTimeout(this.telling);
    this.telling = 0;
    this.model.send({ edit: this.setting(), by: this.id });
  }

  settle() {
    clearTimeout(this.settling);
    this.settling = setTimeout(() => this.runNow(), SETTLED);
  }

  rest() {
    clearTimeout(this.settling);
  }

  runNow() {
    if (this.lost) return;
    this.rest();
    clearTimeout(this.telling);
    this.telling = 0;
    this.note = "";
    this.copy.hidden = true;
    this.model.send({ run: this.setting(), by: this.id });
  }

  restore(at) {
    this.rest();
    this.note = "";
    this.model.send({ restore: at });
  }

  pin(at) {
    // The kernel knows which are pinned: here it may not have come yet, when two are pinned in a row.
    this.model.send({ pin: at });
  }

  askModels() {
    const profile = this.profile.value;
    if (this.lost || this.asked === profile) return;
    this.asked = profile;
    this.model.send({ models: profile });
  }

  // Into the cell where the front end lets us, else the clipboard, else a field to copy from.
  async put(text) {
    const cells = this.model.widget_manager?.context?.model?.sharedModel?.cells;
    const cell = cells?.find?.(({ id }) => id === this.model.get("cell"));
    if (cell?.setSource && (cell.getSource?.() ?? "").trimStart().startsWith("%%complete")) {
      cell.setSource(text);
      this.say("Written to the cell: run it, and it asks exactly this.");
      return;
    }
    try {
      await navigator.clipboard.writeText(text);
      this.say("Copied: paste it over a cell.");
    } catch {
      this.copy.value = text;
      this.copy.hidden = false;
      this.copy.rows = Math.min(8, text.split("\n").length);
      this.copy.focus();
      this.copy.select();
      this.say("Copy this over a cell.");
    }
  }

  say(note) {
    this.note = note;
    this.updated();
  }

  // What is in the model

  text(run, choice) {
    const choices = this.model.get(`run_${run}`).choices;
    if (choice === undefined) {
      const texts = Array.from({ length: choices }, (_, at) => this.text(run, at));
      return texts.length < 2 ? texts.join("") : texts.map((text, at) => `[${at + 1}/${choices}] ${text}`).join("\n");
    }
    const [count, tail] = this.model.get(`pane_${run}_${choice}`) ?? [0, ""];
    const key = `${run}_${choice}`;
    const known = this.pageTexts.get(key) ?? { count: 0, text: "" };
    while (known.count < count) {
      known.text += this.model.get(`page_${key}_${known.count}`);
      known.count += 1;
    }
    this.pageTexts.set(key, known);
    return known.text + tail;
  }

  reason(run) {
    const { choices, state } = this.model.get(`run_${run}`);
    const reasons = Array.from({ length: choices }, (_, at) => this.model.get(`pane_${run}_${at}`)?.[2] ?? "");
    const different = [...new Set(reasons)];
    return different.length === 1 ? different[0] : different.length ? plural(choices, "choice") : { stopped: "stopped", error: "failed" }[state] ?? "";
  }

  show() {
    this.frame = 0;
    this.showSetting();
    const { model } = this;
    const inherited = model.get("inherited");
    const problems = model.get("problems");
    for (const knob of this.knobs) knob.showRest(inherited[knob.face.name], problems[knob.face.name]);
    this.showResult();
    while (this.cards.length < model.get("count")) this.cards.push(new Card(this.list, this.cards.length, this));
    for (const card of this.cards) card.show(model, this);
    this.history.hidden = !this.cards.length;
    this.showComparison();
    this.showLine();
  }

  showSetting() {
    const { model } = this;
    const setting = model.get("setting");
    this.showMenus(setting);
    if (setting.edition === this.edition) return;
    const first = this.edition < 0;
    this.edition = setting.edition;
    if (setting.by === this.id && !first) return;
    for (const knob of this.knobs) knob.show(setting.knobs[knob.face.name]);
    this.profile.value = setting.profile;
    this.modelMenu.value = setting.model;
    const given = model.get("given");
    this.prompt.value = given ?? setting.prompt;
    this.prompt.readOnly = given !== null;
    this.more.open ||= this.knobs.some(({ face, text }) => face.rare && text !== undefined);
    const extra = Object.entries(model.get("extra")).map(([name, value]) => `${name}=${value}`);
    this.extra.textContent = extra.length ? `Also sent: ${extra.join(", ")}` : "";
    this.extra.hidden = !extra.length;
    this.fit();
  }

  showMenus({ model: chosenModel, profile: chosenProfile }) {
    const [usualProfile, usualModel] = this.model.get("usual");
    const { profile, names } = this.model.get("models");
    const listed = profile === this.profile.value ? names : [];
    this.fill(this.profile, `default (${usualProfile})`, this.model.get("profiles"), chosenProfile);
    this.fill(this.modelMenu, usualModel ? `default (${usualModel})` : "default", listed, chosenModel);
  }

  fill(menu, usual, names, chosen) {
    const current = menu.options.length ? menu.value : chosen;
    const all = [...new Set([...names, chosen, current])].filter(Boolean);
    const shown = JSON.stringify([usual, all]);
    if (menu.dataset.shown === shown) return;
    menu.dataset.shown = shown;
    menu.replaceChildren();
    option(menu, "", usual);
    for (const name of all) option(menu, name, name);
    menu.value = current;
  }

  showResult() {
    const { model } = this;
    const at = model.get("shown");
    const run = at === null ? undefined : model.get(`run_${at}`);
    const choices = run?.choices ?? 0;
    const atEnd = this.result.scrollHeight - this.result.scrollTop - this.result.clientHeight < 24;
    while (this.panes.length < choices) this.panes.push(new Pane(this.result));
    while (this.panes.length > choices) this.panes.pop().box.remove();
    this.panes.forEach((pane, choice) => {
      const reason = model.get(`pane_${at}_${choice}`)?.[2];
      pane.show(this.text(at, choice), choices > 1 ? `${choice + 1}/${choices}${reason ? ` · ${reason}` : ""}` : "");
    });
    const running = run?.state === "running";
    this.result.classList.toggle("tuner-running", running);
    if (running && atEnd) this.result.scrollTop = this.result.scrollHeight;
    this.foot.textContent = run ? this.meters(at, run, running) : "";
  }

  meters(at, run, running) {
    const parts = [`Run ${at + 1}`, plural(run.tokens, "token"), `${run.seconds.toFixed(1)} s`];
    if (running && run.rate) parts.push(`${run.rate} a second`);
    parts.push(running ? "running" : this.reason(at));
    return parts.filter(Boolean).join(" · ");
  }

  showComparison() {
    const columns = this.model.get("columns");
    const pins = this.model.get("pins");
    const shown = JSON.stringify([pins, columns.length]);
    if (this.compared === shown) return;
    this.compared = shown;
    this.compare.replaceChildren();
    this.compare.hidden = !columns.length;
    if (!columns.length) return;
    element("p", "tuner-heading", this.compare, "Pinned");
    const grid = group("tuner-columns", this.compare, "side by side");
    grid.tabIndex = 0;
    columns.forEach((pieces, at) => {
      const column = element("div", "tuner-column", grid);
      const head = element("p", "tuner-rows", column);
      element("span", "tuner-name", head, `Run ${pins[at] + 1}`);
      putRows(head, this.model.get(`card_${pins[at]}`), false);
      const pre = element("pre", "tuner-text", column);
      for (const [mark, text] of pieces) element(MARKS[mark], "", pre, text);
    });
  }

  showLine() {
    const { model, lost } = this;
    const running = model.get("running") !== null;
    const at = model.get("shown");
    const line = lost ? "The kernel is gone; this is what had arrived." : this.note || model.get("line");
    const failed = lost || (!this.note && model.get("failed"));
    const state = running ? "Running" : at === null ? "" : `Run ${at + 1}: ${this.reason(at)}`;
    this.line.textContent = line || state;
    this.line.classList.toggle("tuner-failed", failed);
    this.line.classList.toggle("tuner-hidden", !line);
    this.showCode(model.get("code"));
    if (!running && document.activeElement === this.stop) this.run.focus();
    this.stop.disabled = !running || lost;
    this.run.disabled = this.write.disabled = this.auto.disabled = Boolean(lost);
  }

  // A line breaks between its words, not at their hyphens.
  showCode(code) {
    if (this.code.textContent === code) return;
    this.code.replaceChildren();
    code.split(" ").forEach((word, at) => {
      if (at) this.code.append(" ");
      element("span", "tuner-word", this.code, word);
    });
  }

  fit() {
    this.prompt.rows = Math.min(10, Math.max(2, this.prompt.value.split("\n").length));
  }

  remove() {
    cancelAnimationFrame(this.frame);
    this.rest();
    clearTimeout(this.telling);
    this.model.off("change", this.updated);
    this.model.off("msg:custom", this.heard);
    this.model.off("comm_live_update", this.gone);
  }
}

export default {
  initialize: inSlots((model, root) => {
    const panel = new Panel(model, root);
    panel.show();
    return () => panel.remove();
  }),
};
