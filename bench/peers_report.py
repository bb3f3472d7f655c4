"""What bench/run peers makes of its measurements: the keys, with what they compare, and the table. Standard library only."""

import machine

QUALITY = 0.999  # the smallest cosine to fp32 at which an engine counts as of equal quality
SUMMARY = {  # key -> title
    "bf16_w1": "ours in bf16 over the best peer of equal quality, 32 tokens",
    "bf16_w2": "the same, 128 tokens",
    "bf16_w4": "the same, mix",
    "int8_w1": "ours in int8, of equal quality, over the best int8 peer of any quality, 32 tokens",
    "int8_w2": "the same, 128 tokens",
    "int8_w4": "the same, mix",
    "st_default_w4": "ours in int8 over sentence-transformers' default, two cores, mix",
    "w3_one_core": "time of one query, over the best peer's of any quality, one core",
    "w3_two_cores": "the same, two cores",
    "avx2_fp32_w1": "capped to AVX2: ours in fp32 over sentence-transformers, 32 tokens",
    "avx2_best_w1": "the same, our best of equal quality",
}


class Results:
    def __init__(self):
        self.rows = {}      # part -> engine -> row
        self.versions = {}
        self.reasons = {}   # what was left out -> why

    def row(self, part, name):
        empty = {"rates": [], "p50_us": [], "p99_us": [], "batch": 0, "batch_tokens": 0, "cosine": None}
        return self.rows.setdefault(part, {}).setdefault(name, empty)

    def quality(self, name):
        """The smallest cosine of all that was measured of an engine."""
        cosines = [rows[name]["cosine"] for rows in self.rows.values() if name in rows and rows[name]["cosine"] is not None]
        return min(cosines, default=None)

    def equal_quality(self, name):
        return (self.quality(name) or 0) >= QUALITY


def is_ours(name):
    return name.startswith("sutra")


def best(results, part, measure, wanted):
    """The engine of this part with the best median of `measure` among those that are wanted."""
    medians = {name: machine.spread(row[measure])["median"] for name, row in results.rows.get(part, {}).items()
               if row[measure] and wanted(name)}
    if not medians:
        return None
    return (min if measure == "p50_us" else max)(medians, key=medians.get)


def ratio(results, part, measure, ours, other):
    """Median of the ratios of equal turns."""
    if ours is None or other is None:
        return None
    rows = results.rows[part]
    return machine.spread([a / b for a, b in zip(rows[ours][measure], rows[other][measure])])["median"]


def summary(results):
    """Every key of SUMMARY: its figure, or None; and the two engines that it compares."""
    keys = {}

    def put(key, part, measure, ours, other):
        first, second = (best(results, part, measure, wanted) for wanted in (ours, other))
        keys[key] = (ratio(results, part, measure, first, second), first, second)

    for part in ("w1", "w2", "w4"):
        put(f"bf16_{part}", part, "rates", lambda n: n == "sutra-bf16" and results.equal_quality(n),
            lambda n: not is_ours(n) and results.equal_quality(n))
        put(f"int8_{part}", part, "rates", lambda n: n == "sutra-int8" and results.equal_quality(n),
            lambda n: not is_ours(n) and "int8" in n)
    put("st_default_w4", "w4_two", "rates", lambda n: n == "sutra-int8" and results.equal_quality(n),
        lambda n: n == "st-fp32")
    for key, part in (("w3_one_core", "w3"), ("w3_two_cores", "w3_two")):
        put(key, part, "p50_us", lambda n: is_ours(n) and (results.quality(n) is None or results.equal_quality(n)),
            lambda n: not is_ours(n))
    put("avx2_fp32_w1", "w1_avx2", "rates", lambda n: n == "sutra-avx2-fp32" and results.equal_quality(n),
        lambda n: not is_ours(n))
    put("avx2_best_w1", "w1_avx2", "rates", lambda n: is_ours(n) and results.equal_quality(n), lambda n: not is_ours(n))
    return {key: keys[key] for key in SUMMARY}


def figures(results):
    """The flat JSON object: the keys, then what each engine did in each part."""
    flat = {}
    for key, (value, ours, other) in summary(results).items():
        flat[key] = value
        flat[f"{key}_engines"] = f"{ours} over {other}" if value is not None else None
    for part, rows in results.rows.items():
        for name, row in rows.items():
            slug = f"{part}_{name}".replace("-", "_")
            for measure, unit in (("rates", "texts_per_s"), ("p50_us", "p50_us"), ("p99_us", "p99_us")):
                if row[measure]:
                    spread = machine.spread(row[measure])
                    flat[f"{slug}_{unit}"], flat[f"{slug}_{unit}_mad"] = spread["median"], spread["mad"]
            if row["rates"]:
                flat[f"{slug}_batch"] = row["batch"] or None
                flat[f"{slug}_cosine_min"] = row["cosine"]
                if row["batch_tokens"]:
                    flat[f"{slug}_batch_tokens_mean"] = row["batch_tokens"]
    flat["left_out"] = results.reasons
    return flat


def table(info, results, runs):
    print(f"machine    {info['cpu']}, {info['cores']} cores, {' '.join(info['features']) or 'no vector features named'}")
    print(f"kernel     {info['kernel']}   commit {info['commit']}   {runs} turns, medians")
    for name, version in results.versions.items():
        print(f"  {name:<24} {version}")
    for part, rows in results.rows.items():
        timed = any(row["p50_us"] for row in rows.values())
        print(f"\n{part:<27}" + (f"{'p50 us':>10} {'MAD':>8} {'p99 us':>10}" if timed else
                                 f"{'texts/s':>10} {'MAD':>8} {'batch':>8} {'cosine min':>11}"))
        middle = {name: machine.spread(row["p50_us" if timed else "rates"]) for name, row in rows.items()
                  if row["p50_us" if timed else "rates"]}
        for name in sorted(middle, key=lambda n: middle[n]["median"], reverse=not timed):
            row, start = rows[name], f"  {name:<25}{middle[name]['median']:10.0f} {middle[name]['mad']:8.1f}"
            if timed:
                print(f"{start} {machine.spread(row['p99_us'])['median']:10.0f}")
            else:
                cosine = "-" if row["cosine"] is None else f"{row['cosine']:.5f}"
                print(f"{start} {row['batch'] or 'own':>8} {cosine:>11}")
    print()
    for key, (value, ours, other) in summary(results).items():
        shown = "-" if value is None else f"{value:.2f}"
        print(f"{key:<14} {shown:>6}  {SUMMARY[key]}" + (f" ({ours} over {other})" if value is not None else ""))
    for name, reason in results.reasons.items():
        print(f"without {name}: {reason}")
