#!/usr/bin/env python3
"""bench/run peers: the engine end to end beside the fastest engines of others, in turns, on the same texts and cores.

  peers_bench.py --bin DIR --model DIR --reference PYTHON --models DIR [--runs N] [--only PART,...] [--engines NAME,...]
                 [--quick] [--chart FILE] [--json]
Parts: w1 (512 texts of 32 tokens), w2 (256 of 128), w4 (the case study's mix), w3 (one query of 8 to 11 tokens at a time),
each on one core; two (w4 and w3 on two cores); avx2 (w1 with everything capped to AVX2). Standard library only.
"""

import argparse
import contextlib
import json
import math
import operator
import os
import signal
import subprocess
import sys
import tempfile
from array import array

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import machine  # noqa: E402
import peers_report  # noqa: E402
from bench_engine import Failure  # noqa: E402
from peer_process import CAPPED_TO_AVX2, Peer, Sutra, require_avx2_cap  # noqa: E402

WORKLOADS = {"w1": "tokens32", "w2": "tokens128", "w4": "mix", "w3": "queries"}
PARTS = ("w1", "w2", "w4", "w3", "two", "avx2")
REFERENCE = "st-fp32"  # its vectors are what every cosine compares with
OURS = {"sutra-bf16": ("bf16", ()), "sutra-int8": ("int8", ())}
OURS_AVX2 = {"sutra-avx2-fp32": ("fp32", ("--cpu-isa", "avx2")), "sutra-avx2-int8": ("int8", ("--cpu-isa", "avx_vnni"))}
PEERS = {
    REFERENCE: (REFERENCE, {}), "st-bf16": ("st-bf16", {}), "onnx-fp32": ("onnx-fp32", {}), "onnx-int8": ("onnx-int8", {}),
    "openvino-bf16": ("openvino-bf16", {}), "openvino-int8": ("openvino-int8", {}),
    "ctranslate2-int8": ("ctranslate2-int8", {}),
    "ctranslate2-int8-avx512": ("ctranslate2-int8", {"CT2_FORCE_CPU_ISA": "AVX512"}),
}
SEARCH_TEXTS = 128  # of a pass that only looks for the best batch size


def say(text):
    print(text, file=sys.stderr, flush=True)


def read_vectors(file, width):
    values = array("f")
    with open(file, "rb") as vectors:
        values.frombytes(vectors.read())
    return [values[i:i + width] for i in range(0, len(values), width)]


def cosine_min(file, reference, width):
    def dot(a, b):
        return sum(map(operator.mul, a, b))
    pairs = list(zip(read_vectors(file, width), read_vectors(reference, width), strict=True))
    return min(dot(a, b) / math.sqrt(dot(a, a) * dot(b, b)) for a, b in pairs)


class Session:
    """Several engines on the same cores, each in its own process, measured in turns. One that fails is left out, and the
    reason is kept."""

    def __init__(self, arguments, cpus, results):
        self.arguments, self.cpus, self.results = arguments, cpus, results
        self.running = {}

    def start(self, ours, peers):
        for name, (precision, options) in ours.items():
            self.attempt(name, lambda p=precision, o=options: Sutra(self.arguments, p, o, self.cpus))
        for name, (engine, environment) in peers.items():
            self.attempt(name, lambda e=engine, v=environment: Peer(self.arguments, e, v, self.cpus))

    def attempt(self, name, make):
        wanted = self.arguments.engines
        if wanted and name not in wanted and name != REFERENCE:
            return
        say(f"  starting {name}")
        try:
            self.running[name] = make()
            self.results.versions[name] = self.running[name].version
        except Failure as failure:
            self.drop(name, failure)

    def drop(self, name, failure):
        self.results.reasons[name] = " ".join(str(failure).split("\n")[:2])
        say(f"  without {name}: {failure}")
        if name in self.running:
            self.running.pop(name).close()

    def close(self):
        for engine in self.running.values():
            engine.close()

    def guarded(self, name, call):
        """The value of call(engine); None when it fails and the engine is dropped."""
        if name not in self.running:
            return None
        try:
            return call(self.running[name])
        except Failure as failure:
            self.drop(name, failure)
            return None

    def turns(self, runs):
        for run in range(runs):
            yield from (list(self.running) if run % 2 == 0 else list(reversed(self.running)))

    def best_batch(self, name, workload, batches):
        """The batch size with the best rate on the first texts."""
        engine = self.running[name]
        if len(batches) == 1:
            return batches[0]
        rates = {}
        for batch in batches:
            engine.prepare(workload, self.arguments.files[workload], batch, SEARCH_TEXTS)
            rates[batch] = max(engine.encode() for _ in range(2))
        return max(rates, key=rates.get)

    def throughput(self, part, workload, batches=None):
        """One row of results per engine. `batches`: engine -> sizes to choose from, beside its own."""
        limit = self.arguments.texts
        rows = {}
        for name in list(self.running):
            choice = (batches or {}).get(name) or self.running[name].batches
            if self.arguments.quick:
                choice = choice[-1:] if len(choice) == 1 else (32,)
            batch = self.guarded(name, lambda _, n=name, c=choice: self.best_batch(n, workload, c))
            if batch is None:
                continue
            self.guarded(name, lambda e, b=batch: e.prepare(workload, self.arguments.files[workload], b, limit))
            rows[name] = self.results.row(part, name)
            rows[name]["batch"] = batch
        for name in self.turns(self.arguments.runs):
            rate = self.guarded(name, lambda e: e.encode())
            if rate is not None:
                rows[name]["rates"].append(rate)
        files = {}
        for name in list(self.running):
            files[name] = os.path.join(self.arguments.folder, f"{name}.f32")
            self.guarded(name, lambda e, n=name: e.encode(files[n]))
            if isinstance(self.running.get(name), Sutra):
                rows[name]["batch_tokens"] = self.running[name].tokens_mean
        for name in self.running:
            if REFERENCE in files and REFERENCE in self.running:
                rows[name]["cosine"] = cosine_min(files[name], files[REFERENCE], self.arguments.width)
            rate = machine.spread(rows[name]["rates"])["median"]
            say(f"  {part} {name}: {rate:.0f} texts/s, batch {rows[name]['batch'] or 'own'}, "
                f"cosine {rows[name]['cosine'] or math.nan:.5f}")

    def latency(self, part):
        for name in list(self.running):
            self.guarded(name, lambda e: e.prepare("queries", self.arguments.files["queries"], 1, self.arguments.queries))
        for name in self.turns(self.arguments.runs):
            result = self.guarded(name, lambda e: e.one_by_one(self.arguments.queries))
            if result is not None:
                self.results.row(part, name)["p50_us"].append(result[0])
                self.results.row(part, name)["p99_us"].append(result[1])


