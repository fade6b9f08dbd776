"""What `%load_ext` and the first cell cost in a kernel that runs already."""

from __future__ import annotations

import sys
from statistics import median
from typing import Any

from kernel import PLAIN, Kernel
from script import Script
from server import Server
from table import Row, absolute, beside, megabytes, milli

TIMES = 2
HEAVY = ("httpx", "ipywidgets", "msgspec", "anywidget", "openai")
SPENT = {
    "cpu": "time.process_time() - _start",
    "modules": "len(sys.modules) - _modules",
    "heavy": f"[name for name in {HEAVY!r} if name in sys.modules and name not in _before]",
    "memory": "int(open('/proc/self/statm').read().split()[1]) * 4096 - _resident",
}
START = """
_before, _modules = set(sys.modules), len(sys.modules)
_resident = int(open('/proc/self/statm').read().split()[1]) * 4096
_start = time.process_time()
"""
PYTHONS = {"ours": PLAIN, "widgets": PLAIN, "http": PLAIN, "openai": sys.executable}
LOADS = {
    "widgets": "import anywidget",
    "http": "import httpx, httpcore, msgspec",
    "ours": "get_ipython().run_line_magic('load_ext', 'completions_magic')",
    "openai": "import openai",
}


def measure(server: Server) -> list[Row]:
    """Return CPU, modules and memory of loading, in fresh kernels, in turns."""
    costs: dict[str, list[dict[str, Any]]] = {name: [] for name in (*LOADS, "first", "bare")}
    for _ in range(TIMES):
        for name, code in LOADS.items():
            with Kernel(PYTHONS[name]) as kernel:
                kernel.run("pass")
                costs[name].append(kernel.run(START + code, **SPENT))
        where = f"--base-url {server.url(Script(chunks=20))} -m m"
        for name, cells in {
            "first": ["%load_ext completions_magic", f"%%complete {where}\nOnce upon a time"],
            "bare": ["1", "'Once upon a time'"],
        }.items():
            with Kernel(PLAIN) as kernel:
                kernel.run("pass")
                kernel.run(START)
                for cell in cells:
                    kernel.run(cell)
                costs[name].append(kernel.run("", **SPENT))
    cpu = {name: median(cost["cpu"] for cost in listed) for name, listed in costs.items()}
    memory = {name: median(cost["memory"] for cost in listed) for name, listed in costs.items()}
    ours = costs["ours"][-1]
    return [
        absolute("CPU of %load_ext", cpu["ours"], 3e-3, milli),
        absolute("modules of %load_ext", ours["modules"], 6, str),
        Row(
            "of httpx, ipywidgets, msgspec",
            ", ".join(ours["heavy"]) or "none",
            "",
            "",
            None,
            None,
            "none",
            ours["heavy"] == [],
        ),
        *beside("CPU of %load_ext", cpu["ours"], {"import openai": cpu["openai"]}, {}, milli),
        absolute("CPU of load + first cell with a live area, beyond two cells", cpu["first"] - cpu["bare"], 0.1, milli),
        Row("of which import anywidget, with ipywidgets", milli(cpu["widgets"])),
        Row("of which import httpx, httpcore and msgspec", milli(cpu["http"])),
        *beside("CPU of load + first cell", cpu["first"] - cpu["bare"], {"import openai": cpu["openai"]}, {}, milli),
        *beside("memory of %load_ext", max(memory["ours"], 1), {"import openai": memory["openai"]}, {}, megabytes),
        Row("memory of load + first cell", megabytes(memory["first"] - memory["bare"])),
    ]
