"""The script that runs a program and its tests together, where a service runs scripts and nothing else.

The program is run first, in a namespace of its own; then the statements or calls, one after the other. What became of
each is a line on standard output that begins with a number nobody can guess. A line says "passed" only behind the test,
so that a program that exits, prints or replaces functions passes nothing; no exit status is looked at. Calls have their
values printed and are compared on our side; the statements of other tests have to be sent along.

This is weaker than the sandbox of this machine: program and tests are one process, and a program that searches the
frames of its callers finds the statements and the number, and can print what it likes.

Each test has a limit of CPU time (``SIGPROF``), which a program can take off; the service's own limit is behind it.
"""

import json
from collections.abc import Sequence
from secrets import token_hex

from revelm.rewards.code_tests import CodeTests

# Runs in a stranger's interpreter: no imports of ours. Whatever it needs later is bound before the program begins.
_HARNESS = """
def _run(spec):
    import builtins, json, os, signal
    dumps, write, timer, prof = json.dumps, os.write, signal.setitimer, signal.ITIMER_PROF
    compiled, execute, kind_of = compile, exec, type
    loads, mark, out = json.loads, spec["mark"], os.dup(1)

    class Slow(BaseException):
        pass

    def slow(*_):
        raise Slow()

    signal.signal(signal.SIGPROF, slow)

    def say(number, outcome, detail):
        line = ("\\n" + mark + dumps([number, outcome, detail]) + "\\n").encode()
        while line:
            line = line[write(out, line):]

    def guarded(action):
        try:
            timer(prof, spec["seconds"])
            try:
                action()
            finally:
                timer(prof, 0)
        except Slow:
            return "timed out", ""
        except SystemExit as error:
            return "exit", "SystemExit: " + str(error)[:200]
        except MemoryError:
            return "memory", "MemoryError"
        except AssertionError as error:
            return "wrong", str(error)[:200]
        except BaseException as error:
            return "exception", (kind_of(error).__name__ + ": " + str(error))[:200]
        return "passed", ""

    def plain(number):  # of numpy; anything else is no plain value
        if kind_of(number).__module__ != "numpy":
            raise TypeError("a " + kind_of(number).__name__ + " is no plain value")
        return number.item()

    own = dict(vars(builtins))  # what the program puts in place of builtins is not there
    tests = {"__name__": "tests", "__builtins__": own}
    outcome, detail = guarded(lambda: execute(compiled(spec["setup"], "setup", "exec"), tests))
    if outcome != "passed":
        return say(-1, "error", "the setup of the tests failed: " + detail)
    known = set(vars(builtins)) | set(tests)
    program = {"__name__": "answer", "__builtins__": builtins}
    outcome, detail = guarded(lambda: execute(compiled(spec["code"], "main.py", "exec"), program))
    say(-1, outcome, detail)
    if outcome != "passed":
        return
    names = spec["names"] if spec["names"] is not None else [name for name in program if name not in known]
    if spec["method"] == "function":
        tests.update((name, program[name]) for name in names if name in program)

    def statement(text):
        try:
            execute(compiled(text, "test", "exec"), tests)
        except AssertionError as error:
            raise AssertionError(str(error) or " ".join(text.split()))

    def call(arguments):
        first, *attributes = names[0].split(".")
        if first not in program:
            raise NameError("name %r is not defined" % first)
        found = program[first]
        for attribute in attributes:
            found = getattr(found(), attribute)
        values.append(dumps(found(*loads(arguments)), default=plain))

    for number, text in spec["tests"]:
        values = []
        outcome, detail = guarded(lambda: call(text) if spec["method"] == "call" else statement(text))
        if outcome == "passed" and values:
            outcome, detail = "value", values[0]
        say(number, outcome, detail)
        if outcome not in ("passed", "value") and spec["stops_early"]:
            return


import json as _json
_run(_json.loads({spec}))
"""


def harness(
    code: str, tests: CodeTests, numbers: Sequence[int], *, seconds: float, stops_early: bool
) -> tuple[str, str]:
    """A script that runs ``code`` and the tests of these ``numbers``, and the mark before each line of its report."""
    mark = token_hex(16)
    texts = tests.arguments if tests.method == "call" else tests.statements
    spec = {
        "mark": mark,
        "method": tests.method,
        "setup": tests.setup,
        "names": tests.names,
        "code": code,
        "tests": [(number, texts[number]) for number in numbers],
        "seconds": seconds,
        "stops_early": stops_early,
    }
    # A literal of ASCII alone: the script is the same text however the service encodes it.
    return _HARNESS.replace("{spec}", ascii(json.dumps(spec))), mark


def read_report(printed: str, mark: str) -> dict[int, tuple[str, str]]:
    """Outcome and detail by number of the test, of the lines behind ``mark``; -1: of the program itself.

    The first line for a number counts. Lines that are none are passed over.
    """
    found: dict[int, tuple[str, str]] = {}
    for line in printed.split("\n"):
        if not line.startswith(mark):
            continue
        try:
            number, outcome, detail = json.loads(line[len(mark) :])
        except (ValueError, TypeError):
            continue
        if type(number) is int and isinstance(outcome, str) and isinstance(detail, str):
            found.setdefault(number, (outcome, detail))
    return found
