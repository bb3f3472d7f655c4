#!/usr/bin/env python3
"""Makes the parity fixtures: texts and the vectors sentence-transformers computes for them (fp32, normalised).

    python3 make_fixtures.py MODEL_DIR [OUT_DIR]

Needs sentence-transformers (made with 5.x on torch 2.11). Writes texts.json (a list of strings) and vectors.f32
(little-endian float32, one row of the model's width a text). The texts cover one-token fragments, lengths up to beyond
the limit of 256 tokens, several scripts, symbols, random words, and the sentences of a financial case study with their
fragments.
"""
import json
import pathlib
import random
import re
import sys

WORDS = (
    "revenue growth quarter company market share earnings guidance analysts cloud margin cash flow dividend stock "
    "price volume report investors demand supply chain costs product launch fiscal results income outlook risk sector "
    "index bank rate inflation river mountain child music doctor window bread history language planet engine storm garden letter"
).split()

SHORT = [
    "a", "I", "7", "?", "the", "embedding", "x" * 120, "π", "[SEP]", "ok.", "NVDA", "$148.32", "up 3.4%",
    "Q3 2025", "hello world", "What is a vector?", "Stock fell.", "e = mc^2", "C++20 and Rust", "user@example.com",
    "https://example.com/a?b=c",
]

MULTILINGUAL = [
    "Der schnelle braune Fuchs springt über den faulen Hund.",
    "Le chiffre d'affaires a progressé de 12 % au troisième trimestre.",
    "La inflación se redujo y el banco central mantuvo las tasas.",
    "A receita cresceu, mas as margens caíram no Brasil.",
    "Выручка компании выросла на десять процентов.",
    "株価は今日大きく上昇しました。",
    "公司第三季度营收同比增长百分之十二。",
    "한국의 경제 성장률이 높아졌습니다.",
    "ارتفعت أرباح الشركة هذا العام.",
    "हमारी कंपनी का लाभ बढ़ गया है।",
    "Ελληνικά κείμενα με τόνους",
    "naïve café coöperate Ångström İstanbul",
    "emoji 😀🚀 and ∑ symbols ∞ ≤ ½",
]

COMPANIES = ["NVIDIA", "Apple", "Microsoft", "Amazon", "Alphabet", "Meta", "Tesla", "JPMorgan Chase", "Visa", "Netflix"]


def case_study(rng):
    texts = []
    for company in COMPANIES:
        price = rng.uniform(90, 900)
        content = (
            f"{company} closed at ${price:.2f} on 2025-10-{rng.randint(1, 28):02d}, {rng.choice(['up', 'down'])} "
            f"{rng.uniform(0.1, 6):.2f}% on a volume of {rng.uniform(5, 90):.1f} million shares. Quarterly revenue "
            f"reached ${rng.uniform(5, 120):.1f} billion, driven by {rng.choice(WORDS)} and {rng.choice(WORDS)}. Analysts at "
            f"{rng.choice(COMPANIES)} raised the price target to ${price * 1.15:.2f}. The {rng.choice(WORDS)} outlook "
            f"remains {rng.choice(['bullish', 'neutral', 'bearish'])}! Market capitalisation stands at "
            f"${rng.uniform(0.1, 3.4):.2f} trillion, with a P/E ratio of {rng.uniform(9, 70):.1f}. Will the {rng.choice(WORDS)} trend "
            f"continue? Management expects operating margin of {rng.uniform(10, 60):.1f}% next year."
        )
        texts.append(content)
        texts += [part.strip() for part in re.split(r"[.!?]", content) if len(part.strip()) > 10]
    return texts


def main():
    model_dir = sys.argv[1]
    out = pathlib.Path(sys.argv[2] if len(sys.argv) > 2 else pathlib.Path(__file__).parent / "fixtures")
    rng = random.Random(20250301)
    texts = SHORT + MULTILINGUAL + case_study(rng)
    lengths = [3, 6, 9, 14, 20, 27, 35, 48, 60, 75, 90, 110, 130, 150, 170, 200, 230]
    for words in lengths + [250, 252, 253, 254, 255, 256, 300, 400]:  # with [CLS] and [SEP] the limit is at 254
        texts.append(" ".join(rng.choice(WORDS) for _ in range(words)))
    for words in range(1, 60):  # pieces that split into many tokens, and nonsense
        letters = "abcdefghijklmnopqrstuvwxyz"
        pieces = ["".join(rng.choice(letters) for _ in range(rng.randint(2, 9))) for _ in range(words)]
        texts.append(" ".join(pieces))
    texts = list(dict.fromkeys(texts))

    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(model_dir, device="cpu")
    # One text at a time: no padding, so the reference has nothing of its neighbours in it.
    vectors = model.encode(texts, batch_size=1, normalize_embeddings=True, convert_to_numpy=True)
    out.mkdir(parents=True, exist_ok=True)
    (out / "texts.json").write_text(json.dumps(texts, ensure_ascii=True, indent=0) + "\n")
    (out / "vectors.f32").write_bytes(vectors.astype("<f4").tobytes())
    print(len(texts), "texts", vectors.shape)


if __name__ == "__main__":
    main()
