"""The process of a sandbox's server, as its parent sees it: its start, the channel to it, its end."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from revelm.rewards.sandbox.confine import Isolation
from revelm.rewards.sandbox.landlock import SCOPES_SIGNALS
from revelm.rewards.sandbox.leftovers import remove
from revelm.rewards.sandbox.syscalls import PR_SET_DUMPABLE, prctl

_TO_END = 5.0  # seconds for a server at work, after which it is killed
_TO_BEGIN = 60.0  # and for one that is still starting, whose folder is not known here: it removes that itself


class ServerProcess:
    """None, until ``start``. ``channel``: the socket to it; None: there is no server.

    ``landlock``, ``folder``: see `LocalSandbox`.
    """

    def __init__(self) -> None:
        self.channel: socket.socket | None = None
        self.landlock = 0
        self.folder = ""
        self._ends: tuple[socket.socket, ...] = ()
        self._process: subprocess.Popen[bytes] | None = None
        self._has_begun = False

    @property
    def pid(self) -> int:
        """The process number; 0 when there is none."""
        return 0 if self._process is None else int(vars(self._process).get("pid") or 0)

    def start(self, isolation: Isolation, paths: dict[str, list[str]], *, landlock: int) -> str:
        """Start it, and wait until it is locked in. Returns why that is refused; "" when it is ready.

        Interrupted at any point, it leaves nothing behind.
        """
        self.folder = ""
        try:
            self._ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self._launch(isolation, paths, landlock=landlock)
            self._ends[1].close()
            told = self._ends[0].recv(65536)
            words = json.loads(told) if told else {"refused": "the server did not start"}
            self._has_begun = True
            if "refused" not in words:
                self._enter(words, isolation)
                return ""
        except BaseException:
            self.close()
            raise
        self.close()
        return str(words["refused"])

    def close(self) -> None:
        """End it, where there is one."""
        for end in self._ends:
            end.close()
        if self._process is not None and self.pid:
            try:
                self._process.wait(timeout=_TO_END if self._has_begun else _TO_BEGIN)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            if self.folder:  # by a server that was killed
                remove(Path(self.folder))
        self._forget()

    def disown(self) -> None:
        """In a fork of the process that has started it, whose answers are for that process alone."""
        for end in self._ends:
            end.close()
        if self._process is not None and self.pid:
            self._process.poll()
        self._forget()

    def _forget(self) -> None:
        self.channel = self._process = None
        self._ends, self._has_begun = (), False

    def _enter(self, words: dict[str, Any], isolation: Isolation) -> None:
        """What the server says of itself."""
        self.folder, self.landlock = words["folder"], int(words["landlock"])
        if isolation == "weak" and os.geteuid() != 0 and not self.landlock:
            prctl(PR_SET_DUMPABLE)  # programs run as the same user, who could look for the tests here
        self.channel = self._ends[0]

    def _launch(self, isolation: Isolation, paths: dict[str, list[str]], *, landlock: int) -> None:
        theirs = self._ends[1]
        options = json.dumps({"isolation": isolation, "landlock": landlock, **paths})
        boot = f"import sys; sys.path[:] = {paths['path']!r}; from revelm.rewards.sandbox.server import main; "
        # One thread each: threads of a linear algebra library would be lost in every fork, and count as processes.
        threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        # Known before it is started: an interrupt of the start itself leaves a process, which is to be waited for.
        self._process = subprocess.Popen.__new__(subprocess.Popen)
        subprocess.Popen.__init__(
            self._process,
            [
                sys.executable,
                "-s",
                "-P",
                "-c",  # not -I: under that, hashes would be seeded by chance
                f"{boot}main({theirs.fileno()}, {options!r})",
            ],
            pass_fds=[theirs.fileno()],
            env={"PYTHONHASHSEED": "0", **threads},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )


def what_is_open(landlock: int, *, is_root: bool) -> str:
    """To programs in the weaker mode, for people."""
    if not landlock:
        return "but without Landlock they can use this machine's files" + ("" if is_root else " as this user")
    lacks = f" (version {landlock}: none against signals to this user's processes but the filter)"
    return "behind a wall of Landlock" + ("" if is_root or landlock >= SCOPES_SIGNALS else lacks)
