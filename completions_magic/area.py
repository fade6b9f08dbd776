"""The live area's widget; imported only where a notebook shows one, since widgets take 45 ms to import."""

from __future__ import annotations

from pathlib import Path

import anywidget
import traitlets

STATIC = Path(__file__).parent / "static"


class Area(anywidget.AnyWidget):
    """A pane a choice: `texts` is what is committed, `tails` what has come since, `status` one line below."""

    _esm = (STATIC / "area.js").read_text("utf-8")
    _css = (STATIC / "area.css").read_text("utf-8")

    texts = traitlets.List(traitlets.Unicode()).tag(sync=True)
    tails = traitlets.List(traitlets.Unicode()).tag(sync=True)
    status = traitlets.Unicode().tag(sync=True)
