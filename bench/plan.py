"""How long `rayline plan` takes for all stacks, after import: the time that a person waits for an answer.

Method: one process, one warm-up, then REPEATS runs over all stacks; median and spread in seconds. Importing the Google
provider's SDK is reported beside it, because a fresh process pays it once.

    .venv/bin/python -m bench.plan
"""

import json
import statistics
import time

REPEATS = 10


def main() -> None:
    start = time.perf_counter()
    from rayline import offline, plan_view

    programs = [offline.record(name) for name in offline.stack_names()]  # the first run imports pulumi_gcp
    first = time.perf_counter() - start
    runs = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        for name in offline.stack_names():
            plan_view.program_json(offline.record(name))
        runs.append(time.perf_counter() - start)
    print(
        json.dumps(
            {
                "stacks": len(programs),
                "repeats": REPEATS,
                "import_and_first_run_s": round(first, 2),
                "all_stacks_median_s": round(statistics.median(runs), 3),
                "all_stacks_min_s": round(min(runs), 3),
                "all_stacks_max_s": round(max(runs), 3),
            }
        )
    )


if __name__ == "__main__":
    main()
