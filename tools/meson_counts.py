#!/usr/bin/env python3
"""Counts a meson test log: prints 'PASSED FAILED NAMES-OF-FAILED'. A missing log counts as one failure."""
import json
import sys

passed, failed = 0, []
try:
    with open(sys.argv[-1]) as log:
        for line in log:
            test = json.loads(line)
            if test["result"] in ("OK", "EXPECTEDFAIL"):
                passed += 1
            else:  # a skipped test has not shown anything: ./check has no skips
                failed.append(f"{test['name'].split(' / ')[-1].split(':')[-1].strip()} ({test['result']})")
except OSError:
    failed.append("no-test-log")
print(passed, len(failed), ", ".join(failed))
