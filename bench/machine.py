"""What a table of figures must say about the machine it was measured on. Standard library only."""

import os
import platform
import statistics
import subprocess


def cpu_info():
    model, flags = "unknown", set()
    with open("/proc/cpuinfo") as file:
        for line in file:
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                model = value.strip()
            elif key.strip() == "flags":
                flags = set(value.split())
                break
    return model, flags


def features():
    names = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16", "amx_int8")
    return [name for name in names if name in cpu_info()[1]]


def has_bf16():
    return bool({"avx512_bf16", "amx_bf16"} & cpu_info()[1])


def describe(repo):
    commit = subprocess.run(["git", "-C", repo, "describe", "--always", "--dirty"], stdout=subprocess.PIPE,
                            stderr=subprocess.DEVNULL, text=True, check=False).stdout.strip() or "unknown"
    return {"cpu": cpu_info()[0], "cores": len(os.sched_getaffinity(0)), "features": features(),
            "kernel": platform.release(), "commit": commit}


def spread(values):
    """Median, median absolute deviation, min, max."""
    middle = statistics.median(values)
    return {"median": middle, "mad": statistics.median(abs(v - middle) for v in values), "min": min(values),
            "max": max(values), "runs": len(values)}
