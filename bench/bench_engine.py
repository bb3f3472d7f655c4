"""An engine under measurement, on a socket, a data directory and cores of its own. Standard library only."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time


class Failure(Exception):
    pass


@contextlib.contextmanager
def on_cpus(cpus):
    """What is started inside runs on these CPUs (a set; None: as before)."""
    before = os.sched_getaffinity(0)
    if cpus:
        os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def last_json(command):
    run = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                         check=False)
    if run.returncode != 0:
        raise Failure(f"{' '.join(command)} exited with {run.returncode}: {run.stderr.strip()[-500:]}")
    return json.loads(run.stdout.strip().splitlines()[-1])


class Engine:
    """One engine and its clients, all on the same CPUs; `start_s` is exec to first vector."""

    def __init__(self, bin_dir, model, precision, options=(), cpus=None):
        self.bin = bin_dir
        self.precision = precision
        self.cpus = cpus
        self.folder = tempfile.mkdtemp(prefix="sutra-bench-")
        self.socket = os.path.join(self.folder, "engine.sock")
        self.log = open(os.path.join(self.folder, "engine.log"), "w+")
        begin = time.monotonic()
        with on_cpus(cpus):
            self.process = subprocess.Popen(
                [os.path.join(bin_dir, "sutra-engine"), "--model", model, "--socket", self.socket, "--data",
                 os.path.join(self.folder, "data"), "--precision", precision, *options],
                stdin=subprocess.DEVNULL, stdout=self.log, stderr=subprocess.STDOUT)
        try:
            self.start_s = self.first_vector() - begin
        except BaseException as failure:
            tail = self.log_text()[-1500:]
            self.close()
            if isinstance(failure, Failure):
                raise Failure(f"{failure}\n{tail}") from failure
            raise

    def first_vector(self):
        """The monotonic time of the first vector; fails at once when the engine exits instead."""
        with on_cpus(self.cpus):
            client = subprocess.Popen(self.client_command("first"), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                      stderr=subprocess.PIPE, text=True)
        while client.poll() is None:
            if self.process.poll() is not None:
                client.kill()
                client.communicate()
                raise Failure(f"the engine exited with {self.process.returncode}")
            with contextlib.suppress(subprocess.TimeoutExpired):
                client.wait(timeout=0.1)
        out, errors = client.communicate()
        if client.returncode != 0:
            raise Failure(f"no first vector: {errors.strip()[-500:]}")
        return json.loads(out.strip().splitlines()[-1])["monotonic_s"]

    def client_command(self, workload, *options):
        return [os.path.join(self.bin, "end_to_end_bench"), "--socket", self.socket, "--workload", workload, *options]

    def measure(self, workload, *options):
        with on_cpus(self.cpus):
            return last_json(self.client_command(workload, *options))

    def case_study(self):
        return last_json([os.path.join(self.bin, "sutra-casestudy"), "--socket", self.socket, "--json"])

    def log_text(self):
        self.log.seek(0)
        return self.log.read()

    def computes(self):
        """What the log says of precision, device and kernels: "bf16 on cpu (avx512_bf16)"."""
        found = re.search(r"tokens at most, (.* on .*\))", self.log_text())
        return found.group(1) if found else ""

    def pss_bytes(self):
        """Memory of the process, shared pages divided among those that map them."""
        with open(f"/proc/{self.process.pid}/smaps_rollup") as file:
            return 1024 * int(re.search(r"^Pss:\s+(\d+) kB", file.read(), re.M).group(1))

    def close(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.log.close()
        subprocess.run([os.path.join(self.bin, "sutra-stat"), "--socket", self.socket, "--remove"], check=False,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        shutil.rmtree(self.folder, ignore_errors=True)


def weight_bytes(model, precision):
    """What a model must keep in memory as the CPU kernels hold it: the table of words in fp32, the linears packed.

    Scales, biases, norms and position rows are small and count as overhead.
    """
    with open(os.path.join(model, "config.json")) as file:
        config = json.load(file)
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    linears = config["num_hidden_layers"] * (4 * hidden * hidden + 2 * hidden * inner)
    return 4 * config["vocab_size"] * hidden + linears * {"fp32": 4, "bf16": 2, "int8": 1}[precision]
