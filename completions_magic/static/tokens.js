// The token view: a heat map of one branch, the alternatives of one token, and the list of branches. Text from a
// model enters the page as text nodes and no other way. The kernel sends state only; what goes back are wishes.

const SURPRISE = 8; // the negative log-probability at which the tint is full: one in three thousand
const DWELL = 60; // ms that the pointer rests on a token before it counts, so that it can cross others
const GLIMPSE = 32; // tokens of a branch that its line in the list may show
const REASONS = { stop: "complete", length: "max_tokens", error: "failed" };

function field(className, parent, text) {
  const label = element("label", "tokens-field", parent);
  label.append(text);
  const input = element("input", className, label);
  input.autocomplete = "off";
  input.spellcheck = false;
  return input;
}

function percent(logprob) {
  if (logprob === null) return "";
  const value = 100 * Math.exp(logprob);
  if (value < 0.01) return "<0.01%";
  if (value > 99.95 && value < 100) return ">99.9%";
  return value < 1 ? `${value.toFixed(2)}%` : `${value.toFixed(1)}%`;
}

function number(value) {
  return value === null ? "very high" : value.toFixed(2).replace("-", "−");
}

// The keys that move along a list, for those that have no lines.
function step(key, at, count) {
  const to = { ArrowUp: at - 1, ArrowDown: at + 1, Home: 0, End: count - 1 }[key];
  return to === undefined ? undefined : Math.max(0, Math.min(count - 1, to));
}

// What the kernel knows, as nodes: a node never changes, so that only new ones are read.
class Tree {
  constructor() {
    this.nodes = [];
    this.most = 0;
  }

  // The most alternatives of a node are counted too, so that the panel can keep one height.
  read(model) {
    const size = model.get("page");
    const count = model.get("count");
    while (this.nodes.length < count) {
      const row = model.get(`page_${Math.floor(this.nodes.length / size)}`)?.[this.nodes.length % size];
      if (!row) return;
      const [parent, token, text, logprob, others, which] = row;
      const node = { id: this.nodes.length, parent: this.nodes[parent], token, text, logprob, others, which, children: [] };
      node.parent?.children.push(node);
      this.nodes.push(node);
      this.most = Math.max(this.most, others.length);
    }
  }

  path(node) {
    const nodes = [];
    for (let before = node; before?.parent; before = before.parent) nodes.push(before);
    nodes.reverse();
    return nodes.concat(this.after(node));
  }

  after(node, most = Infinity) {
    const nodes = [];
    for (let next = node?.children[0]; next && nodes.length < most; next = next.children[0]) nodes.push(next);
    return nodes;
  }
}

// The heat map. A token that stays keeps its element; one token at a time can be reached with Tab.
class HeatMap {
  constructor(parent, onSelect) {
    this.box = element("div", "tokens-text", parent);
    this.prompt = element("span", "tokens-prompt", this.box);
    this.list = element("span", "tokens-list", this.box);
    this.list.setAttribute("role", "listbox");
    this.list.setAttribute("aria-label", "tokens of this branch");
    this.onSelect = onSelect;
    this.nodes = [];
    this.spans = [];
    this.at = 0;
    this.pinned = false;
    this.list.addEventListener("mousemove", (event) => this.hover(event));
    this.list.addEventListener("mouseleave", () => this.dwell(undefined));
    this.box.addEventListener("click", (event) => this.click(event));
  }

  show(nodes) {
    const atEnd = this.box.scrollHeight - this.box.scrollTop - this.box.clientHeight < 24;
    let same = 0;
    while (same < nodes.length && nodes[same] === this.nodes[same]) same += 1;
    const grew = same === this.nodes.length && same > 0;
    for (const span of this.spans.splice(same)) span.remove();
    const fragment = document.createDocumentFragment();
    for (const node of nodes.slice(same)) this.spans.push(this.span(fragment, node, this.spans.length));
    this.list.append(fragment);
    this.nodes = nodes;
    if (grew && atEnd) this.box.scrollTop = this.box.scrollHeight;
  }

