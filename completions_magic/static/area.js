// The live area: a pane a choice, growing. All text from a model enters the page as textContent and no other way.

function render({ model, el }) {
  el.classList.add("completions-area");
  const panes = document.createElement("div");
  panes.className = "completions-panes";
  const status = document.createElement("p");
  status.className = "completions-status";
  el.append(panes, status);

  const show = () => {
    const texts = model.get("texts");
    const tails = model.get("tails");
    while (panes.children.length < texts.length) {
      panes.append(document.createElement("pre"));
    }
    texts.forEach((text, at) => {
      panes.children[at].textContent = text + (tails[at] ?? "");
    });
    status.textContent = model.get("status");
  };
  model.on("change", show);
  show();
  return () => model.off("change", show);
}

export default { render };
