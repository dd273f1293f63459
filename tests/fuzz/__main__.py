"""Run the fuzz campaign: `make fuzz CASES=2000 SEED=0`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fuzz import campaign
from fuzz.case import SUBJECTS
from fuzz.report import table


def main() -> int:
    """Return 1 where a fault was found."""
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("--subject", action="append", choices=SUBJECTS, help="all by default; may be given again")
    parser.add_argument("--cases", type=int, default=2_000, help="cases of each subject (2000)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first case; the next case has the next seed")
    parser.add_argument("--processes", type=int, default=2, help="children that work at once (2)")
    parser.add_argument("--keep", type=Path, default=Path("build/fuzz"), help="folder for faulty inputs (build/fuzz)")
    options = parser.parse_args()
    seeds = range(options.seed, options.seed + options.cases)
    tallies = []
    for name in options.subject or SUBJECTS:
        print(f"{name}: {options.cases} cases from seed {options.seed}", file=sys.stderr, flush=True)
        tallies.append(campaign.run(name, seeds, options.keep, options.processes))
    columns = ("subject", "cases", "right", "refused", "faults", "kinds of fault", "slowest, s", "largest growth, MB")
    print(
        table(
            columns,
            [
                (
                    each.subject,
                    each.cases,
                    each.right,
                    each.refused,
                    each.counts.total(),
                    len(each.faults),
                    f"{each.slowest_seconds:.1f}",
                    f"{each.largest_growth_bytes / 1e6:.0f}",
                )
                for each in tallies
            ],
        )
    )
    for each in tallies:
        for signature, verdict in each.faults.items():
            print(
                f"{each.subject}: {each.counts[signature]} × {signature}; first: seed {verdict.seed}, {verdict.label}"
            )
    return 1 if any(each.faults for each in tallies) else 0


if __name__ == "__main__":
    sys.exit(main())
