"""The process that runs one answer: `answer_checks.py` starts it as a program of its own.

It reads one line of JSON, {code, checks, secret, seconds, bytes}, and answers the secret, on the pipe that was its
standard output, once the code has run and every check held. It ends at the first thing that the code isn't there for:
a process, a socket, a file that is opened for writing or removed, foreign machine code.
"""

import json
import os
import resource
import sys

# What Python code may do by the names of Python's audit events; "open" is for reading alone.
HARMLESS = {
    "array.__new__", "builtins.id", "code.__new__", "compile", "exec", "function.__new__", "gc.get_objects", "import",
    "marshal.load", "marshal.loads", "object.__getattr__", "object.__setattr__", "object.__delattr__", "open",
    "os.listdir", "os.scandir", "re.compile", "sys._getframe", "sys.setrecursionlimit", "time.sleep",
}  # fmt: skip
NOT_TO_IMPORT = {"_ctypes", "_posixsubprocess", "_socket", "_multiprocessing"}
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
        resource.setrlimit(limit, (most, most))
    leave = os._exit

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
    names: dict[str, object] = {"__name__": "answer"}
    exec(order["code"], names)
    for check in order["checks"]:
        if not eval(check, names):
            leave(FAILED)
    os.write(answer, order["secret"].encode())


if __name__ == "__main__":
    main()
