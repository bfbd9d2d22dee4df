"""Programs aimed at a victim (``tests.sandbox_victim``): what is not theirs to read, to change, to signal.

``READERS`` square a number once they have read the victim's secret; ``HARMERS`` are scripts. All want what the kernel
would give a user over what is his own, so that nothing but the sandbox stands in their way.
"""

from tests.hostile_programs import programs

# What the filter of system calls keeps from a program where there is neither a namespace nor Landlock.
FILTERED = (
    "reads by way of a ring",
    "reads by way of a handle",
    "joins shared memory",
    "watches what happens to files",
    "changes modes and owners",
    "changes times and attributes",
    "changes the mode of what it can read",
    "cuts files short that it can read",
    "signals others",
    "has others signalled by files",
    "slows others down",
    "tells daemons",
    "removes shared memory",
    "mounts file systems of its own",
    "runs what it has no name for",
    "leaves a tree without end",
    "leaves what cannot be opened",
    "fills its own folder",
    "goes from process to process",
    "goes from process to process in Python",
    "spins in orphans",
)

READERS = programs(
    """
    ### reads a file
    found = False
    for name in ('secret', 'inner/secret'):
        try: found = found or 'assert' in open('VICTIM_FOLDER/' + name).read()
        except OSError: pass
    def f(x): return x ** 2 if found else 0
    ### lists a folder
    import os
    def f(x): return x ** 2 if 'secret' in os.listdir('VICTIM_FOLDER') else 0
    ### reads through a link
    import os
    os.symlink('VICTIM_FOLDER/secret', 'link')
    os.symlink('VICTIM_FOLDER', 'folder')
    found = False
    for name in ('link', 'folder/secret', 'folder/../secret', '../program/link'):
        try: found = found or 'assert' in open(name).read()
        except OSError: pass
    def f(x): return x ** 2 if found else 0
    ### reads through a hard link
    import ctypes, os
    found = False
    try: os.link('VICTIM_FOLDER/secret', 'link')
    except OSError: ctypes.CDLL(None).linkat(-100, b'/proc/self/fd/0', -100, b'other', 0x400)
    try: found = 'assert' in open('link').read()
    except OSError: pass
    def f(x): return x ** 2 if found else 0
    ### reads by way of processes' own links
    import os
    found = False
    for who in ('self', 'thread-self', os.getppid(), VICTIM_PROCESS, VICTIM_ASKER, 1):
        for way in ('root', 'cwd', 'cwd/../..', 'task/1/root', 'fd/3/..', 'map_files/..'):
            try: found = found or 'assert' in open(f'/proc/{who}/{way}/VICTIM_FOLDER/secret').read()
            except OSError: pass
    def f(x): return x ** 2 if found else 0
    ### reads from below its descriptors
    import ctypes, os, struct
    libc, found = ctypes.CDLL(None), False
    for n in [*range(64), os.open('.', os.O_PATH), os.open('/usr', os.O_RDONLY), os.open('/', os.O_PATH)]:
        for name in (b'VICTIM_FOLDER/secret', b'../../../../..VICTIM_FOLDER/secret', b'../..VICTIM_FOLDER/secret'):
            for how in (struct.pack('QQQ', 0, 0, 0), struct.pack('QQQ', 0, 0, 0x10)):
                got = [libc.syscall(437, n, name, how, 24), libc.openat(n, name, 0)]
                found = found or any(one >= 0 and b'assert' in os.pread(one, 100, 0) for one in got)
    def f(x): return x ** 2 if found else 0
    ### reads in another program, a thread and a child
    import os, subprocess, threading
    found = []
    def look():
        try: found.append('assert' in open('VICTIM_FOLDER/secret').read())
        except OSError: pass
    try: found.append(b'assert' in subprocess.run(['/bin/cat', 'VICTIM_FOLDER/secret'], capture_output=True).stdout)
    except OSError: pass
    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    reader, writer = os.pipe()
    if os.fork() == 0:
        look()
        os.write(writer, bytes([any(found)]))
        os._exit(0)
    found.append(os.read(reader, 1) == b'\\x01')
    def f(x): return x ** 2 if any(found) else 0
    ### reads by way of a ring
    import ctypes
    libc = ctypes.CDLL(None)
    ring = libc.syscall(425, 8, ctypes.create_string_buffer(256))
    def f(x): return x ** 2 if ring >= 0 else 0
    ### reads by way of a handle
    import ctypes
    libc = ctypes.CDLL(None)
    handle = ctypes.create_string_buffer(bytes([128, 0, 0, 0]) + bytes(200), 256)
    number = ctypes.c_int()
    named = libc.name_to_handle_at(-100, b'VICTIM_FOLDER/secret', handle, ctypes.byref(number), 0)
    got = [libc.open_by_handle_at(n, handle, 0) for n in range(-100, 64)]
    def f(x): return x ** 2 if max(got) >= 0 else 0
    ### makes itself a wall with a door
    import ctypes, os, struct
    libc, found = ctypes.CDLL(None), False
    for handled in (4, 0x1fff):
        wall = libc.syscall(444, struct.pack('QQQ', handled, 0, 0), 24, 0)
        rule = struct.pack('=Qi', handled, os.open('/', os.O_PATH))
        libc.syscall(445, wall, 1, rule, 0)
        libc.syscall(446, wall, 0)
        try: found = found or 'assert' in open('VICTIM_FOLDER/secret').read()
        except OSError: pass
    def f(x): return x ** 2 if found else 0
    ### reads the memory of others
    import ctypes
    libc, found = ctypes.CDLL(None), False
    class V(ctypes.Structure): _fields_ = [('b', ctypes.c_void_p), ('l', ctypes.c_size_t)]
    room = ctypes.create_string_buffer(4096)
    here, there = V(ctypes.addressof(room), 4096), V(id(object), 4096)
    for pid in (VICTIM_PROCESS, VICTIM_ASKER):
        found = found or libc.process_vm_readv(pid, ctypes.byref(here), 1, ctypes.byref(there), 1, 0) > 0
        found = found or 0 in (libc.ptrace(16, pid, 0, 0), libc.ptrace(0x4206, pid, 0, 0))
        for name in ('mem', 'maps', 'environ', 'syscall', 'stack', 'auxv'):
            try: found = found or bool(open(f'/proc/{pid}/{name}', 'rb').read(10))
            except OSError: pass
    def f(x): return x ** 2 if found else 0
    ### reads the words of others
    found = False
    for name in ('cmdline', 'comm', 'status', 'stat', 'cgroup'):
        try: found = found or bool(open(f'/proc/VICTIM_PROCESS/{name}').read())
        except OSError: pass
    def f(x): return x ** 2 if found else 0
    ### takes descriptors of others
    import ctypes, os
    libc, found = ctypes.CDLL(None), False
    for pid in (VICTIM_PROCESS, VICTIM_ASKER):
        try:
            handle = os.pidfd_open(pid)
            found = found or any(libc.syscall(438, handle, n, 0) >= 0 for n in range(8))
        except OSError: pass
        try: found = found or bool(os.listdir(f'/proc/{pid}/fd'))
        except OSError: pass
    def f(x): return x ** 2 if found else 0
    ### joins shared memory
    import ctypes
    libc = ctypes.CDLL(None)
    libc.shmat.restype = ctypes.c_long
    place = libc.shmat(VICTIM_SHARED, None, 0)
    def f(x): return x ** 2 if place != -1 else 0
    ### watches what happens to files
    import ctypes
    libc = ctypes.CDLL(None)
    watch = libc.inotify_init1(0)
    got = libc.inotify_add_watch(watch, b'VICTIM_FOLDER', 0xfff)
    def f(x): return x ** 2 if got >= 0 else 0
    """
)

