"""Forms of a script: PROGRAM stands for the text of the reference, INDENTED for the same in a function."""

from benchmarks.code_forms import sections

SCRIPTS = sections(
    r"""
## as main
def main():
INDENTED
    pass
if __name__ == '__main__':
    main()
## leaves at its end
PROGRAM
import sys
sys.exit(0)
## leaves with exit
PROGRAM
exit()
## leaves with a status
PROGRAM
import sys
sys.exit(1)
## fails at its end
PROGRAM
raise ValueError
## lines of stdin
import sys
input = lambda *_: sys.stdin.readline().rstrip('\n')
PROGRAM
## bytes of stdin
import sys
_lines = iter(sys.stdin.buffer.read().decode().splitlines())
input = lambda *_: next(_lines)
PROGRAM
## open(0)
_lines = iter(open(0).read().split('\n'))
input = lambda *_: next(_lines)
PROGRAM
## os.read
import os
_lines = iter(os.read(0, 10**7).decode().split('\n'))
input = lambda *_: next(_lines)
PROGRAM
## asks
_input = input
input = lambda *_: _input('')
PROGRAM
## in a thread
import sys, threading
sys.setrecursionlimit(10**6)
threading.stack_size(2**26)
def main():
INDENTED
    pass
t = threading.Thread(target=main)
t.start()
t.join()
## deep
import sys
sys.setrecursionlimit(10**6)
def h(n): return 0 if n == 0 else h(n - 1)
h(30000)
PROGRAM
## blanks behind
_print = print
def print(*a, end='\n', **k): _print(*a, end=' ' + end, **k)
PROGRAM
## lines of Windows
_print = print
def print(*a, end='\n', **k): _print(*a, end=end.replace('\n', '\r\n'), **k)
PROGRAM
## blank lines behind
PROGRAM
print()
print()
## blank line in front
print()
PROGRAM
## blank in front
print(' ', end='')
PROGRAM
## through bytes
import sys
def print(*a, sep=' ', end='\n', **k): sys.stdout.buffer.write((sep.join(map(str, a)) + end).encode())
PROGRAM
## through write
import sys
def print(*a, sep=' ', end='\n', **k): sys.stdout.write(sep.join(map(str, a)) + end)
PROGRAM
## collected
import sys
_all = []
def print(*a, sep=' ', end='\n', **k): _all.append(sep.join(map(str, a)) + end)
PROGRAM
sys.stdout.write(''.join(_all))
## by an exit function
import atexit
_all = []
_print = print
def print(*a, sep=' ', end='\n', **k): _all.append(sep.join(map(str, a)) + end)
atexit.register(lambda: _print(''.join(_all), end=''))
PROGRAM
## to the error stream
import sys
sys.stderr.write('x' * 100000)
PROGRAM
## large output
print('x' * 3000000)
PROGRAM
## one more line
PROGRAM
print('done')
## no last newline
import sys
_all = []
def print(*a, sep=' ', end='\n', **k): _all.append(sep.join(map(str, a)) + end)
PROGRAM
sys.stdout.write(''.join(_all).rstrip('\n'))
## names of builtins
list_ = 1
PROGRAM
"""
)
