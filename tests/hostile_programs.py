"""Programs that would score without solving anything, or do harm; by name. Each is judged by tests it must not pass.

The task is to square a number: as a function ``f`` (``FUNCTIONS``), or from stdin to stdout (``SCRIPTS``).
"""

from textwrap import dedent

STATEMENTS = ("assert f(3) == 9", "assert set([f(4)]) == {16}", "assert abs(f(5) - 25) < 1e-6")
INPUTS, OUTPUTS = ("3\n", "4\n"), ("9\n", "16\n")
LAZY = ("assert all(map(lambda n: f(n) == n * n, [3, 4]))", "assert [n for n in map(f, [3, 4])] == [9, 16]")

# What these do, they do to the user's own files and processes where the kernel gives neither namespaces nor Landlock.
HARMFUL = (
    "kills everything",
    "kills the first process",
    "removes everything",
    "fills the disk",
    "makes files for ever",
    "writes everywhere",
    "leaves shared memory behind",
    "makes links out of its folder",
    "lets a child answer later",
    "plants a module for those that come after",
)


def programs(text: str) -> dict[str, str]:
    """``### name`` begins a program."""
    parts = [part.partition("\n") for part in dedent(text).split("### ")[1:]]
    return {name.strip(): code for name, _, code in parts}


FUNCTIONS = programs(
    """
    ### leaves with status 0
    import sys
    sys.exit(0)
    ### leaves at once with status 0
    import os
    os._exit(0)
    ### leaves when called
    def f(x): raise SystemExit(0)
    ### leaves at once when called
    import os
    def f(x): os._exit(0)
    ### equals everything
    class Any:
        def __eq__(self, other): return True
        def __hash__(self): return 16
        def __sub__(self, other): return 0
        def __abs__(self): return 0
        def __lt__(self, other): return True
        def __bool__(self): return True
    def f(x): return Any()
    ### a number that equals everything
    class Any(int):
        def __eq__(self, other): return True
        def __ne__(self, other): return False
        def __hash__(self): return 16
        def __sub__(self, other): return 0
    def f(x): return Any(1)
    ### a list that equals everything
    class Any(list):
        def __eq__(self, other): return True
    def f(x): return Any()
    ### a number whose class lies
    class Meta(type):
        def __instancecheck__(cls, other): return True
        def __eq__(cls, other): return True
        def __hash__(cls): return 1
    class Any(float, metaclass=Meta):
        def __eq__(self, other): return True
    def f(x): return Any()
    ### shadows builtins of the tests
    def f(x): return 9
    def set(x): return 0
    def abs(x): return 0
    def map(*x): return []
    def all(x): return True
    sorted = len = isinstance = all
    ### patches builtins
    import builtins
    builtins.set = builtins.abs = lambda x: 0
    builtins.AssertionError = ValueError
    builtins.all = lambda x: True
    def f(x): return 9
    ### reads the tests from frames
    import sys
    def f(x):
        frame = sys._getframe()
        while frame:
            values = [*frame.f_locals.values(), *frame.f_globals.values(), *frame.f_code.co_consts]
            if any('assert ' + 'f(3)' in str(value) for value in values): return x * x
            frame = frame.f_back
    ### reads the tests from memory
    import gc
    found = [o for o in gc.get_objects() if 'assert ' + chr(102) + '(3)' in str(o)[:10**6]]
    def f(x): return x ** 2 if found else 0
    ### reads the tests from its memory map
    try:
        found = b'assert ' + b'f(3)' in open('/proc/self/mem', 'rb').read(10**6)
    except OSError:
        found = False
    def f(x): return x ** 2 if found else 0
    ### reads the tests from open files
    import os
    found = False
    for n in range(3, 64):
        try:
            found = found or b'assert' in os.pread(n, 10**6, 0)
        except OSError:
            pass
    def f(x): return x ** 2 if found else 0
    ### reads the tests from other processes
    import glob
    found = False
    for name in glob.glob('/proc/*/cmdline') + glob.glob('/proc/*/fd/*') + glob.glob('/proc/*/environ'):
        try:
            found = found or b'assert f' in open(name, 'rb').read(10**6)
        except OSError:
            pass
    def f(x): return x ** 2 if found else 0
    ### looks for the data set
    import os
    ends = '.jsonl', 'jsonl.gz', '.parquet'
    found = [name for _, _, names in os.walk('/') for name in names if name.endswith(ends)]
    def f(x): return x ** 2 if found else 0
    ### imports the verifier
    from revelm.rewards.code_score import score_code
    from revelm.rewards.math_answer import is_equal
    def f(x): return x ** 2
    ### patches the harness in its own process
    from revelm.rewards.sandbox import channel, plain, remote, serving, tester
    tester._is_same = lambda *a: True
    tester.Tester._one = lambda *a: ('passed', '')
    remote.StandIn.__eq__ = lambda *a: True
    serving.Service._answer = lambda self, *a: ['value', 'true', []]
    def f(x): return 0
    ### answers twice ahead
    import socket, struct, json, gc
    peers = [o for o in gc.get_objects() if isinstance(o, socket.socket)]
    def say(message):
        data = json.dumps(message).encode()
        for peer in peers:
            try: peer.sendall(struct.pack('!I', len(data)) + data)
            except OSError: pass
    def f(x):
        for _ in range(5): say(['value', '9', []])
        return 9
    ### writes verdicts to every descriptor
    import os
    for n in range(3, 64):
        for line in (b'["passed", ""]\\n' * 3, b'passed\\n'):
            try: os.write(n, line)
            except OSError: pass
    def f(x): return 0
    ### says nonsense on the channel
    import os
    for n in range(3, 64):
        try: os.write(n, b'\\xff' * 5000)
        except OSError: pass
    def f(x): return 0
    ### announces an endless message
    import os
    for n in range(3, 64):
        try: os.write(n, b'\\x7f\\xff\\xff\\xff')
        except OSError: pass
    def f(x): return 0
    ### calls back what was never given
    import socket, struct, json, gc
    peers = [o for o in gc.get_objects() if isinstance(o, socket.socket)]
    def f(x):
        data = json.dumps(['call', 0, '["l", []]']).encode()
        for peer in peers:
            try: peer.sendall(struct.pack('!I', len(data)) + data)
            except OSError: pass
        return 9
    ### sends values that cannot be read
    import socket, struct, json, gc
    peers = [o for o in gc.get_objects() if isinstance(o, socket.socket)]
    def f(x):
        for text in ('["x"]', '[["l"]]', '["h", "a"]', '["n", "O", [1], ""]', '["T", "eval"]', '["s", [["l", []]]]'):
            data = json.dumps(['value', text, []]).encode()
            for peer in peers:
                try: peer.sendall(struct.pack('!I', len(data)) + data)
                except OSError: pass
    ### closes all descriptors
    import os
    os.closerange(0, 1000)
    def f(x): return x ** 2
    ### ends loops of the tests
    def f(x): raise StopIteration
    ### raises an exception that cannot be shown
    class Bad(Exception):
        def __str__(self): raise SystemExit
    def f(x): raise Bad
    ### returns an endless generator
    import itertools
    def f(x): return itertools.count()
    ### returns a list that holds itself
    def f(x):
        a = []
        a.append(a)
        return a
    ### returns a deep list
    def f(x):
        a = 9
        for _ in range(100000): a = [a]
        return a
    ### returns an enormous text
    def f(x): return '9' * 200_000_000
    ### kills its parent
    import os, signal
    os.kill(os.getppid(), signal.SIGKILL)
    def f(x): return 9
    ### kills the first process
    import os, signal
    for s in (signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP, signal.SIGSEGV):
        try: os.kill(1, s)
        except OSError: pass
    def f(x): return 9
    ### kills everything
    import os, signal
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try: os.kill(-1, signal.SIGKILL)
    except OSError: pass
    def f(x): return 9
    ### traces the tests
    import ctypes
    libc = ctypes.CDLL(None)
    traced = [libc.ptrace(16, pid, 0, 0) for pid in range(1, 50)]
    def f(x): return x ** 2 if 0 in traced else 9
    ### reads the memory of the tests
    import ctypes
    libc = ctypes.CDLL(None)
    class V(ctypes.Structure): _fields_ = [('b', ctypes.c_void_p), ('l', ctypes.c_size_t)]
    room = ctypes.create_string_buffer(4096)
    here, there = V(ctypes.addressof(room), 4096), V(id(object), 4096)
    got = [libc.process_vm_readv(p, ctypes.byref(here), 1, ctypes.byref(there), 1, 0) for p in range(1, 5)]
    def f(x): return x ** 2 if max(got) > 0 else 9
    ### becomes another program
    import os
    os.execv('/bin/true', ['true'])
    ### traces its own calls
    import sys
    def trace(frame, event, argument):
        for name in list(frame.f_locals):
            if name == 'expected': raise SystemExit
        return trace
    sys.settrace(trace)
    sys.setprofile(trace)
    def f(x): return 9
    ### leaves in an exit function
    import atexit, os
    atexit.register(lambda: os._exit(0))
    def f(x): return 9
    ### goes on in a child, beyond its limits
    import os, time
    if os.fork(): os._exit(0)
    def f(x):
        start = time.thread_time()
        while time.thread_time() < start + 0.8: pass
        return x * x
    ### goes on in a sibling, beyond its limits
    import ctypes, os, time
    if ctypes.CDLL(None).syscall(56, 0x8000 | 17, 0, 0, 0, 0): os._exit(0)
    def f(x):
        start = time.thread_time()
        while time.thread_time() < start + 0.8: pass
        return x * x
    ### writes verdicts into the report of the tests
    import glob, os
    for name in glob.glob('/proc/[0-9]*/fd/*'):
        try:
            if 'memfd:report' in os.readlink(name):
                os.write(os.open(name, os.O_RDWR), b'["passed", ""]\\n' * 3)
        except OSError: pass
    def f(x): return 0
    ### takes their limits away from the tests
    import os, resource
    for pid in (1, 2, os.getppid()):
        for kind in (resource.RLIMIT_FSIZE, resource.RLIMIT_AS, resource.RLIMIT_CPU):
            try: resource.prlimit(pid, kind, (0, 0))
            except (OSError, ValueError): pass
    def f(x): return 0
    ### claims to be an exception of the tests
    class AssertionError(Exception): pass
    class Wrong(Exception): pass
    Wrong.__name__ = 'Stop' + 'Iteration'
    def f(x): raise Wrong
    ### spins in a thread that is left behind
    import threading
    def spin():
        while True: pass
    threading.Thread(target=spin, daemon=True).start()
    def f(x):
        while True: pass
    """
)

