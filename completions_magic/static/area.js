// The live area: a pane a choice, growing side by side. Text from a model enters the page as text nodes and no
// other way. The kernel sends state only; the one thing sent back is the wish to stop.

const STOP_PATIENCE = 600; // ms until a wish becomes an interrupt where a kernel could not be told
const TOLD_PATIENCE = 5000; // ms where it was: an interrupt that comes late would end another cell
const FITS = 9; // more panes than this are one line each, and open on demand
const SPEAK_EVERY = 5000; // ms between two announcements to a screen reader

function element(tag, className, parent) {
  const node = document.createElement(tag);
  node.className = className;
  parent.append(node);
  return node;
}

// A key pressed on this element is not a command for the notebook. Notebook 7 asks the focused element itself.
function keepKeys(node) {
  node.dataset.lmSuppressShortcuts = "true";
}

// One choice: what is committed stays in the page as it is, only the tail's text node changes.
class Pane {
  constructor(parent, label, folded) {
    this.node = element("section", "completions-pane", parent);
    this.head = element("button", "completions-head", this.node);
    this.head.type = "button";
    this.label = element("span", "completions-label", this.head);
    this.label.textContent = label;
    this.glimpse = element("span", "completions-glimpse", this.head);
    this.reason = element("span", "completions-reason", this.head);
    this.text = element("pre", "completions-text", this.node);
    this.text.tabIndex = 0;
    keepKeys(this.text);
    keepKeys(this.head);
    this.text.setAttribute("role", "region");
    this.text.setAttribute("aria-label", label || "completion");
    this.tail = document.createTextNode("");
    this.text.append(this.tail);
    this.pages = 0;
    this.last = "";
    this.head.onclick = () => this.fold(!this.folded);
    this.fold(folded);
  }

  fold(folded) {
    this.folded = folded;
    this.node.classList.toggle("completions-folded", folded);
    this.head.setAttribute("aria-expanded", String(!folded));
  }

  show(pages, tail, reason) {
    const box = this.text;
    const atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 24;
    for (const page of pages) {
      this.tail.before(document.createTextNode(page));
      this.last = page;
    }
    this.pages += pages.length;
    if (this.tail.nodeValue !== tail) this.tail.nodeValue = tail;
    if (this.folded) this.glimpse.textContent = (this.last + tail).replace(/\s+/g, " ").slice(-160);
    else this.glimpse.textContent = "";
    this.reason.textContent = reason;
    if (atEnd) box.scrollTop = box.scrollHeight;
  }
}

function seconds(value) {
  return value < 10 ? `${value.toFixed(1)} s` : `${Math.round(value)} s`;
}

// A message on the control channel is heard while a cell runs, on every kernel; the widget's own only on some. Returns
// whether there is such a channel.
function tellKernel(kernel, comm) {
  if (!kernel?.sendControlMessage) return false;
  kernel.sendControlMessage({
    header: {
      msg_id: crypto.randomUUID?.() ?? String(Math.random()).slice(2),
      msg_type: "comm_msg",
      username: kernel.username ?? "",
      session: kernel.clientId ?? "",
      date: new Date().toISOString(),
      version: "5.3",
    },
    parent_header: {},
    metadata: {},
    content: { comm_id: comm, data: { method: "custom", content: { stop: true } } },
    channel: "control",
    buffers: [],
  }, false, true);
  return true;
}

function render({ model, el }) {
  el.classList.add("completions-area");
  const bar = element("div", "completions-bar", el);
  const stop = element("button", "completions-stop", bar);
  stop.type = "button";
  stop.textContent = "Stop";
  keepKeys(stop);
  const progress = element("progress", "completions-progress", bar);
  const meters = element("span", "completions-meters", bar);
  const grid = element("div", "completions-grid", el);
  const line = element("p", "completions-line", el);
  const spoken = element("p", "completions-spoken", el);
  spoken.setAttribute("aria-live", "polite");
  const panes = [];
  const opened = performance.now() - 1000 * (model.get("meters")?.elapsed ?? 0);
  let spokenAt = performance.now();
  let note = "";
  let frame = 0;

  const running = () => model.get("meters")?.state !== "ended";

  const speak = (text) => {
    spoken.textContent = text;
    spokenAt = performance.now();
  };

  const showMeters = () => {
    const now = model.get("meters") ?? {};
    // Rows that have ended come as a line; the tokens of a stream are counted here.
    const parts = now.text !== undefined ? [now.text] : [`${(now.tokens ?? 0).toLocaleString("en")} of ${(now.most ?? 0).toLocaleString("en")} tokens`];
    if (now.first !== null && now.first !== undefined) parts.push(`first after ${seconds(now.first)}`);
    if (now.rate) parts.push(`${Math.round(now.rate).toLocaleString("en")} tokens/s`);
    parts.push(seconds(running() ? (performance.now() - opened) / 1000 : now.elapsed ?? 0));
    meters.textContent = parts.join(" · ");
    progress.setAttribute("aria-label", now.text !== undefined ? "rows" : "tokens of max_tokens");
    progress.max = now.most || 1;
    const waiting = now.text !== undefined ? now.most === null : now.first === null || now.first === undefined;
    if (waiting) progress.removeAttribute("value");
    else progress.value = Math.min(now.done ?? now.tokens ?? 0, now.most || 1);
    line.textContent = note || now.line || "";
    if (!running()) {
      stop.hidden = true;
      speak("The completion has ended.");
    } else if (performance.now() - spokenAt > SPEAK_EVERY) {
      speak(parts[0]);
    }
  };

  const show = () => {
    frame = 0;
    const labels = model.get("labels") ?? [];
    while (panes.length < labels.length) {
      panes.push(new Pane(grid, labels[panes.length], labels.length > FITS));
    }
    el.classList.toggle("completions-single", labels.length === 1);
    panes.forEach((pane, at) => {
      const [count, tail, reason] = model.get(`pane_${at}`) ?? [0, "", ""];
      const pages = [];
      for (let page = pane.pages; page < count; page += 1) {
        pages.push(model.get(`page_${at}_${page}`) ?? "");
      }
      pane.show(pages, tail, reason);
    });
    showMeters();
  };

  const changed = () => {
    frame ||= requestAnimationFrame(show);
  };

  stop.onclick = () => {
    stop.disabled = true;
    stop.textContent = "Stopping …";
    model.send({ stop: true });
    const kernel = model.widget_manager?.kernel;
    let patience = STOP_PATIENCE;
    try {
      if (tellKernel(kernel, model.get("comm"))) patience = TOLD_PATIENCE;
    } catch {
      // A front end without that channel: the interrupt below is left.
    }
    setTimeout(() => {
      if (!running()) return;
      if (kernel?.interrupt) kernel.interrupt();
      else note = "To stop, press the notebook's own interrupt button (■).";
      showMeters();
    }, patience);
  };

  const gone = () => {
    note = "The kernel is gone; this is what had arrived.";
    stop.hidden = true;
    showMeters();
  };

  el.addEventListener("keydown", (event) => event.stopPropagation());
  const ticking = setInterval(() => running() && showMeters(), 200);
  model.on("change", changed);
  model.on("comm_live_update", gone);
  show();
  return () => {
    clearInterval(ticking);
    cancelAnimationFrame(frame);
    model.off("change", changed);
    model.off("comm_live_update", gone);
  };
}

export default { render };