  span(parent, node, at) {
    const span = element("span", "tokens-token", parent);
    span.at = at;
    span.tabIndex = -1;
    span.setAttribute("role", "option");
    const surprise = node.logprob === null ? 0 : Math.min(1, -node.logprob / SURPRISE);
    span.style.setProperty("--surprise", `${Math.round(65 * surprise)}%`);
    if (!node.text) span.classList.add("tokens-part");
    if (!node.text.trim()) span.setAttribute("aria-label", spoken(node.token));
    node.text.split("\n").forEach((line, index) => {
      if (index) element("span", "tokens-return", span).after("\n");
      if (line) span.append(line);
    });
    return span;
  }

  select(at, focus) {
    const before = this.spans[this.at];
    before?.removeAttribute("aria-selected");
    if (before) before.tabIndex = -1;
    this.at = Math.max(0, Math.min(this.spans.length - 1, at));
    const span = this.spans[this.at];
    if (!span) return;
    const node = this.nodes[this.at];
    span.tabIndex = 0;
    span.setAttribute("aria-selected", "true");
    span.setAttribute("aria-label", `${spoken(node.token)} ${percent(node.logprob)}`);
    if (focus) span.focus();
    this.onSelect(node, this.at);
  }

  hover(event) {
    // The page may move under a pointer that does not.
    if (event.movementX || event.movementY) this.dwell(event.target.closest(".tokens-token")?.at);
  }

  dwell(at) {
    if (at === this.under) return;
    this.under = at;
    clearTimeout(this.dwelling);
    if (at !== undefined && !this.pinned) this.dwelling = setTimeout(() => this.select(at), DWELL);
  }

  click(event) {
    const at = event.target.closest(".tokens-token")?.at;
    this.pin(at !== undefined && !(this.pinned && at === this.at));
    if (at !== undefined) this.select(at, true);
  }

  pin(pinned) {
    this.pinned = pinned;
    this.box.classList.toggle("tokens-pinned", pinned);
  }

  key(key) {
    const last = this.spans.length - 1;
    const to = { ArrowLeft: this.at - 1, ArrowRight: this.at + 1, Home: 0, End: last }[key] ?? this.line(key);
    if (to === undefined) return false;
    this.select(to, true);
    return true;
  }

  // The token above or below: the nearest on the next line of the page.
  line(key) {
    const way = { ArrowUp: -1, ArrowDown: 1 }[key];
    if (!way) return undefined;
    const place = (at) => this.spans[at].getClientRects()[0];
    const from = place(this.at);
    let row;
    let best = this.at;
    for (let at = this.at + way; this.spans[at]; at += way) {
      const rect = place(at);
      if (!rect || Math.abs(rect.top - from.top) < from.height / 2) continue;
      row ??= rect.top;
      if (Math.abs(rect.top - row) > from.height / 2) break;
      const nearer = best === this.at || Math.abs(rect.left - from.left) <= Math.abs(place(best).left - from.left);
      if (nearer) best = at;
    }
    return best;
  }
}

// One token: what it is, and what else could have stood there, as bars.
class Panel {
  constructor(parent, onChoose) {
    this.node = element("div", "tokens-panel", parent);
    this.node.setAttribute("role", "group");
    this.node.setAttribute("aria-label", "the token and its alternatives");
    this.head = element("p", "tokens-head", this.node);
    const about = element("p", "tokens-about", this.node);
    this.score = element("span", "", about);
    this.place = element("span", "", about);
    this.bars = element("ul", "tokens-bars", this.node);
    this.onChoose = onChoose;
    this.shown = "";
  }

  show(node, at, count) {
    const taken = new Set(node.parent.children.map((child) => child.which));
    const shown = [node.id, ...taken, node.children.length > 0].join();
    this.score.textContent = node.logprob === null ? "" : `logprob ${number(node.logprob)}`;
    this.place.textContent = `${(at + 1).toLocaleString("en")} of ${count.toLocaleString("en")}`;
    if (shown === this.shown) return;
    this.shown = shown;
    this.head.replaceChildren();
    putToken(element("span", "tokens-label", this.head), node.token);
    element("span", "tokens-value", this.head).append(percent(node.logprob));
    const focused = this.buttons().indexOf(document.activeElement);
    this.bars.replaceChildren();
    node.others.forEach((other, which) => this.bar(node, other, which, taken.has(which)));
    if (node.others.length) this.rest(node);
    else element("li", "tokens-about", this.bars).append("The server gave no alternatives here.");
    this.buttons()[focused]?.focus();
  }

