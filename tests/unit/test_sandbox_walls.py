"""The weaker mode: what Landlock and the filter of system calls keep from programs, and what is cleared away."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from revelm.rewards.code_score import score_code
from revelm.rewards.code_tests import CodeTests
from revelm.rewards.sandbox import landlock
from revelm.rewards.sandbox.leftovers import clear
from revelm.rewards.sandbox.limits import Limits
from revelm.rewards.sandbox.local import LocalSandbox
from revelm.rewards.sandbox.syscalls import PR_SET_NO_NEW_PRIVS, prctl
from revelm.rewards.sandbox.usage import folder_use
from tests.hostile_aims import HARMERS, READERS
from tests.hostile_programs import INPUTS, OUTPUTS, STATEMENTS
from tests.sandbox_victim import Victim

LIMITS = Limits(seconds=1, total_seconds=20, memory_mb=256, processes=8, file_mb=8)
SQUARE = CodeTests("function", statements=STATEMENTS, names=("f",))
SCRIPT = CodeTests("stdio", inputs=INPUTS, outputs=OUTPUTS)
LASTING = ("fills", "spins", "hides", "leaves a tree")  # tests/slow runs these as well


@pytest.fixture(scope="module")
def sandbox() -> Iterator[LocalSandbox]:
    if not landlock.version():
        pytest.skip("no Landlock here")
    sandbox = LocalSandbox(isolation="weak")
    yield sandbox
    sandbox.close()


def printed(sandbox: LocalSandbox, code: str, expected: str) -> str:
    """Why the verdict is what it is."""
    tests = CodeTests("stdio", inputs=("given",), outputs=(expected,))
    return score_code(code, tests, limits=LIMITS, executor=sandbox).reason


def test_a_wall_stands_where_there_are_no_namespaces(sandbox: LocalSandbox) -> None:
    """Catches files, processes, memory and daemons of the user within reach of programs in the weaker mode."""
    victim = Victim()
    try:
        programs = [(name, code, SQUARE) for name, code in READERS.items()]
        programs += [(name, code, SCRIPT) for name, code in HARMERS.items() if not name.startswith(LASTING)]
        for name, code, tests in programs:
            score = score_code(victim.aim(code), tests, limits=LIMITS, executor=sandbox)
            assert (score.value, score.breakdown.get("error")) == (0.0, None), (name, score.reason)
            assert victim.harm() == [], name
            assert list(Path(sandbox.folder).iterdir()) == [], name
    finally:
        victim.close()


def test_programs_work_behind_the_wall(sandbox: LocalSandbox) -> None:
    """Catches a wall that keeps programs from their folder, their input, Python, packages and the system's tools."""
    code = """
import colorsys, os, shutil, subprocess, tempfile, threading
import numpy
from pathlib import Path
os.makedirs('a/b')
Path('a/b/c').write_text('1')
Path('a/b/c').chmod(0o600)
os.rename('a/b/c', 'a/d')
os.link('a/d', 'e')
shutil.copy2('e', 'f')
shutil.copytree('a', 'g')
os.truncate('f', 1)
Path('h').touch()
Path('f').touch()
with tempfile.TemporaryFile() as file: file.write(b'x')
open('/dev/null', 'w').write('x')
thread = threading.Thread(target=print, args=(open('/dev/stdin').read(),))
thread.start()
thread.join()
print(sorted(os.listdir('.')), subprocess.run(['/bin/echo', '2'], capture_output=True).stdout)
child = subprocess.Popen(['/bin/sleep', '100'])
child.kill()
print(child.wait(), os.listdir('/usr')[0] != '', os.path.exists('/proc/self'), os.cpu_count() > 0, flush=True)
if os.fork() == 0:
    print('child', flush=True)
    os._exit(0)
os.wait()
""".replace("import colorsys, ", "import " if os.geteuid() == 0 else "import colorsys, ")
    expected = "given\n['a', 'e', 'f', 'g', 'h'] b'2\\n'\n-9 True True True\nchild"
    assert printed(sandbox, code, expected) == "1 of 1 tests passed"