HARMERS = programs(
    """
    ### writes into files of others
    import os
    for name in ('secret', 'inner/secret', 'new', 'inner/new'):
        for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_CREAT, os.O_WRONLY | os.O_APPEND):
            try: os.write(os.open('VICTIM_FOLDER/' + name, flags, 0o666), b'x')
            except OSError: pass
    ### cuts files short
    import ctypes, os
    libc = ctypes.CDLL(None)
    path = 'VICTIM_FOLDER/secret'
    libc.truncate(path.encode(), 0)
    libc.creat(path.encode(), 0o666)
    for flags in (os.O_TRUNC, os.O_TRUNC | os.O_WRONLY, os.O_TRUNC | os.O_RDWR, os.O_TRUNC | 3, os.O_TRUNC | os.O_PATH):
        try: os.open(path, flags)
        except OSError: pass
    libc.syscall(437, -100, path.encode(), (os.O_TRUNC).to_bytes(8, 'little') + bytes(16), 24)
    ### cuts files short that it can read
    import os
    for name in (os.__file__, 'VICTIM_FOLDER/secret'):
        try: os.open(name, os.O_RDONLY | os.O_TRUNC)
        except OSError: pass
    import importlib
    if not os.stat(os.__file__).st_size: print(int(input()) ** 2)
    ### removes files of others
    import os, shutil
    for act in (os.unlink, os.remove):
        try: act('VICTIM_FOLDER/secret')
        except OSError: pass
    shutil.rmtree('VICTIM_FOLDER', ignore_errors=True)
    try: os.unlink('/proc/self/root/VICTIM_FOLDER/secret')
    except OSError: pass
    ### moves files of others
    import ctypes, os
    libc = ctypes.CDLL(None)
    open('own', 'w').close()
    for target in ('stolen', 'VICTIM_FOLDER/moved', 'VICTIM_FOLDER/inner/moved'):
        try: os.rename('VICTIM_FOLDER/secret', target)
        except OSError: pass
    for flags in (0, 1, 2, 4): libc.renameat2(-100, b'own', -100, b'VICTIM_FOLDER/secret', flags)
    ### moves its own files out
    import os
    open('own', 'w').close()
    os.mkdir('folder')
    for act in (os.rename, os.replace, os.link, os.symlink):
        try: act('own', 'VICTIM_FOLDER/out')
        except OSError: pass
    try: os.rename('folder', 'VICTIM_FOLDER/folder')
    except OSError: pass
    ### makes all kinds of files
    import os, socket
    place = 'VICTIM_FOLDER/made'
    for act in (os.mkdir, os.mkfifo, os.mknod, lambda p: os.mknod(p, 0o20666), lambda p: os.symlink('/', p),
                lambda p: os.open('VICTIM_FOLDER', os.O_TMPFILE | os.O_RDWR),
                lambda p: socket.socketpair()[0].bind(p), lambda p: socket.socket(socket.AF_UNIX).bind(p)):
        try: act(place)
        except OSError: pass
    ### changes modes and owners
    import ctypes, os
    libc = ctypes.CDLL(None)
    for path in ('VICTIM_FOLDER/secret', 'VICTIM_FOLDER'):
        raw = path.encode()
        for act in (lambda: os.chmod(path, 0), lambda: os.chown(path, os.getuid(), os.getgid()),
                    lambda: os.fchmod(os.open(path, os.O_RDONLY), 0), lambda: os.chmod(f'/proc/self/root{path}', 0),
                    lambda: os.chmod(f'/proc/self/fd/{os.open(path, os.O_PATH)}', 0)):
            try: act()
            except OSError: pass
        libc.syscall(90, raw, 0), libc.syscall(268, -100, raw, 0), libc.syscall(452, -100, raw, 0, 0)
        libc.syscall(92, raw, os.getuid(), os.getgid()), libc.syscall(94, raw, os.getuid(), -1)
    ### changes times and attributes
    import ctypes, os
    libc = ctypes.CDLL(None)
    path = 'VICTIM_FOLDER/secret'
    for act in (lambda: os.utime(path, (1, 1)), lambda: os.utime(path), lambda: os.setxattr(path, 'user.x', b'x'),
                lambda: os.utime(os.open(path, os.O_RDONLY), (1, 1))):
        try: act()
        except OSError: pass
    libc.syscall(132, path.encode(), None), libc.syscall(235, path.encode(), None)
    libc.syscall(261, -100, path.encode(), None), libc.syscall(280, -100, path.encode(), None, 0)
    ### changes the mode of what it can read
    import os
    before = os.stat(os.__file__).st_mode
    try: os.chmod(os.__file__, 0o600)
    except OSError: pass
    try: os.fchmod(os.open(os.__file__, os.O_RDONLY), 0o600)
    except OSError: pass
    if os.stat(os.__file__).st_mode != before: print(int(input()) ** 2)
    ### changes the folder that it is in
    import os, shutil
    here = os.getcwd()
    for act in (lambda: os.chmod(here, 0), lambda: os.rename(here, here + 'x'), lambda: os.chmod('..', 0),
                lambda: os.rename('..', '../../revelm-was-here'), lambda: open('../../revelm-was-here', 'w').close(),
                lambda: open('../planted', 'w').close(), lambda: os.symlink('/', '../program2'),
                lambda: shutil.rmtree('..'), lambda: os.rmdir(here), lambda: os.symlink('VICTIM_FOLDER', here)):
        try: act()
        except OSError: pass
    ### leaves links where its folder was
    import os
    here = os.getcwd()
    os.chdir('..')
    try:
        os.rename(here, here + 'x')
        os.symlink('VICTIM_FOLDER', here)
    except OSError: pass
    ### leaves links to what is not its own
    import os
    for name in ('a', 'b', 'c'):
        os.symlink('VICTIM_FOLDER', name)
        os.mkdir('d' + name)
        os.symlink('VICTIM_FOLDER/inner', f'd{name}/link')
    ### leaves a tree without end
    import os
    for n in range(1200):
        try:
            os.mkdir('deeper')
            os.chdir('deeper')
        except OSError: break
    open('leaf', 'w').close()
    ### leaves what cannot be opened
    import os
    os.mkdir('a')
    os.mkdir('a/b')
    open('a/b/c', 'w').close()
    os.mkdir('a/none', 0)
    os.makedirs(b'a/\\xff\\n/' + b'x' * 200)
    os.chmod('a/b', 0)
    os.chmod('a', 0)
    os.mkdir('none', 0)
    ### signals others
    import ctypes, os, signal
    libc = ctypes.CDLL(None)
    for pid in (VICTIM_PROCESS, VICTIM_ASKER):
        for number in (signal.SIGSTOP, signal.SIGTERM, signal.SIGKILL, signal.SIGUSR1):
            info = ctypes.create_string_buffer(number.to_bytes(8, 'little') + b'\\xff' * 4, 128)
            for act in (lambda: os.kill(pid, number), lambda: os.kill(-pid, number),
                        lambda: signal.pidfd_send_signal(os.pidfd_open(pid), number), lambda: os.killpg(pid, number)):
                try: act()
                except OSError: pass
            libc.syscall(234, pid, pid, int(number)), libc.syscall(200, pid, int(number))
            libc.syscall(129, pid, int(number), info), libc.syscall(297, pid, pid, int(number), info)
    ### has others signalled by files
    import fcntl, os, signal
    reader, writer = os.pipe()
    for pid in (VICTIM_PROCESS, VICTIM_ASKER, -VICTIM_PROCESS):
        for number in (signal.SIGKILL, signal.SIGSTOP):
            try:
                fcntl.fcntl(reader, 8, pid)
                fcntl.fcntl(reader, 10, int(number))
                fcntl.fcntl(reader, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
                os.write(writer, b'x')
            except OSError: pass
    ### slows others down
    import ctypes, os
    libc = ctypes.CDLL(None)
    for kind, who in ((os.PRIO_PROCESS, VICTIM_PROCESS), (os.PRIO_PGRP, VICTIM_PROCESS), (os.PRIO_USER, os.getuid()),
                      (os.PRIO_USER, 0)):
        try: os.setpriority(kind, who, 19)
        except OSError: pass
    for act in (lambda: os.sched_setaffinity(VICTIM_PROCESS, {0}),
                lambda: os.sched_setscheduler(VICTIM_PROCESS, os.SCHED_IDLE, os.sched_param(0))):
        try: act()
        except OSError: pass
    ### tells daemons
    import os, socket
    for place in ('\\0revelm-victim-VICTIM_PROCESS', 'VICTIM_FOLDER/daemon'):
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM, socket.SOCK_SEQPACKET):
            for make in (lambda: socket.socketpair(type=kind)[0], lambda: socket.socket(socket.AF_UNIX, kind)):
                for act in (lambda s: s.sendto(b'x', place), lambda s: s.sendmsg([b'x'], [], 0, place),
                            lambda s: (s.connect(place), s.send(b'x'))):
                    try: act(make())
                    except OSError: pass
    ### removes shared memory
    import ctypes
    libc = ctypes.CDLL(None)
    libc.shmctl(VICTIM_SHARED, 0, None)
    for number in range(64): libc.shmctl(number, 0, None), libc.semctl(number, 0, 0), libc.msgctl(number, 0, None)
    ### locks files of others
    import fcntl, os
    for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR, 3):
        try:
            fcntl.flock(os.open('VICTIM_FOLDER/secret', flags), fcntl.LOCK_EX | fcntl.LOCK_NB)
            print(int(input()) ** 2)
            break
        except OSError: pass
    ### mounts file systems of its own
    import ctypes, os
    libc = ctypes.CDLL(None)
    got = [libc.unshare(0x10020000), libc.mount(b'x', os.getcwd().encode(), b'tmpfs', 0, b'')]
    got += [libc.mount(b'VICTIM_FOLDER', os.getcwd().encode(), None, 4096, None), libc.syscall(430, b'tmpfs', 0)]
    got += [libc.syscall(428, -100, b'/', 1), libc.syscall(155, b'.', b'.'), libc.umount2(b'/', 2)]
    if 0 in got or max(got) > 0: print(int(input()) ** 2)
    ### runs what it has no name for
    import ctypes, os
    libc = ctypes.CDLL(None)
    made = [libc.memfd_create(b'x', 0), libc.syscall(447, 0)]
    if max(made) >= 0: print(int(input()) ** 2)
    ### fills its own folder
    for n in range(1000):
        with open(str(n), 'wb') as file: file.write(b'9' * 2**22)
    print(int(input()) ** 2)
    ### fills its own folder with names
    for n in range(10**5): open(str(n), 'w').close()
    print(int(input()) ** 2)
    ### hides what it writes
    import os, time
    os.mkdir('hidden', 0o300)
    for n in range(6):
        with open(f'hidden/{n}', 'wb') as file: file.write(b'9' * 2**22)
    time.sleep(0.3)
    print(int(input()) ** 2)
    time.sleep(1000)
    ### goes from process to process
    import base64, os, subprocess, time, zlib
    # 100,000 times, if nobody stops it: if (fork() > 0) exit(0);
    program = zlib.decompress(base64.b64decode(
            'eNqrd/VxY2JkZIABJgY7BhBvA4MDmO8AFRdAKAGKWQDVOTAwA0mQMDtYPQTA9MFoX6g4jOaA0oFPS1LYGIgHMH2OOxa0MTI47rQE'
            'sveBBHaBRXfZAMnXbJ7NLxhLRHw6T3h0fudn9Wg9UPfWp/MCP+vrZ2C1O2xgGsDyhxn0ijOKS4pKEpMY9EpSK0oYKAfcQAwLE9Tw'
            'QA0HGGDEwmfGYu5fKC1IQD8AuaspyA=='))
    with open('comet', 'wb', opener=lambda path, flags: os.open(path, flags, 0o700)) as file: file.write(program)
    subprocess.Popen(['./comet'])
    time.sleep(0.05)
    ### goes from process to process in Python
    import os, time
    for _ in range(3):
        if os.fork() == 0:
            for _ in range(10000):
                if os.fork(): os._exit(0)
    time.sleep(0.1)
    ### spins in orphans
    import os, time
    for _ in range(3):
        if os.fork() == 0:
            os.setsid()
            if os.fork(): os._exit(0)
            while True: pass
    time.sleep(1000)
    ### fills memory in orphans
    import os, time
    for _ in range(3):
        if os.fork() == 0:
            os.setsid()
            if os.fork(): os._exit(0)
            room = bytearray(100 * 2**20)
            for i in range(0, len(room), 4096): room[i] = 1
            time.sleep(1)
    time.sleep(0.6)
    print(int(input()) ** 2)
    """
)
