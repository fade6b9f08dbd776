"""Print the table of faults with what came of each by every way in, and the official client beside them."""

import tempfile
import warnings
from collections import Counter
from pathlib import Path

from conftest import new_shell

from completions_magic import no_waits

from .fault import KEY
from .grounds import KEY_VARIABLE, open_grounds, variables
from .official import by_openai, openai_problems
from .table import TABLE
from .ways import WAYS, ask, problems

COLUMNS = (*WAYS, "openai")


def main() -> None:
    """Ask every case in every way; one line a case, then the counts."""
    passed: Counter[str] = Counter()
    reasons = []
    with (
        tempfile.TemporaryDirectory() as place,
        variables(**{KEY_VARIABLE: KEY}),
        open_grounds(Path(place)) as grounds,
        new_shell() as shell,
        no_waits(),
    ):
        for group, faults in TABLE.items():
            print(f"\n{group:<64}{''.join(f'{name:>10}' for name in COLUMNS)}", flush=True)
            for fault in faults:
                found = {way: list(problems(fault, ask(fault, way, grounds, Path(place), shell))) for way in WAYS}
                found["openai"] = list(openai_problems(fault, by_openai(fault, grounds.base_url(fault))))
                passed.update(way for way in COLUMNS if not found[way])
                marks = ("ok" if not found[way] else "FAILED" for way in COLUMNS)
                print(f"{fault.name[:63]:<64}{''.join(f'{mark:>10}' for mark in marks)}", flush=True)
                reasons += [f"{fault.name} · {way} · {said[0]}" for way, said in found.items() if said]
    count = sum(map(len, TABLE.values()))
    print("\nwhat failed, and how", *reasons, sep="\n")
    print(f"\n{f'{count} cases, passed':<64}{''.join(f'{passed[way]:>10}' for way in COLUMNS)}")


if __name__ == "__main__":
    warnings.simplefilter("ignore", ResourceWarning)  # of the official client
    main()
