"""Print what a kernel holds while thousands of requests go through it, and whether it grows."""

import argparse
import sys
import tempfile
from pathlib import Path

from .soak import HEAD, SAMPLES, grows, growth, judged, soak

ABOUT = """{requests:,} requests through one kernel, one in twenty a fault of `make faults`; {samples} looks at the kernel.
Failed: cells that ended with an error. Again: interrupts that had to be pressed again. Memory: the resident set.
Before each look IPython lets go what it keeps of every cell for ever: In, Out, the outputs of its history;
and memory that is free goes back to the system, of which the kernel has it directly, without Python's allocator.
IPython alone, in cells that ask nothing, keeps 0.6 MB more after every thousand.
"""


def main() -> int:
    """Soak; return 1 where something grows."""
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument("requests", nargs="?", type=int, default=20_000)
    requests = parser.parse_args().requests
    print(ABOUT.format(requests=requests, samples=SAMPLES))
    print(HEAD, flush=True)
    samples = []
    with tempfile.TemporaryDirectory() as folder:
        for sample in soak(Path(folder), requests):
            samples.append(sample)
            print(sample.row(), flush=True)
    print("\nThe median of the last quarter beside that of the second; the first warms the kernel up.")
    for name, grown in growth(samples).items():
        bound = judged(samples).get(name)
        print(f"{name:<12} {grown:+10,.1f}   {'not judged in a short run' if bound is None else f'at most {bound:+,}'}")
    bad = grows(samples)
    print(f"\n{'it grows: ' + ', '.join(bad) if bad else 'nothing grows'}")
    return len(bad) > 0


if __name__ == "__main__":
    sys.exit(main())