  buttons() {
    return [...this.bars.querySelectorAll("button")];
  }

  bar(node, [token, logprob, choosable], which, taken) {
    const chosen = which === node.which;
    const bar = button("tokens-bar", element("li", "", this.bars), "");
    bar.style.setProperty("--share", `${(100 * Math.exp(logprob)).toFixed(2)}%`);
    putToken(element("span", "tokens-label", bar), token);
    if (taken && !chosen) element("span", "tokens-tag", bar).append("branch");
    element("span", "tokens-value", bar).append(percent(logprob));
    if (chosen) bar.setAttribute("aria-current", "true");
    bar.disabled = !choosable && !chosen;
    bar.title = bar.disabled
      ? "No text can go on from here: the end of the text, or a part of a character"
      : chosen && node.children.length ? "This token" : taken && !chosen ? "Show this branch" : "Go on from this token";
    bar.onclick = () => this.onChoose(node, which);
  }

  rest(node) {
    const known = node.others.reduce((sum, [, logprob]) => sum + Math.exp(logprob), 0);
    const rest = Math.max(0, 1 - known);
    const bar = element("div", "tokens-bar tokens-rest", element("li", "", this.bars));
    bar.style.setProperty("--share", `${(100 * rest).toFixed(2)}%`);
    element("span", "tokens-label", bar).append("other tokens");
    element("span", "tokens-value", bar).append(percent(Math.log(rest)));
  }
}

// The branches, each below the one that it left.
class Branches {
  constructor(parent, onWalk) {
    this.list = element("ul", "tokens-branches", parent);
    this.list.setAttribute("aria-label", "branches");
    this.onWalk = onWalk;
    this.shown = "";
  }

  show(tree, branches, current, streaming) {
    const rows = branches.map(([id, depth, name, reason]) => {
      const head = tree.nodes[id];
      const glimpse = [head, ...tree.after(head, GLIMPSE)].map((node) => node.text).join("");
      return { head, depth, name, glimpse, end: id === streaming ? "streaming" : REASONS[reason] ?? reason };
    });
    const shown = JSON.stringify([current, rows.map(({ head, ...row }) => [head.id, row])]);
    if (shown === this.shown) return;
    this.shown = shown;
    const focused = this.list.contains(document.activeElement) ? document.activeElement.head : undefined;
    this.list.hidden = rows.length < 2;
    this.list.replaceChildren();
    for (const row of rows) this.row(row, row.head.id === current);
    if (focused) [...this.list.querySelectorAll("button")].find((row) => row.head === focused)?.focus();
  }

  row({ head, depth, name, glimpse, end }, current) {
    const item = element("li", "", this.list);
    item.style.setProperty("--depth", Math.min(depth, 12));
    const row = button("tokens-branch", item, "");
    row.head = head;
    if (current) row.setAttribute("aria-current", "true");
    if (depth) element("span", "tokens-fork", row).append("└");
    if (name) element("span", "tokens-name", row).append(name);
    const text = element("span", "tokens-glimpse", row);
    text.append(glimpse.trimStart().slice(0, 160).replace(/\s*\n\s*/g, " ↵ "));
    element("span", "tokens-end", row).append(end);
    row.onclick = () => this.onWalk(head);
  }
}

class View {
  constructor(model, el) {
    this.model = model;
    this.tree = new Tree();
    el.classList.add("completions-tokens");
    const main = element("div", "tokens-main", el);
    const left = element("div", "tokens-left", main);
    this.map = new HeatMap(left, (node, at) => this.panel.show(node, at, this.map.nodes.length));
    this.panel = new Panel(main, (node, which) => this.choose(node, which));
    this.branches = new Branches(left, (head) => this.walk(head));
    const bar = element("div", "tokens-actions", el);
    this.name = field("tokens-input", bar, "Branch name");
    this.variable = field("tokens-input", bar, "Variable");
    this.variable.placeholder = "answer";
    this.bind = button("tokens-button", bar, "Bind");
    this.stop = button("tokens-button tokens-stop", bar, "Stop");
    this.line = element("p", "tokens-line", el);
    this.line.setAttribute("role", "status");
    this.foot = element("p", "tokens-foot", el);
    this.legend = element("span", "tokens-legend", bar);
    this.legend.append("expected", element("span", "tokens-scale"), "surprising");
    this.listen(el);
  }

