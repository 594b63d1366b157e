# SPDX-License-Identifier: Apache-2.0
"""Fresh Python processes in a fraction of the time: copies of one process that has imported the libraries.

PyTorch takes seconds to import, and few tests of a process of its own are about that. So this file is a program too:
it imports what it is told, none of it ours, and becomes a copy of itself for each program that it is asked to run.
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

# What lies below Transformers. It stays out itself: it reads the environment when it is imported.
BELOW_TRANSFORMERS = (
    *("torch", "torch.distributed.tensor", "torch._dynamo", "scipy.optimize"),
    *("PIL.Image", "regex", "safetensors.torch", "tokenizers", "yaml"),
)
# What the command imports before it needs a library.
BELOW_COMMANDS = ("dataclasses", "inspect", "pathlib", "sysconfig", "urllib.request", "ssl")


@cache
def _start(libraries: tuple[str, ...]) -> subprocess.Popen[str]:
    """Start the process that others are copies of; it ends with the tests."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, __file__, *libraries]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, env=environment | {"OMP_NUM_THREADS": "1"}, **pipes)
    atexit.register(process.communicate)
    return process


def launch(
    words: list[str], *, environment: dict[str, str], cwd: Path, first: str = "", libraries: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run `python WORDS` in a process that has imported libraries, and what they need, already.

    Args:
        words: A program as Python takes it: `-c` and its text, `-m` and a module, or a file; then its own words.
        environment: All of its environment; of Python's own variables it heeds `PYTHONPATH`.
        cwd: Where it runs.
        first: Python that it runs before.
        libraries: Modules that it finds imported.
    """
    with tempfile.TemporaryDirectory() as folder:
        outputs = [os.path.join(folder, name) for name in ("stdout", "stderr")]
        order = {"words": [str(word) for word in words], "environment": environment, "cwd": str(cwd)}
        line = json.dumps(order | {"first": first, "outputs": outputs}) + "\n"
        if sys.platform == "linux":
            server = _start(libraries)
            server.stdin.write(line)
            server.stdin.flush()
            code = int(server.stdout.readline())
        else:  # nothing to copy a process with, or not safely
            code = subprocess.run([sys.executable, __file__, *libraries], input=line, text=True).returncode
        texts = [Path(path).read_text() if os.path.exists(path) else "" for path in outputs]
    return subprocess.CompletedProcess(words, code, *texts)


def _take_order() -> dict[str, Any] | None:
    """Return the order of one program, in the process that carries it out; None in the other one, at its end."""
    for line in sys.stdin:
        if sys.platform != "linux":
            return json.loads(line)
        process = os.fork()
        if not process:
            return json.loads(line)
        _, status = os.waitpid(process, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
    return None


def _carry_out(order: dict[str, Any]) -> None:
    """Become the program that is asked for."""
    os.environ.clear()
    os.environ.update(order["environment"])
    os.chdir(order["cwd"])
    writing = os.O_WRONLY | os.O_CREAT
    for number, path in enumerate((os.devnull, *order["outputs"])):
        source = os.open(path, writing if number else os.O_RDONLY)
        os.dup2(source, number)
        os.close(source)
    if hasattr(signal, "alarm"):
        signal.alarm(600)  # no test waits for longer
    program, *words = order["words"]
    sys.orig_argv = [sys.executable, program, *words]
    sys.path[:1] = [order["cwd"] if program in ("-c", "-m") else os.path.dirname(os.path.abspath(program))]
    sys.path[1:1] = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    exec(order["first"], {})
    if program == "-c":
        text, *words = words
        sys.argv, sys.modules["__main__"] = ["-c", *words], ModuleType("__main__")
        exec(compile(text, "<string>", "exec"), vars(sys.modules["__main__"]))
    elif program == "-m":
        name, *words = words
        sys.argv = ["-m", *words]
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    else:
        sys.argv = [program, *words]
        runpy.run_path(program, run_name="__main__")


if __name__ == "__main__":
    gc.disable()  # what is imported stays: nothing of it is worth looking through
    for library in sys.argv[1:]:
        with suppress(ImportError):  # of the ones that may be absent, a program sees that itself
            importlib.import_module(library)
    gc.freeze()
    gc.enable()
    taken = _take_order()
    if taken is not None:
        _carry_out(taken)
