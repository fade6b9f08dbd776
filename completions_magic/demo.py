"""A few cells in a terminal: what the project is, in a minute and without a network."""

from __future__ import annotations

from IPython.core.interactiveshell import InteractiveShell

CELLS = (
    "%load_ext completions_magic",
    "%%complete -o tagline --max-tokens 50 --temperature 0.7 --seed 1\nWrite a tagline for an AI company:",
    "tagline.text",
    "%%complete -n 3 --max-tokens 24 --seed 7\nOnce upon a time",
    'animal = "goat"',
    (
        "%%complete -o sound --as text --stop \\n --max-tokens 8 --seed 2\n"
        "Animal: dog\nSound: woof\n\nAnimal: {{ animal }}\nSound:"
    ),
    "sound.strip()",
)


def run() -> int:
    """Run the cells as a person would type them; return 0 when every one worked."""
    shell = InteractiveShell.instance(colors="nocolor")
    for cell in CELLS:
        first, *rest = cell.split("\n")
        indent = " " * len(f"In [{shell.execution_count}")
        print(f"\nIn [{shell.execution_count}]: {first}")
        for line in rest:
            print(f"{indent[:-3]}...: {line}")
        if not shell.run_cell(cell, store_history=True).success:
            return 1
    return 0
