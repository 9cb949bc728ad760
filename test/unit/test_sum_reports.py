"""The test run's last line counts what the suites reported, and nothing missing passes."""
import os
import subprocess
import sys

SCRIPT = os.path.join(os.path.dirname(__file__), "..", "..", "scripts", "sum_reports.py")

# As pytest and lit, and as ctest write it.
SUITES = {
    "pytest": """<testsuites><testsuite>
        <testcase classname="a" name="good"/>
        <testcase classname="a" name="bad"><failure message="no"/></testcase>
        <testcase classname="a" name="broken"><error message="fixture"/></testcase>
        <testcase classname="a" name="left"><skipped message="no models"/></testcase>
        </testsuite></testsuites>""",
    "ctest": """<testsuite>
        <testcase name="A.good" status="run"/>
        <testcase name="A.bad" status="fail"><failure message=""/></testcase>
        <testcase name="A.left" classname="A.left" status="notrun"><skipped message="SKIP_REGULAR_EXPRESSION_MATCHED"/></testcase>
        </testsuite>""",
}


def run(folder, suites, fuzzers):
    for name, text in suites.items():
        (folder / f"{name}.xml").write_text(text)
    for subject, (status, log) in fuzzers.items():
        (folder / f"gptq-fuzz-{subject}.status").write_text(f"{status}\n")
        (folder / subject).mkdir()
        (folder / subject / "log").write_text(log)
    done = subprocess.run([sys.executable, SCRIPT, folder, folder, *suites], capture_output=True, text=True)
    return done.returncode, done.stdout.splitlines()


STATISTICS = "stat::number_of_executed_units: 1234\n"


def test_sums_over_suites_and_fuzzers(tmp_path):
    status, lines = run(tmp_path, SUITES, {"calm": (0, STATISTICS), "found": (77, "ERROR: AddressSanitizer\n")})
    assert status == 1
    assert lines[-1] == "3 passed, 4 failed"
    assert "gptq-fuzz-calm: 1234 executions" in lines
    assert "  skipped: a::left" in lines and "  skipped: A.left" in lines and "  FAILED: A.bad" in lines
    assert "ERROR: AddressSanitizer" in lines


def test_all_good(tmp_path):
    status, lines = run(tmp_path, {"lit": "<testsuite><testcase classname='a' name='b'/></testsuite>"},
                        {"calm": (0, STATISTICS)})
    assert (status, lines[-1]) == (0, "2 passed, 0 failed")


def test_missing_and_empty_reports_fail(tmp_path):
    status, lines = run(tmp_path, {"empty": "<testsuite/>", "cut": "<testsuite><testca"}, {"quiet": (0, "")})
    assert (status, lines[-1]) == (1, "0 passed, 3 failed")


def test_no_fuzzers_fail(tmp_path):
    status, lines = run(tmp_path, {}, {})
    assert (status, lines[-1]) == (1, "0 passed, 1 failed")