def dump_texts(arguments):
    arguments.files = {}
    for workload in WORKLOADS.values():
        file = arguments.files[workload] = os.path.join(arguments.folder, workload + ".jsonl")
        with open(file, "w") as out:
            subprocess.run([os.path.join(arguments.bin, "end_to_end_bench"), "--dump", workload], stdout=out, check=True)
    os.makedirs(arguments.models, exist_ok=True)
    with open(os.path.join(arguments.models, "calibration.jsonl"), "w") as calibration:  # what suits the peers best
        for workload in ("mix", "tokens32", "tokens128"):
            with open(arguments.files[workload]) as texts:
                calibration.writelines(texts.readlines()[:100])


@contextlib.contextmanager
def session(arguments, cpus, results, ours, peers):
    started = Session(arguments, cpus, results)
    try:
        started.start(ours, peers)
        yield started
    finally:
        started.close()


def measure(arguments, results):
    allowed = sorted(os.sched_getaffinity(0))
    one = {allowed[-1]}
    if {"w1", "w2", "w4", "w3"} & set(arguments.only):
        say("one core")
        with session(arguments, one, results, OURS, PEERS) as engines:
            for part in ("w1", "w2", "w4"):
                if part in arguments.only:
                    engines.throughput(part, WORKLOADS[part])
            if "w3" in arguments.only:
                engines.latency("w3")
    if "two" in arguments.only and len(allowed) < 2:
        results.reasons["two cores"] = "this process may use one core only"
    elif "two" in arguments.only:
        say("two cores")
        two = {allowed[0], allowed[-1]}
        with session(arguments, two, results, OURS, {REFERENCE: PEERS[REFERENCE]}) as engines:
            engines.throughput("w4_two", "mix", batches={REFERENCE: (32,)})
        with session(arguments, two, results, OURS, PEERS) as engines:
            engines.latency("w3_two")
    if "avx2" in arguments.only:
        say("one core, capped to AVX2")
        try:
            require_avx2_cap(arguments)
        except Failure as failure:
            results.reasons["avx2"] = str(failure)
            say(f"  {failure}")
            return
        with session(arguments, one, results, OURS_AVX2, {REFERENCE: (REFERENCE, CAPPED_TO_AVX2)}) as engines:
            engines.throughput("w1_avx2", WORKLOADS["w1"])


def parse():
    parser = argparse.ArgumentParser(description="The engine beside the fastest engines of others.")
    parser.add_argument("--bin", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--reference", required=True, help="python of the reference environment")
    parser.add_argument("--models", required=True, help="folder for the model in the formats of the others")
    parser.add_argument("--runs", type=int, default=0, help="turns (default 5; with --quick 1)")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, comma-separated: " + ", ".join(PARTS))
    parser.add_argument("--engines", default="", help=f"engines, comma-separated: {', '.join([*OURS, *OURS_AVX2, *PEERS])}")
    parser.add_argument("--quick", action="store_true", help="64 texts, batches of 32, few queries: does everything run?")
    parser.add_argument("--chart", help="draw the figures into this PNG file")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    arguments.only = arguments.only.split(",")
    arguments.engines = arguments.engines.split(",") if arguments.engines else []
    if not set(arguments.only) <= set(PARTS) or not set(arguments.engines) <= {*OURS, *OURS_AVX2, *PEERS}:
        parser.error("unknown part or engine")
    arguments.runs = arguments.runs or (1 if arguments.quick else 5)
    arguments.texts = 64 if arguments.quick else 0
    arguments.queries = 50 if arguments.quick else 300
    with open(os.path.join(arguments.model, "config.json")) as file:
        arguments.width = json.load(file)["hidden_size"]
    return arguments


def main():
    arguments = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended, too
    info = machine.describe(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
    results = peers_report.Results()
    with tempfile.TemporaryDirectory(prefix="sutra-peers-") as folder:
        arguments.folder = folder
        dump_texts(arguments)
        measure(arguments, results)
    peers_report.table(info, results, arguments.runs)
    figures = {"benchmark": "peers", **{f"machine_{k}": v for k, v in info.items()}, "runs": arguments.runs,
               "quick": arguments.quick, **peers_report.figures(results)}
    if arguments.chart:
        chart = os.path.join(os.path.dirname(os.path.abspath(__file__)), "peers_chart.py")
        drawn = subprocess.run([arguments.reference, chart, arguments.chart], input=json.dumps(figures), text=True, check=False)
        if drawn.returncode != 0:
            say("peers_bench: no chart; it needs matplotlib in the reference environment")
    if arguments.json:
        print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
