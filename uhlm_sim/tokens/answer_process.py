"""The process that runs one answer: `answer_checks.py` starts it as a program of its own.

It reads one line of JSON, {code, checks, secret, seconds, bytes}, and answers the secret, on the pipe that was its
standard output, once the code has run and every check held. It ends at the first thing that the code isn't there for:
a process, a socket, a file that is made, opened for writing or removed, foreign machine code.
"""

import _posixsubprocess
import json
import os
import posix
import resource
import sys
import types

# What Python code may do by the names of Python's audit events; "open" is for reading alone.
HARMLESS = {
    "_thread.start_joinable_thread", "_thread.start_new_thread", "array.__new__", "builtins.id", "code.__new__",
    "compile", "exec", "function.__new__", "gc.get_objects", "import", "marshal.load", "marshal.loads",
    "object.__delattr__", "object.__getattr__", "object.__setattr__", "open", "os.listdir", "os.putenv", "os.scandir",
    "os.unsetenv", "re.compile", "sys._getframe", "sys._getframemodulename", "sys.setrecursionlimit",
    "sys.unraisablehook", "time.sleep",
}  # fmt: skip
NOT_TO_IMPORT = {"_ctypes", "_dbm", "_gdbm", "_multiprocessing", "_posixshmem", "_tkinter"}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
FAILED = 3  # exit status


def main() -> None:
    order = json.loads(sys.stdin.readline())
    answer = os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    for limit, most in (
        (resource.RLIMIT_CPU, order["seconds"]),
        (resource.RLIMIT_AS, order["bytes"]),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 32),
    ):
        _, hard = resource.getrlimit(limit)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(limit, (most, most))
    leave = os._exit

    def refuse(*_: object, **__: object) -> None:
        leave(FAILED)

    # These have no audit event.
    for module, name in ((_posixsubprocess, "fork_exec"), *((m, n) for m in (os, posix) for n in ("mkfifo", "mknod"))):
        setattr(module, name, refuse)

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        refused = event not in HARMLESS
        if event == "open":
            _, mode, flags = arguments
            refused = bool(int(flags or 0) & WRITES) or any(letter in str(mode) for letter in "wax+")  # type: ignore[call-overload]
        elif event == "import":
            refused = str(arguments[0]).partition(".")[0] in NOT_TO_IMPORT
        if refused:
            leave(FAILED)

    sys.addaudithook(watch)
    module = sys.modules["answer"] = types.ModuleType("answer")
    exec(order["code"], module.__dict__)
    for check in order["checks"]:
        if not eval(check, module.__dict__):
            leave(FAILED)
    os.write(answer, order["secret"].encode())
    leave(0)


if __name__ == "__main__":
    main()
