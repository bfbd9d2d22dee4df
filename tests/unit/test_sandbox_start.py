"""A sandbox whose start is interrupted: nothing of it is left."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

from revelm.rewards.sandbox.landlock import LATEST

INTERRUPTED = """
    import json, os, sys
    from threading import active_count

    from revelm.rewards.sandbox import local, server_process
    from revelm.rewards.sandbox.visible import visible

    own = visible()
    local.visible = lambda: {**own, "path": [path for path in own["path"] if "site-packages" not in path]}  # is fast
    seen, lines, folders = set(), [], []

    def trace(frame, event, _):
        code, place = frame.f_code, (frame.f_code.co_name, frame.f_lineno)
        if code.co_filename not in (local.__file__, server_process.__file__) or code.co_name in ENDS:
            return None
        if event == "line" and place not in seen:
            seen.add(place)
            lines.append(place)
            words = frame.f_locals.get("words", {})
            if words.get("folder"):
                folders.append(words["folder"])
            sys.settrace(None)
            raise KeyboardInterrupt
        return trace

    ENDS = ("close", "disown", "_forget", "pid")
    before = sorted(os.listdir("/proc/self/fd"))
    while True:
        sys.settrace(trace)
        try:
            sandbox = local.LocalSandbox(isolation="weak")
        except KeyboardInterrupt:
            left = [name for name in sorted(os.listdir("/proc/self/fd")) if name not in before]
            try:
                left.append(f"a process: {os.waitpid(-1, os.WNOHANG)}")
            except ChildProcessError:
                pass
            left += [folder for folder in folders if os.path.exists(folder)]
            assert not left and active_count() == 1, (lines[-1], left)
        else:
            break
        finally:
            sys.settrace(None)
    sandbox.close()
    print(json.dumps(sorted({name for name, _ in lines})))
"""


def test_an_interrupted_start_leaves_nothing() -> None:
    """Catches a socket, a process or a folder that stays when Ctrl-C or a timeout comes while a sandbox is starting."""
    words = [sys.executable, "-c", dedent(INTERRUPTED)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == ["__init__", "_enter", "_launch", "_open", "start"]


def test_a_server_without_a_parent_leaves_no_folder(tmp_path: Path) -> None:
    """Catches a server that begins when whoever has started it is gone, and leaves the folder that it has made."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    options = json.dumps({"isolation": "weak", "landlock": LATEST, "folders": [], "path": []})
    code = f"from revelm.rewards.sandbox.server import main; main({theirs.fileno()}, {options!r})"
    with ours, theirs:
        ours.close()
        words = [sys.executable, "-c", code]
        server = subprocess.Popen(words, pass_fds=[theirs.fileno()], env={**os.environ, "TMPDIR": str(tmp_path)})
    assert server.wait() == 0
    assert list(tmp_path.iterdir()) == []
