"""Children without the seconds of their imports: one process has done them, and each child is forked from it. It is
the product's own from its `main` on, in a process of its own behind pipes of its own. What is tested of the start
itself, of what the libraries read when they are loaded, or of other thread counts takes a real one.

Run as a program, this is that process. It takes one request after another over the socket that is its standard input.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time

THREADS = 1


class Nursery:
    """The process that forks. `environment`: that of its children, but for their HOME."""

    def __init__(self, environment):
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._process = subprocess.Popen([sys.executable, __file__], stdin=theirs, env=environment)
        theirs.close()

    def ask(self, question, files=()):
        socket.send_fds(self._socket, [json.dumps(question).encode()], files)
        answer = self._socket.recv(1 << 16)
        if not answer:
            raise EOFError(f"what forks children ended with {self._process.wait(10)}")
        return json.loads(answer)

    def close(self):
        self._socket.close()
        self._process.wait(10)


class ForkedProcess:
    """A child, with what `Child` uses of a `subprocess.Popen`."""

    def __init__(self, nursery, errors, home):
        self._nursery = nursery
        self.returncode = None
        theirs_in, ours_in = os.pipe()
        ours_out, theirs_out = os.pipe()
        self.pid = nursery.ask({"fork": str(home)}, [theirs_in, theirs_out, errors.fileno()])
        for theirs in (theirs_in, theirs_out):
            os.close(theirs)
        self.stdin, self.stdout = os.fdopen(ours_in, "wb"), os.fdopen(ours_out, "rb")

    def wait(self, timeout=60):
        """Its exit code, as Popen's. Raises subprocess.TimeoutExpired."""
        end = time.monotonic() + timeout
        while self.returncode is None:
            self.returncode = self._nursery.ask({"wait": self.pid})
            if self.returncode is None:
                if time.monotonic() > end:
                    raise subprocess.TimeoutExpired("a forked child", timeout)
                time.sleep(0.01)
        return self.returncode

    def send_signal(self, number):
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)


def serve(connection):
    """Answers until nobody asks any more."""
    while True:
        data, files, _, _ = socket.recv_fds(connection, 1 << 16, 3)
        if not data:
            return
        question = json.loads(data)
        if "fork" in question:
            pid = os.fork()
            if pid == 0:
                become_child(connection, files, question["fork"])
            for file in files:
                os.close(file)
            answer = pid
        else:
            ended, status = os.waitpid(question["wait"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if ended else None
        connection.send(json.dumps(answer).encode())


def become_child(connection, files, home):
    """Goes on as `python -m darkroom`, with these standard streams. Never returns."""
    from darkroom.__main__ import main

    connection.close()
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.environ["HOME"] = home
    try:
        main()
    finally:
        os._exit(70)


if __name__ == "__main__":
    from darkroom.backend import TorchBackend

    asking = socket.socket(fileno=os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    TorchBackend().load({"threads": THREADS, "roots": {}, "device": "cpu"}, lambda done, count: None)
    serve(asking)