def test_a_fresh_interpreter_starts_behind_the_wall() -> None:
    """Catches a wall that lets only forks of the server run."""
    if not landlock.version() or os.geteuid() == 0:  # whose programs' user may be shut out of where Python is
        pytest.skip("no Landlock here, or root")
    sandbox = LocalSandbox(isolation="weak", start="fresh")
    try:
        assert printed(sandbox, "import colorsys\nprint(1)", "1") == "1 of 1 tests passed"
    finally:
        sandbox.close()


def test_a_sandbox_that_ends_leaves_no_folder() -> None:
    """Catches folders that pile up, of a sandbox that is closed or whose server is killed, and a sandbox that is
    lost when its folder is removed as old."""
    sandbox = LocalSandbox(isolation="weak")
    seen = [Path(sandbox.folder)]
    os.kill(sandbox.server_pid, 9)
    for _ in range(2):
        assert printed(sandbox, "open('x', 'w').close()\nprint(1)", "1") == "1 of 1 tests passed"
        seen.append(Path(sandbox.folder))
        seen[-1].rmdir()
    assert printed(sandbox, "print(1)", "1") == "1 of 1 tests passed"
    seen.append(Path(sandbox.folder))
    sandbox.close()
    assert [folder for folder in seen if folder.exists()] == []


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A folder, in memory where there is such: many folders take long on disks."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as folder:
        yield Path(folder)


def test_folders_are_cleared_of_anything(place: Path) -> None:
    """Catches leftovers that cannot be removed: trees deeper than a stack and longer than a path, locked folders, odd
    names; and links that are followed."""
    outside, inside = place / "outside", place / "inside"
    outside.mkdir()
    inside.mkdir()
    (outside / "kept").touch()
    (inside / "link").symlink_to(outside)
    (inside / "none").mkdir(0)
    (inside / os.fsdecode(b"\xff\n") / ("x" * 200)).mkdir(parents=True)
    (inside / "locked" / "inner").mkdir(parents=True)
    (inside / "locked" / "inner" / "file").touch()
    (inside / "locked" / "inner").chmod(0)
    (inside / "locked").chmod(0)
    deep = os.open(inside, os.O_RDONLY)
    for _ in range(1100):
        os.mkdir("deeper", dir_fd=deep)
        above, deep = deep, os.open("deeper", os.O_RDONLY, dir_fd=deep)
        os.close(above)
    os.close(deep)
    assert folder_use(str(inside), 5000)[1] == 5001
    clear(inside)
    assert list(inside.iterdir()) == []
    assert list(outside.iterdir()) == [outside / "kept"]


def test_what_is_in_a_folder_is_counted(tmp_path: Path) -> None:
    """Catches files that count as none: in folders, unnamed by their size, or behind too many others."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(bytes(10**6))
    size, number = folder_use(str(tmp_path), 10)
    assert (size >= 10**6, number) == (True, 2)
    assert folder_use(str(tmp_path), 1)[1] == 2


def test_an_old_kernel_is_asked_for_what_it_knows() -> None:
    """Catches rights of a newer version of Landlock, which an older kernel refuses as a whole."""
    for known in range(1, landlock.version() + 1):
        os.close(landlock.new_wall(known))
    assert landlock.version(0) == 0


def test_a_signal_to_everything_stays_inside() -> None:
    """Catches a supervisor whose last resort, a signal to all processes, reaches those of the user."""
    if landlock.version() < landlock.SCOPES_SIGNALS:
        pytest.skip("no Landlock here that knows signals")
    assert not landlock.shut_in(known=landlock.SCOPES_SIGNALS - 1)
    victim = Victim()
    pid = os.fork()
    if pid == 0:
        prctl(PR_SET_NO_NEW_PRIVS, 1)
        is_shut_in = landlock.shut_in(known=landlock.SCOPES_SIGNALS)
        inner = os.fork()
        if inner == 0:
            signal.pause()
        if is_shut_in:
            os.kill(-1, signal.SIGKILL)
        os._exit(0 if is_shut_in and os.waitpid(inner, 0)[1] == signal.SIGKILL else 1)
    try:
        assert os.waitpid(pid, 0)[1] == 0
        assert victim.harm() == []
    finally:
        victim.close()
