#!/usr/bin/env python3
"""Adds up what the test suites reported; the last line is 'N passed, N failed'.

    sum_reports.py REPORTS RUNS SUITE...

Each SUITE left REPORTS/SUITE.xml, in JUnit's format; each fuzzer left its exit
status in REPORTS/gptq-fuzz-SUBJECT.status and its log in RUNS/SUBJECT/log.
A suite that left no report, or an empty one, has failed.
"""
import glob
import os
import re
import sys
import xml.etree.ElementTree as ElementTree


def read_suite(path):
    """(passed, names of failed, names of skipped) of one report."""
    try:
        cases = list(ElementTree.parse(path).iter("testcase"))
    except (OSError, ElementTree.ParseError) as e:
        return 0, [f"no report: {e}"], []
    passed, failed, skipped = 0, [], []
    for case in cases:
        # pytest reports an error in a fixture beside the outcome of the test.
        outcomes = {child.tag for child in case}
        # ctest puts the name of a test in both places.
        name = "::".join(dict.fromkeys(filter(None, (case.get("classname"), case.get("name")))))
        if outcomes & {"failure", "error"} or case.get("status") == "fail":
            failed.append(name)
        elif "skipped" in outcomes or case.get("status") in ("notrun", "disabled"):
            skipped.append(name)
        else:
            passed += 1
    return passed, failed if cases else ["no tests in the report"], skipped


def read_fuzzer(status, runs):
    """(line to print, whether it found nothing) of one fuzzer."""
    name = os.path.basename(status)[:-len(".status")]
    log = os.path.join(runs, name[len("gptq-fuzz-"):], "log")
    text = open(log, errors="replace").read() if os.path.exists(log) else ""
    executed = re.search(r"number_of_executed_units: *(\d+)", text)
    # libFuzzer prints no statistics when it ends early, whatever the reason.
    sound = open(status).read().strip() == "0" and executed is not None and int(executed[1]) > 0
    line = f"{name}: {executed[1] if executed else 'unknown'} executions"
    return (line if sound else f"{line}, FAILED:\n{text[-4000:]}"), sound


def main():
    reports, runs, *suites = sys.argv[1:]
    passed = failed = 0
    summary = []
    fuzzers = sorted(glob.glob(os.path.join(reports, "gptq-fuzz-*.status")))
    for status in fuzzers:
        line, sound = read_fuzzer(status, runs)
        print(line)
        passed += sound
        failed += not sound
    if not fuzzers:
        failed += 1
        summary.append("fuzzers: none ran")
    for suite in suites:
        ok, bad, skipped = read_suite(os.path.join(reports, suite + ".xml"))
        passed += ok
        failed += len(bad)
        summary.append(f"{suite}: {ok} passed, {len(bad)} failed, {len(skipped)} skipped")
        summary += [f"  skipped: {name}" for name in skipped] + [f"  FAILED: {name}" for name in bad]
    print("\n== Summary")
    print("\n".join(summary))
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
