#!/usr/bin/env python3
"""bench/run engine: a real engine and sentence-transformers' default, in turn, on the same texts and cores.

  engine_bench.py --bin DIR --model DIR --reference PYTHON [--runs N] [--precision fp32,bf16]
                  [--only throughput,cores,start] [--json]
For every precision an engine is started on a private socket with an empty cache. Throughput passes skip the cache;
engine and reference take turns, and the order within a turn changes from run to run. Standard library only.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import machine  # noqa: E402
from bench_engine import Engine, Failure, weight_bytes  # noqa: E402

WORKLOADS = ("mix", "tokens32", "tokens128")
STAGES = ("take", "tokenise", "queue", "compute", "publish")


class Reference:
    def __init__(self, python, model):
        script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "reference_sentence_transformers.py")
        self.process = subprocess.Popen([python, script, model], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL, text=True)
        self.info = self.answer()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise Failure("the reference exited; try: tools/setup/fetch_deps --reference-venv")
        return json.loads(line)

    def measure(self, texts):
        self.process.stdin.write(json.dumps({"texts": texts}) + "\n")
        self.process.stdin.flush()
        return self.answer()

    def close(self):
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        self.process.wait()


def say(text):
    print(text, file=sys.stderr, flush=True)


def start_engine(arguments, precision, *options, cpus=None):
    return Engine(arguments.bin, arguments.model, precision, (*arguments.engine_option, *options), cpus)


def dump_texts(arguments, folder):
    files = {}
    for workload in WORKLOADS:
        files[workload] = os.path.join(folder, workload + ".jsonl")
        with open(files[workload], "w") as out:
            subprocess.run([os.path.join(arguments.bin, "end_to_end_bench"), "--dump", workload], stdout=out, check=True)
    return files


def throughput(arguments, engine, reference, files, figures):
    """Rates of both, alternating; the first pass of each warms up and does not count."""
    for workload in WORKLOADS:
        passes = {"engine": [], "reference": []}
        measure = {"engine": lambda w=workload: engine.measure(w)}
        if reference is not None:
            measure["reference"] = lambda w=workload: reference.measure(files[w])
        for run in range(arguments.runs + 1):
            order = list(measure) if run % 2 == 0 else list(reversed(measure))
            for who in order:
                result = measure[who]()
                if run > 0:
                    passes[who].append(result)
        say(f"  {workload}: " + ", ".join(
            f"{who} {machine.spread([p['texts'] / p['seconds'] for p in passes[who]])['median']:.0f} texts/s"
            for who in measure))
        medians = {}
        for who in measure:
            if who == "reference" and engine.precision != "fp32" and f"{workload}_reference_texts_per_s" in figures:
                key = f"{workload}_reference_beside_{engine.precision}"
            else:
                key = f"{workload}_{'reference' if who == 'reference' else engine.precision}"
            rate = machine.spread([p["texts"] / p["seconds"] for p in passes[who]])
            medians[who] = rate["median"]
            figures[f"{key}_texts_per_s"] = rate["median"]
            figures[f"{key}_texts_per_s_mad"] = rate["mad"]
            figures[f"{key}_tokens_per_s"] = machine.spread([p["tokens"] / p["seconds"] for p in passes[who]])["median"]
        if reference is not None:
            figures[f"{workload}_{engine.precision}_over_reference"] = medians["engine"] / medians["reference"]
            engine_tokens, reference_tokens = passes["engine"][0]["tokens"], passes["reference"][0]["tokens"]
            if engine_tokens != reference_tokens:
                raise Failure(f"{workload}: the engine counts {engine_tokens} tokens, the reference {reference_tokens}")
        figures[f"{workload}_{engine.precision}_batch_tokens_mean"] = passes["engine"][-1]["batch_tokens_mean"]
        if workload == "mix":
            for stage in STAGES:
                figures[f"mix_{engine.precision}_stage_share_{stage}"] = \
                    passes["engine"][-1]["stage_shares"][stage]


def latency(arguments, engine, figures):
    for workload, name in (("single", "single_miss"), ("hit", "hit")):
        runs = [engine.measure(workload, "--count", "300" if workload == "single" else "20000")
                for _ in range(arguments.runs)]
        for part in ("p50", "p99"):
            figures[f"{name}_{engine.precision}_{part}_us"] = machine.spread([r[f"{part}_us"] for r in runs])["median"]


def case_study(arguments, precision, figures):
    """Every cold pass needs an empty cache: a new engine each."""
    cold, warm, start, hit_rate = [], [], [], 0.0
    for _ in range(arguments.runs):
        engine = start_engine(arguments, precision)
        try:
            study = engine.case_study()
        finally:
            engine.close()
        start.append(engine.start_s)
        cold.append(study["cold"]["wall_s"])
        warm.append(study["warm"]["wall_s"])
        hit_rate = study["cold"]["hit_rate"]
    for name, values in (("casestudy_cold_s", cold), ("casestudy_warm_s", warm), ("start_to_first_vector_s", start)):
        where, _, unit = name.rpartition("_")
        figures[f"{where}_{precision}_{unit}"] = machine.spread(values)["median"]
        figures[f"{where}_{precision}_{unit}_max"] = max(values)
    figures[f"casestudy_cold_{precision}_hit_rate"] = hit_rate


def start_and_memory(arguments, figures):
    """Start and size of an engine with the default precision. The files of the model are read once before, so that
    they are in the page cache; memory is looked at after a pass of every workload."""
    for name in os.listdir(arguments.model):
        with contextlib.suppress(OSError), open(os.path.join(arguments.model, name), "rb") as file:
            while file.read(1 << 22):
                pass
    start, resident = [], []
    for run in range(max(arguments.runs, 5)):
        engine = start_engine(arguments, "auto")
        try:
            start.append(engine.start_s)
            if run == 0:
                for workload in WORKLOADS:
                    engine.measure(workload)
                precision = engine.computes().split(" ")[0]
                resident = [engine.pss_bytes() / 2**20, weight_bytes(arguments.model, precision) / 2**20]
        finally:
            engine.close()
    figures["start_to_first_vector_s"] = machine.spread(start)["median"]
    figures["start_to_first_vector_s_mad"] = machine.spread(start)["mad"]
    figures["resident_mib"] = resident[0] - resident[1]
    figures["resident_all_mib"], figures["resident_weights_mib"] = resident


def cores(arguments, figures):
    """Throughput with two threads on two cores over one thread, on one core and on the same two, in turns."""
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        figures["two_over_one"] = figures["two_threads_over_one"] = None
        say("  two_over_one needs two cores")
        return
    two = {allowed[0], allowed[-1]}
    setups = {"one": ("1", {allowed[-1]}), "one_of_two": ("1", two), "two": ("2", two)}
    with contextlib.ExitStack() as started:
        engines = {}
        for name, (threads, cpus) in setups.items():
            engines[name] = start_engine(arguments, "auto", "--threads", threads, cpus=cpus)
            started.callback(engines[name].close)
        rates, client = {name: [] for name in setups}, []
        for run in range(arguments.runs + 1):
            for name in (list(setups) if run % 2 == 0 else list(reversed(setups))):
                result = engines[name].measure("mix")
                if run > 0:
                    rates[name].append(result["texts"] / result["seconds"])
                    if name == "two":
                        client.append(100 * result["client_cpu_s"] / result["seconds"])
    figures["two_over_one"] = machine.spread([b / a for a, b in zip(rates["one"], rates["two"])])["median"]
    figures["two_threads_over_one"] = machine.spread(
        [b / a for a, b in zip(rates["one_of_two"], rates["two"])])["median"]
    figures["client_cpu_percent"] = machine.spread(client)["median"]
    for name, values in rates.items():
        figures[f"mix_threads_{name}_texts_per_s"] = machine.spread(values)["median"]


def table(info, reference, precisions, figures, runs):
    def value(key, form="{:10.0f}"):
        return form.format(figures[key]) if key in figures else "         -"

    print(f"machine    {info['cpu']}, {info['cores']} cores, {' '.join(info['features']) or 'no vector features named'}")
    print(f"kernel     {info['kernel']}   commit {info['commit']}   {runs} runs, medians (MAD)")
    if reference is not None:
        print(f"comparator sentence-transformers {reference['sentence_transformers']}, torch {reference['torch']}, fp32, "
              f"batches of 32, {reference['threads']} threads")
    print(f"\n{'end to end':<12} {'':<9} {'texts/s':>10} {'(MAD)':>9} {'tokens/s':>10} {'x comparator':>13}")
    for workload in WORKLOADS:
        for who in [*precisions, "reference"]:
            if f"{workload}_{who}_texts_per_s" not in figures:
                continue
            print(f"{workload:<12} {who:<9} {value(f'{workload}_{who}_texts_per_s')} "
                  f"{value(f'{workload}_{who}_texts_per_s_mad', '{:9.1f}')} {value(f'{workload}_{who}_tokens_per_s')} "
                  f"{value(f'{workload}_{who}_over_reference', '{:13.2f}')}")
    for precision in precisions:
        print(f"\n{precision}")
        print(f"  one short text, computed   p50 {value(f'single_miss_{precision}_p50_us')} us  "
              f"p99 {value(f'single_miss_{precision}_p99_us')} us")
        print(f"  one short text, from cache p50 {value(f'hit_{precision}_p50_us', '{:10.1f}')} us  "
              f"p99 {value(f'hit_{precision}_p99_us', '{:10.1f}')} us")
        print(f"  case study                 cold {value(f'casestudy_cold_{precision}_s', '{:8.3f}')} s   "
              f"warm {value(f'casestudy_warm_{precision}_s', '{:9.4f}')} s")
        print(f"  start to first vector      {value(f'start_to_first_vector_{precision}_s', '{:13.2f}')} s")
        print("  share of a text's time     " + ", ".join(
            f"{stage} {100 * figures.get(f'mix_{precision}_stage_share_{stage}', 0):.1f} %" for stage in STAGES))
    if "resident_mib" in figures:
        print(f"\nwith --precision auto\n  start to first vector      {figures['start_to_first_vector_s']:13.3f} s, page cache "
              f"warm\n  memory (Pss)               {figures['resident_all_mib']:13.1f} MiB, "
              f"{figures['resident_mib']:.1f} without the weights ({figures['resident_weights_mib']:.1f})")
    if figures.get("two_over_one"):
        print(f"  two cores over one         {figures['two_over_one']:13.2f}; two threads over one, both on two cores "
              f"{figures['two_threads_over_one']:.2f}; the client takes {figures['client_cpu_percent']:.2f} % of a core")


def main():
    parser = argparse.ArgumentParser(description="The engine beside sentence-transformers.")
    parser.add_argument("--bin", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--reference", help="python of the reference environment; without it there is no comparator")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--precision", default="fp32,bf16" if machine.has_bf16() else "fp32")
    parser.add_argument("--engine-option", action="append", default=[], help="passed to sutra-engine")
    parser.add_argument("--only", default="", help="parts, comma-separated: throughput, cores, start")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended, too
    repo = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
    info, figures = machine.describe(repo), {}
    precisions = arguments.precision.split(",")
    parts = arguments.only.split(",") if arguments.only else ["throughput", "cores", "start"]
    reference = None
    with tempfile.TemporaryDirectory(prefix="sutra-bench-") as folder:
        try:
            files = dump_texts(arguments, folder)
            if "start" in parts:
                say("start and memory")
                start_and_memory(arguments, figures)
            if "cores" in parts:
                say("one core and two")
                cores(arguments, figures)
            if "throughput" not in parts:
                precisions = []
            if arguments.reference and precisions:
                say("loading the reference")
                reference = Reference(arguments.reference, arguments.model)
            for precision in precisions:
                say(f"{precision}: engine with an empty cache, case study cold and warm")
                case_study(arguments, precision, figures)
                engine = start_engine(arguments, precision)
                try:
                    say(f"{precision}: throughput")
                    throughput(arguments, engine, reference, files, figures)
                    say(f"{precision}: latency")
                    latency(arguments, engine, figures)
                finally:
                    engine.close()
            table(info, reference.info if reference else None, precisions, figures, arguments.runs)
            if arguments.json:
                print(json.dumps({"benchmark": "engine", **{f"machine_{k}": v for k, v in info.items()},
                                  "runs": arguments.runs, **figures}))
        except Failure as failure:
            say(f"engine_bench: {failure}")
            return 1
        finally:
            if reference is not None:
                reference.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