  listen(el) {
    const { model } = this;
    this.stop.onclick = () => model.send({ stop: true });
    this.bind.onclick = () => model.send({ bind: { name: this.variable.value.trim() } });
    this.name.onchange = () => model.send({ name: { node: model.get("current"), text: this.name.value } });
    el.addEventListener("keydown", (event) => {
      if (!event.ctrlKey && !event.metaKey && !event.altKey && this.key(event)) event.preventDefault();
    });
    this.changed = () => {
      this.frame ||= requestAnimationFrame(() => this.show());
    };
    this.gone = () => {
      this.lost = true;
      this.show();
    };
    model.on("change", this.changed);
    model.on("comm_live_update", this.gone);
  }

  // Text: arrows, Home, End; Enter goes to the alternatives. Lists: up and down; Escape goes back to the token.
  key({ key, target }) {
    if (target === this.variable && key === "Enter") {
      this.bind.click();
      return true;
    }
    if (target.tagName === "INPUT") return false;
    if (key === "Escape") {
      this.map.pin(false);
      this.map.select(this.map.at, true);
      return true;
    }
    if (target.matches(".tokens-token")) {
      if (key !== "Enter") return this.map.key(key);
      this.panel.buttons().find((bar) => !bar.disabled)?.focus();
      return true;
    }
    const list = target.closest(".tokens-bars, .tokens-branches");
    const rows = list ? [...list.querySelectorAll("button:enabled")] : [];
    const to = step(key, rows.indexOf(target), rows.length);
    rows[to]?.focus();
    return to !== undefined;
  }

  choose(node, which) {
    this.map.pin(false);
    if (which === node.which && node.children.length) return;
    this.refocus = true;
    this.model.send({ choose: { node: node.id, alternative: which } });
  }

  walk(head) {
    this.refocus = false;
    this.model.send({ walk: { node: head.id } });
  }

  show() {
    this.frame = 0;
    const { model, tree, map } = this;
    tree.read(model);
    const current = tree.nodes[model.get("current")];
    if (!current) return;
    const nodes = tree.path(current);
    const branches = model.get("branches");
    const streaming = model.get("streaming");
    const heads = new Map(branches.map((branch) => [branch[0], branch]));
    const head = nodes.slice(0, nodes.indexOf(current) + 1).findLast((node) => heads.has(node.id));
    map.prompt.textContent = model.get("prompt");
    this.panel.bars.style.setProperty("--rows", tree.most + 1);
    map.show(nodes);
    map.box.classList.toggle("tokens-streaming", head.id === streaming);
    if (current !== this.current) {
      map.pin(false);
      map.select(nodes.indexOf(current), this.refocus);
      this.refocus = false;
    } else {
      map.select(map.at);
    }
    this.current = current;
    this.branches.show(tree, branches, head.id, streaming);
    this.showRest(nodes, heads.get(head.id)[2], streaming !== null);
  }

  showRest(nodes, name, streaming) {
    const { model } = this;
    const [logprob, perplexity] = model.get("scores");
    const parts = [`${nodes.length.toLocaleString("en")} tokens`];
    if (logprob !== null) parts.push(`log-probability ${number(logprob)}`, `perplexity ${number(perplexity)}`);
    if (model.get("raw")) parts.push("log-probabilities before temperature");
    this.foot.textContent = parts.join(" · ");
    this.line.textContent = this.lost ? "The kernel is gone; this is what had arrived." : model.get("line");
    this.line.classList.toggle("tokens-failed", this.lost || model.get("failed"));
    if (!streaming && document.activeElement === this.stop) this.map.select(this.map.at, true);
    this.stop.hidden = this.lost || !streaming;
    this.legend.hidden = !this.stop.hidden;
    this.variable.parentNode.hidden = this.bind.hidden = !model.get("bindable");
    if (document.activeElement !== this.name) this.name.value = name;
  }

  remove() {
    cancelAnimationFrame(this.frame);
    clearTimeout(this.map.dwelling);
    this.model.off("change", this.changed);
    this.model.off("comm_live_update", this.gone);
  }
}

export default {
  initialize: inSlots((model, root) => {
    const view = new View(model, root);
    view.show();
    return () => view.remove();
  }),
};
