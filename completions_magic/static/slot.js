// Views in the place of static HTML. A notebook's output is an element with a class that one model alone has, around
// HTML that says all without a view. Wherever such an element comes into the page, a view takes the place of what is
// in it; when the front end renders the output anew, the same view moves into the new element, with its focus and
// where it was scrolled to. An observer is called before the page is painted, so that nothing flickers.

const RENDERED = 1000; // ms in which an output that was written anew is in the page

function element(tag, className, parent, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.append(text);
  parent?.append(node);
  return node;
}

function button(className, parent, text) {
  const node = element("button", className, parent, text);
  node.type = "button";
  return node;
}

// One view and the element that it is in. A view need not care for keys: those pressed in it are no commands for the
// notebook (Notebook 7 asks the focused element itself, JupyterLab hears what bubbles up), and its text is no formula.
class Mount {
  constructor(model, show) {
    this.root = document.createElement("div");
    this.root.className = "completions-slot mathjax_ignore tex2jax_ignore";
    this.scrolled = new Map();
    this.root.addEventListener("keydown", (event) => event.stopPropagation());
    this.root.addEventListener("scroll", ({ target }) => this.scrolled.set(target, target.scrollTop), true);
    this.root.addEventListener("focusin", ({ target }) => {
      target.dataset.lmSuppressShortcuts = "true";
      this.focused = target;
    });
    // Focus that went away by itself is given back; focus that the person took away is not.
    this.root.addEventListener("focusout", () => queueMicrotask(() => {
      if (this.root.isConnected && !this.root.contains(document.activeElement)) this.focused = undefined;
    }));
    this.root.addEventListener("pointerdown", (event) => this.press(event), true);
    this.end = show(model, this.root);
  }

  // Where the output is rendered anew between press and release a browser makes no click of them, and so it is made here.
  press({ target, button: which }) {
    if (which !== 0) return;
    const pressed = (this.pressed = { isMoved: false, isClicked: false });
    const clicked = () => (pressed.isClicked = true);
    const end = ({ type, target: over }) => {
      removeEventListener("pointerup", end, true);
      removeEventListener("pointercancel", end, true);
      setTimeout(() => {
        this.root.removeEventListener("click", clicked, true);
        const node = target.closest("button, label, summary, [role=option]") ?? target;
        const isLost = type === "pointerup" && pressed.isMoved && !pressed.isClicked;
        if (isLost && node.contains(over)) target.click();
      });
    };
    this.root.addEventListener("click", clicked, true);
    addEventListener("pointerup", end, true);
    addEventListener("pointercancel", end, true);
  }

  enter(slot) {
    this.leave();
    if (this.pressed) this.pressed.isMoved = true;
    slot.completionsMount?.leave();
    slot.completionsMount = this;
    this.slot = slot;
    this.before = [...slot.childNodes];
    slot.replaceChildren(this.root);
    for (const [box, top] of this.scrolled) box.scrollTop = top;
    if (document.activeElement?.contains(slot)) this.focused?.focus({ preventScroll: true });
  }

  leave() {
    if (!this.slot) return;
    this.slot.completionsMount = undefined;
    this.slot.replaceChildren(...this.before);
    this.slot = undefined;
  }
}

// A page hears that its output has changed only if the cell was run in it; a page that was loaded later writes by itself
// what the file is to hold. The way to the notebook is not documented: where it is another, nothing is written.
function write(model, bundle) {
  const start = `<div class="${model.get("slot")} `;
  for (const { outputs } of model.widget_manager?.context?.model?.cells ?? []) {
    for (let at = 0; at < (outputs?.length ?? 0); at += 1) {
      const output = outputs.get(at).toJSON();
      const html = [output.data?.["text/html"] ?? ""].flat().join("");
      if (html.startsWith(start) && html !== bundle["text/html"]) outputs.set(at, { ...output, data: bundle });
    }
  }
}

// Returns an `initialize` that keeps a view in every element with the class `slot` of the model's own notebook.
function inSlots(show) {
  return ({ model }) => {
    const slots = document.getElementsByClassName(model.get("slot"));
    const mounts = [];
    let lost = false;
    let entered = 0;
    let home;

    const isOurs = (slot) => {
      const notebook = slot.closest(".jp-NotebookPanel");
      if (notebook && !home?.isConnected) home = notebook;
      return !notebook || notebook === home;
    };

    const ask = () => model.send({ bundle: true });

    const changed = () => {
      const before = entered;
      setTimeout(() => entered === before && !lost && ask(), RENDERED);
    };

    const look = () => {
      if (lost || !slots.length) return;
      for (const slot of [...slots]) {
        const held = slot.completionsMount;
        if ((held && !held.lost) || !isOurs(slot)) continue;
        let mount = mounts.find((free) => !free.slot?.isConnected);
        if (!mount) mounts.push((mount = new Mount(model, show)));
        mount.enter(slot);
        entered += 1;
        if (entered === 1 && model.get("edition")) ask();
      }
    };

    // The kernel is gone: what is there stays, and gives way to the view of another kernel.
    const lose = () => {
      lost = true;
      for (const mount of mounts) mount.lost = true;
    };

    const observer = new MutationObserver(look);
    observer.observe(document.body, { childList: true, subtree: true });
    model.on("comm_live_update", lose);
    model.on("change:edition", changed);
    model.on("msg:custom", ({ bundle }) => bundle && write(model, bundle));
    look();
    return () => {
      observer.disconnect();
      lose();
      for (const mount of mounts) {
        mount.leave();
        mount.end?.();
      }
    };
  };
}

