"""The processes that the comparison starts, so that none of them outlives it."""

import os
import signal
import socket
import subprocess
import time


class Children:
    """Starts processes and ends them by their id, each with all processes below it."""

    def __init__(self, ports):
        self.running = []
        self.first_port, self.last_port = ports
        self.next_port = self.first_port

    def start(self, command, environment, log):
        # A session of its own makes a process group, which nothing else is in.
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True,
        )
        self.running.append(process)
        return process

    def stop(self, process, patience=3):
        """A process keeps its id until it is waited for, so its group is killed before that."""
        if process.returncode is None:
            if not ended(process):
                process.send_signal(signal.SIGTERM)
                wait_until(lambda: ended(process), patience)
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()
        if process in self.running:
            self.running.remove(process)

    def stop_all(self):
        for process in list(reversed(self.running)):
            self.stop(process, patience=0.5)

    def call(self, command, timeout, text=None, environment=None, directory=None):
        """Runs a command to its end: its status, output and errors. A command that takes too long
        is ended."""
        process = subprocess.Popen(
            command, env=environment, cwd=directory, text=True, start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        self.running.append(process)
        try:
            output, errors = process.communicate(text, timeout)
        except subprocess.TimeoutExpired:
            return None, "", f"it took longer than {timeout:.0f} s"
        finally:
            self.stop(process, patience=0)
        return process.returncode, output, errors

    def port(self):
        """A free port of the range. Each call takes the next one, so that connections that are
        still closing do not meet a new server."""
        for _ in range(self.last_port - self.first_port + 1):
            port = self.next_port
            self.next_port = self.first_port if port == self.last_port else port + 1
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", port))
                    return port
                except OSError:
                    continue
        raise RuntimeError("no port of --ports is free")


def ended(process):
    """Whether a process has ended, without waiting for it."""
    options = os.WEXITED | os.WNOHANG | os.WNOWAIT
    return process.returncode is not None or os.waitid(os.P_PID, process.pid, options) is not None


def end_on_signals():
    """Makes a termination an exception, so that every `finally` runs; once, so that they all run to
    their end."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def end(number, _frame):
        for later in numbers:
            signal.signal(later, signal.SIG_IGN)
        raise KeyboardInterrupt(f"signal {number}")

    for number in numbers:
        signal.signal(number, end)


def wait_until(ready, seconds):
    """Whether something became true in time."""
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True