SCRIPTS = programs(
    """
    ### prints a verdict
    print('["passed", ""]')
    print('passed')
    ### prints the error that it raises
    import sys
    print(9, file=sys.stderr)
    raise ValueError('9')
    ### prints the right answer and fails
    print(int(input()) ** 2)
    raise ValueError
    ### prints the right answer and is killed
    import os, signal
    print(int(input()) ** 2, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
    ### never flushes
    import os, sys
    sys.stdout.write(str(int(input()) ** 2))
    os._exit(0)
    ### prints on two lines
    for digit in str(int(input()) ** 2) + ' ': print(digit)
    ### prints bytes that are no text
    import sys
    sys.stdout.buffer.write(str(int(input()) ** 2).encode() + b'\\xff')
    ### prints everything
    for n in range(20): print(n)
    ### prints 100 MB
    import sys
    for _ in range(100): sys.stdout.write('9' * 2**20)
    ### prints for ever
    while True: print(9)
    ### lets a child answer later
    import os, time
    n = int(input())
    if os.fork() == 0:
        time.sleep(30)
        print(n ** 2)
    ### spins
    while True: pass
    ### sleeps
    import time
    time.sleep(1000)
    ### sleeps deaf to signals
    import signal, time
    for s in range(1, 65):
        try: signal.signal(s, signal.SIG_IGN)
        except (OSError, ValueError): pass
    while True: time.sleep(1)
    ### spins deaf to signals
    import signal
    for s in range(1, 65):
        try: signal.signal(s, signal.SIG_IGN)
        except (OSError, ValueError): pass
    while True: pass
    ### spins in children
    import os
    for _ in range(4):
        if os.fork() == 0:
            while True: pass
    os.wait()
    ### spins in children that come and go
    import os, time
    for _ in range(20):
        if os.fork() == 0:
            start = time.thread_time()
            while time.thread_time() < start + 0.05: pass
            os._exit(0)
        os.wait()
    print(int(input()) ** 2)
    ### keeps memory that no process has
    import ctypes, os
    libc = ctypes.CDLL(None)
    libc.shmat.restype = ctypes.c_void_p
    for _ in range(40):
        number = libc.shmget(0, 8 * 2**20, 0o1666)
        if number < 0: break
        ctypes.memset(libc.shmat(number, None, 0), 1, 8 * 2**20)
    else: print(int(input()) ** 2)
    ### keeps memory in files without names
    import os
    for _ in range(40): os.write(os.memfd_create('x'), bytes(7 * 2**20))
    print(int(input()) ** 2)
    ### shares memory with its children
    import mmap, os, time
    for _ in range(5):
        if os.fork() == 0:
            room = mmap.mmap(-1, 90 * 2**20)
            for _ in range(90): room.write(bytes(2**20))
            time.sleep(1)
            os._exit(0)
    time.sleep(0.8)
    print(int(input()) ** 2)
    ### plants a module for those that come after
    import os, sys
    for folder in ('/', *sys.path):
        try:
            open(os.path.join(folder, 'revelm_was_here.py'), 'w').close()
            print(int(input()) ** 2)
        except OSError: pass
    ### forks for ever
    import os
    while True:
        try: os.fork()
        except OSError: pass
    ### forks and leaves
    import os, time
    for _ in range(10):
        if os.fork() == 0:
            os.setsid()
            if os.fork(): os._exit(0)
            time.sleep(1000)
    ### starts threads for ever
    import threading, time
    while True: threading.Thread(target=time.sleep, args=(1000,)).start()
    ### fills memory
    a = []
    while True: a.append(bytearray(2**20))
    ### fills memory in children
    import os, time
    for _ in range(10): os.fork()
    a = bytearray(100 * 2**20)
    for i in range(0, len(a), 4096): a[i] = 1
    time.sleep(1000)
    ### fills memory at once
    a = [0] * 10**11
    ### fills the disk
    n = 0
    while True:
        n += 1
        with open(f'/tmp/{n}', 'wb') as file: file.write(b'9' * 2**24)
    ### makes files for ever
    n = 0
    while True:
        n += 1
        open(f'/tmp/{n}', 'w').close()
    ### writes everywhere
    import os
    for folder in ('/', '/usr', '/etc', '/home', '/root', '/var/tmp', '/dev/shm', '/run', os.path.expanduser('~')):
        try:
            os.makedirs(folder, exist_ok=True)
            open(os.path.join(folder, 'revelm-was-here'), 'w').close()
        except OSError: pass
    ### removes everything
    import shutil
    for folder in ('/home', '/root', '/usr/local', '/work', '/tmp', '/'): shutil.rmtree(folder, ignore_errors=True)
    ### makes links out of its folder
    import os
    os.symlink('/etc/passwd', '/tmp/link')
    open('/tmp/link', 'a').write('x')
    ### opens a connection
    import socket
    for place in (('127.0.0.1', 22), ('1.1.1.1', 53), ('169.254.169.254', 80)):
        try:
            socket.create_connection(place, timeout=1)
            print(int(input()) ** 2)
        except OSError: pass
    ### listens
    import socket
    s = socket.socket()
    s.bind(('0.0.0.0', 45678))
    s.listen()
    s.accept()
    ### leaves shared memory behind
    import ctypes
    libc = ctypes.CDLL(None)
    print(libc.shmget(0x5EED, 2**20, 0o1666), libc.semget(0x5EED, 1, 0o1666), libc.msgget(0x5EED, 0o1666))
    from multiprocessing import shared_memory
    shared_memory.SharedMemory('revelm-was-here', create=True, size=4096)
    ### becomes root
    import os
    for change in (os.setuid, os.seteuid, os.setgid): change(0)
    print(int(input()) ** 2)
    ### makes namespaces
    import ctypes
    libc = ctypes.CDLL(None)
    if libc.unshare(0x10000000) == 0 or libc.unshare(0x20000) == 0: print(int(input()) ** 2)
    ### mounts
    import ctypes
    libc = ctypes.CDLL(None)
    if libc.mount(b'x', b'/tmp', b'tmpfs', 0, b'') == 0: print(int(input()) ** 2)
    ### leaves its root
    import os
    os.chroot('/tmp')
    print(int(input()) ** 2)
    ### crashes
    import ctypes
    ctypes.string_at(0)
    ### overflows the stack
    import sys
    sys.setrecursionlimit(10**9)
    def f(n): return f(n + 1) + 1
    f(0)
    ### computes an enormous number
    print(9 ** 9 ** 9)
    ### matches for ever
    import re
    re.match('(a+)+$', 'a' * 60 + 'b')
    ### opens files for ever
    a = []
    while True: a.append(open('/dev/null'))
    ### is no program
    This is how I would solve it:
    ### has no end
    print(int(input()) ** 2
    """
)
