"""`python -m tests.chaos`: seeded faults, each in a run of the digits pipeline at a tiny budget; prints a table."""

import argparse
import signal
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from statistics import fmean

from tests.chaos.disk import enter_namespace
from tests.chaos.faults import FAULTS
from tests.chaos.processes import adopt_orphans
from tests.chaos.stand import DISK, Stand
from tests.chaos.trial import Unrecovered, WithoutEffect


def main() -> int:
    options = parser().parse_args()
    enter_namespace("tests.chaos", sys.argv[1:])
    adopt_orphans()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    lost: dict[str, list[float]] = defaultdict(list)
    failed: dict[str, int] = defaultdict(int)
    idle: dict[str, int] = defaultdict(int)
    folder = options.folder or Path(tempfile.mkdtemp(prefix="chorus-chaos-"))
    with Stand(folder) as stand:
        faults = options.only or list(FAULTS)
        if not stand.disk.small and DISK in faults:
            say(f"no tmpfs can be mounted here: no trials of a {DISK}")
            faults.remove(DISK)
        if not stand.template.exists():
            began = time.monotonic()
            stand.make_template()
            say(f"the undisturbed run took {time.monotonic() - began:.0f} s; {folder}")
        seeds = [options.seed] if options.seed is not None else range(options.first, options.first + options.n)
        for number, seed in enumerate(seeds):
            fault = faults[seed % len(faults)]
            began = time.monotonic()
            try:
                account, seconds = stand.carry_out(seed, fault)
                lost[fault].append(seconds)
                end = f"recovered, {seconds:.0f} s lost"
            except WithoutEffect as error:
                idle[fault] += 1
                account, end = str(error), "nothing was disturbed, so nothing is proven"
            except (Unrecovered, RuntimeError) as error:
                failed[fault] += 1
                account, end = str(error), f"NOT RECOVERED (make chaos SEED={seed} ONLY='{fault}')"
            say(f"{number + 1}/{len(seeds)}  seed {seed}  {fault} {account}: {end}, {time.monotonic() - began:.0f} s")
    print_table(faults, lost, failed, idle)
    return 1 if failed else 0


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    root.add_argument("-n", type=int, default=20, help="how many trials, the faults in turn (default: 20)")
    root.add_argument("--first", type=int, default=0, help="seed of the first trial, to go on from others (default: 0)")
    root.add_argument("--seed", type=int, help="only the trial of this seed")
    root.add_argument("--only", action="append", choices=list(FAULTS), help="only this fault; may be repeated")
    root.add_argument("--folder", type=Path, help="where to work; a template that is there already is used again")
    return root


def print_table(faults: list[str], lost: dict[str, list[float]], failed: dict[str, int], idle: dict[str, int]) -> None:
    """Print a row for each fault: trials that disturbed something, how many recovered, seconds lost on average and at
    most; and how many trials disturbed nothing.
    """
    say(f"\n{'fault':<20}{'trials':>8}{'recovered':>11}{'lost s':>9}{'at most':>9}{'no effect':>11}")
    for fault in faults:
        seconds = lost[fault]
        numbers = f"{fmean(seconds):>9.0f}{max(seconds):>9.0f}" if seconds else " " * 18
        say(f"{fault:<20}{len(seconds) + failed[fault]:>8}{len(seconds):>11}{numbers}{idle[fault]:>11}")
    say(f"{'all':<20}{sum(map(len, lost.values())) + sum(failed.values()):>8}{sum(map(len, lost.values())):>11}")


def say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
