"""What a hostile program would harm or read if it could: files, a process, a queue of messages and shared memory of the
user who has programs judged, open to everyone."""

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

SECRET = "assert f(3) == 9  # a secret"
_libc = ctypes.CDLL(None, use_errno=True)


class Victim:
    """To be closed. ``aim`` a program at it, then ask what ``harm`` was done."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="revelm-victim-"))
        self.folder.chmod(0o777)
        (self.folder / "inner").mkdir(mode=0o777)
        for name in ("secret", "inner/secret"):
            (self.folder / name).write_text(SECRET)
            (self.folder / name).chmod(0o666)
        words = [sys.executable, "-c", "import ctypes, time; ctypes.CDLL(None).prctl(1, 9); time.sleep(1000)", SECRET]
        self._process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._shared = _libc.shmget(0, 4096, 0o1666)
        self._sockets = [socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2)]
        self._sockets[0].bind(f"\0revelm-victim-{self._process.pid}")
        self._sockets[1].bind(str(self.folder / "daemon"))
        (self.folder / "daemon").chmod(0o777)
        for one in self._sockets:
            one.setblocking(False)
        self._before = self._state()

    def aim(self, code: str) -> str:
        """The program with the victim's names and numbers in it."""
        words = {"FOLDER": str(self.folder), "PROCESS": str(self._process.pid), "SHARED": str(self._shared)}
        for name, value in {**words, "ASKER": str(os.getpid())}.items():
            code = code.replace(f"VICTIM_{name}", value)
        return code

    def harm(self) -> list[str]:
        """What is not as it was, in words; it is reported once."""
        before, now = self._before, self._state()
        self._before = now
        names = [name for name in sorted({*now, *before}) if before.get(name) != now.get(name)]
        return [f"{name}: {before.get(name)} -> {now.get(name)}" for name in names]

    def close(self) -> None:
        """End and remove all of it."""
        self._process.kill()
        self._process.wait()
        _libc.shmctl(self._shared, 0, None)
        for one in self._sockets:
            one.close()
        if self.folder.exists():
            self.folder.chmod(0o700)
            shutil.rmtree(self.folder)

    def _state(self) -> dict[str, Any]:
        state: dict[str, Any] = {}
        for path in [self.folder, *self.folder.rglob("*")] if self.folder.exists() else []:
            info = path.lstat()
            is_open = path.is_file() and bool(info.st_mode & 0o400)
            text = path.read_text() if is_open else ""
            attributes = os.listxattr(path) if is_open else []
            times = [info.st_mtime_ns, info.st_nlink]
            state[str(path)] = (oct(info.st_mode), info.st_uid, info.st_gid, text, times, attributes)
        if self._process.poll() is None:
            status = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
            state["process"] = (status[0] not in "TtZX", os.getpriority(os.PRIO_PROCESS, self._process.pid))
            state["cores"] = sorted(os.sched_getaffinity(self._process.pid))
        room = ctypes.create_string_buffer(256)
        state["shared memory"] = _libc.shmctl(self._shared, 2, room)
        state["messages"] = [self._message(one) for one in self._sockets]
        state["signals"] = sorted(signal.sigpending())
        return state

    @staticmethod
    def _message(one: socket.socket) -> bytes:
        try:
            return one.recv(100)
        except BlockingIOError:
            return b""
