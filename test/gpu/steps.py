"""What the checks of this folder have in common: a step where the compiler is, one where the GPU is, and how they end."""
import argparse
import sys


def tally(checks):
    """Runs `checks`, pairs of a name and a function that returns sentences of what is wrong; the exit status."""
    passed = failed = 0
    for name, check in checks:
        try:
            wrong = check()
        except RuntimeError as error:
            wrong = [str(error)]
        for sentence in wrong[:8]:
            print(f"{name}: {sentence}")
        passed, failed = passed + (not wrong), failed + bool(wrong)
    return report(passed, failed)


def report(passed, failed):
    """Prints the last line; the exit status."""
    print(f"{passed} passed, {failed} failed")
    return int(failed != 0)


def main(description, prepare, run, add_options=lambda parser: None):
    """`prepare` gets the parsed arguments, `run` the folder."""
    p = argparse.ArgumentParser(description=description.split("\n")[0])
    p.add_argument("step", choices=("prepare", "run"))
    p.add_argument("folder")
    p.add_argument("--target", default="nvvm:sm_90a")
    add_options(p)
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    a = p.parse_args(sys.argv[1:end])
    # What follows is for gptq-compile.
    a.options = sys.argv[end + 1:]
    sys.exit(prepare(a) if a.step == "prepare" else run(a.folder))
