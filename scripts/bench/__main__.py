"""scripts/bench.sh starts this: `python3 -m bench [--quick] [ROW…]`."""

import argparse
import datetime
import json
import signal
import sys

from . import machine, page
from .context import ROOT, Context
from .measure import Failed
from .rows import ROWS

DOCS = ROOT / "docs"
QUICK = ROOT / "target" / "bench"


def arguments():
    parser = argparse.ArgumentParser(prog="scripts/bench.sh")
    parser.add_argument("rows", nargs="*", metavar="ROW", help="only these rows")
    parser.add_argument("--quick", action="store_true", help="little data, one round; the page goes to target/bench")
    parser.add_argument("--page-only", action="store_true", help="write the page again from the last figures")
    parser.add_argument("--list", action="store_true", help="name the rows")
    chosen = parser.parse_args()
    unknown = [row for row in chosen.rows if row not in ROWS]
    if unknown:
        parser.error(f"no such row: {', '.join(unknown)}; there are {', '.join(ROWS)}")
    return chosen


def main():
    # So that what was started is stopped then, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    chosen = arguments()
    if chosen.list:
        for name, row in ROWS.items():
            print(f"{name:10} {row.__doc__.splitlines()[0]}")
        return 0
    directory = QUICK if chosen.quick else DOCS
    raw = directory / "benchmarks" / "results.json"
    raw.parent.mkdir(parents=True, exist_ok=True)
    results = json.loads(raw.read_text(encoding="utf-8")) if raw.exists() else {"rows": {}}
    results["is_quick"] = chosen.quick
    failed = [] if chosen.page_only else measure_rows(chosen, results, raw)
    page.write(results, directory)
    print(directory / "benchmarks.md")
    return 1 if failed else 0


def measure_rows(chosen, results, raw):
    """The results are written after each row: what breaks later does not lose them."""
    failed = []
    with Context(chosen.quick) as context:
        for name in chosen.rows or ROWS:
            context.say(name)
            try:
                row = ROWS[name](context)
            except Failed as error:
                print(f"{name}: {error}", file=sys.stderr)
                failed.append(name)
                continue
            row["measured"] = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
            row["machine"] = machine.describe(context)
            results["rows"][name] = row
            raw.write_text(json.dumps(results, separators=(",", ":")) + "\n", encoding="utf-8")
        context.say("done")
    return failed


if __name__ == "__main__":
    sys.exit(main())
