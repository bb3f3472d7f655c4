"""Those that bench/run peers measures, behind one interface: an engine of ours with its client, and one engine of others
in a child process of the reference environment. Standard library only."""

import contextlib
import json
import os
import subprocess

from bench_engine import Engine, Failure, on_cpus

HERE = os.path.dirname(os.path.abspath(__file__))
CAPPED_TO_AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}


class Sutra:
    """Ours: a client embeds the texts through the rings, past the cache."""

    batches = (0,)  # the engine cuts its own

    def __init__(self, arguments, precision, options, cpus):
        self.engine = Engine(arguments.bin, arguments.model, precision, ("--threads", str(len(cpus)), *options), cpus)
        self.version = self.engine.computes()
        self.workload, self.limit, self.tokens_mean = "", 0, 0

    def prepare(self, workload, _file, _batch, limit):
        self.workload, self.limit = workload, limit
        if workload != "queries":
            self.encode()

    def encode(self, vectors=""):
        """Texts per second."""
        options = ["--texts", str(self.limit)] if self.limit else []
        result = self.engine.measure(self.workload, *options, *(["--vectors", vectors] if vectors else []))
        self.tokens_mean = result["batch_tokens_mean"]
        return result["texts"] / result["seconds"]

    def one_by_one(self, count):
        result = self.engine.measure("queries", "--count", str(count))
        return result["p50_us"], result["p99_us"]

    def close(self):
        self.engine.close()


class Peer:
    """Another engine; `environment` is what it runs with beside this process's."""

    batches = (16, 32, 64, 128)

    def __init__(self, arguments, engine, environment, cpus):
        threads = str(len(cpus))
        many = {"TOKENIZERS_PARALLELISM": "true" if len(cpus) > 1 else "false", "RAYON_NUM_THREADS": threads,
                "OMP_NUM_THREADS": threads, "CUDA_VISIBLE_DEVICES": ""}
        self.log = open(os.path.join(arguments.folder, f"{engine}.log"), "a+")
        with on_cpus(cpus):
            self.process = subprocess.Popen(
                [arguments.reference, os.path.join(HERE, "peer_child.py"), engine, arguments.model, arguments.models, threads],
                env={**os.environ, **many, **environment}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=self.log, text=True)
        try:
            info = self.answer()
        except Failure:
            self.close()
            raise
        self.version, self.capability = info["version"], info["capability"]

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            self.log.seek(0)
            lines = [line for line in self.log.read().splitlines() if line.strip()]
            raise Failure(lines[-1] if lines else "exited without a word")
        return json.loads(line)

    def ask(self, **command):
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(command) + "\n")
            self.process.stdin.flush()
        return self.answer()

    def prepare(self, _workload, file, batch, limit):
        self.ask(command="prepare", texts=file, batch=batch, limit=limit)

    def encode(self, vectors=""):
        result = self.ask(command="encode", vectors=vectors)
        return result["texts"] / result["seconds"]

    def one_by_one(self, count):
        result = self.ask(command="one_by_one", count=count)
        return result["p50_us"], result["p99_us"]

    def close(self):
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()


def require_avx2_cap(arguments):
    """Fails unless torch's parts say that they keep to AVX2: ATen by its capability, oneDNN and MKL by what they print.

    MKL names no instruction set on CPUs that are not Intel's; it does not use AVX-512 there.
    """
    program = ("import torch; print('ATen', torch.backends.cpu.get_cpu_capability()); "
               "a = torch.randn(64, 384); w = torch.nn.Linear(384, 384); w(a); "
               "torch.nn.functional.conv1d(a[None], torch.randn(8, 64, 3))")
    run = subprocess.run([arguments.reference, "-c", program], env={**os.environ, **CAPPED_TO_AVX2, "ONEDNN_VERBOSE": "1",
                                                                    "MKL_VERBOSE": "1"},
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    named = [line for line in run.stdout.splitlines() if "isa:" in line or "MKL_VERBOSE oneMKL" in line]
    if "ATen AVX2" not in run.stdout or any("512" in line for line in named):
        raise Failure("the cap to AVX2 took no effect: " + "; ".join(named or [run.stdout.strip()[-200:]]))
