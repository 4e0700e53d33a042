#!/usr/bin/env python3
"""Counts a meson test log: prints 'PASSED FAILED NAMES-OF-FAILED'. A missing log counts as one failure. On stderr: what
took longest.

A skipped test has not shown anything, so it has failed, and so has a test that has left a part of itself out. What
may be left out, since not every machine has what it needs, or as a whole ./check had no time for it, is named on stderr.
"""
import json
import re
import sys

NO_SUITES, NO_TAP = "this machine's mirror has no newer suites", "this machine lets nobody make a tap"
NO_KVM = "/dev/kvm is not there, or is not what it needs"
NO_32_BITS = "this machine runs no 32-bit code"
# By a pattern of the whole name.
MAY_BE_SKIPPED = {r"boots newest": NO_SUITES, r"third parties ": NO_SUITES, r"network tap": NO_TAP,
                  r"[ :]engine$": NO_KVM, r"soft-diff, (opcodes of 32-bit code|compat)": NO_32_BITS}
# Of a test of many: (test, part).
PARTS = {
    ("tap", "test_"): NO_TAP,
    ("kvm_probe", "test_"): NO_KVM,
    ("control", "test_comes_first"): "this machine lets no process come first",
    ("pager_vcpu", "a_stall_is_withdrawn"): "under TSan no signal ends a wait",
}


def name_of(test):
    return test["name"].split(" / ")[-1].split(":")[-1].strip()


def left_out(test):
    """Parts that a test of cmocka's has left out."""
    said = (test.get("stdout") or "") + (test.get("stderr") or "")
    return sorted(set(re.findall(r"^\[  SKIPPED \] ([A-Za-z]\w*)", said, re.M)))


def why_left_out(name, part):
    return next((why for (test, of), why in PARTS.items() if name == test and part.startswith(of)), None)


passed, failed, took = 0, [], []
try:
    with open(sys.argv[-1]) as log:
        for line in log:
            test = json.loads(line)
            took.append((test.get("duration") or 0, name_of(test)))
            name, skipped = name_of(test), [why for of, why in MAY_BE_SKIPPED.items() if re.search(of, test["name"])]
            parts = {part: why_left_out(name, part) for part in left_out(test)}
            for part, why in parts.items():
                print(f"  SKIPPED {name}, {part}: {why or 'nothing excuses that'}", file=sys.stderr)
            if test["result"] in ("OK", "EXPECTEDFAIL") and None in parts.values():
                failed.append(f"{name} (left out {', '.join(p for p, why in parts.items() if not why)})")
            elif test["result"] in ("OK", "EXPECTEDFAIL"):
                passed += 1
            elif test["result"] == "SKIP" and "in_time: not begun" in (test.get("stdout") or ""):
                print(f"  LEFT OUT {name}", file=sys.stderr)
            elif test["result"] == "SKIP" and skipped:
                print(f"  SKIPPED {name}: {skipped[0]}", file=sys.stderr)
            else:
                failed.append(f"{name} ({test['result']})")
except (OSError, ValueError):
    failed.append("no-whole-test-log")
longest = ", ".join(f"{name} {seconds:.0f} s" for seconds, name in sorted(took, reverse=True)[:8] if seconds >= 20)
if longest:
    print(f"          longest: {longest}", file=sys.stderr)
print(passed, len(failed), ", ".join(failed))
