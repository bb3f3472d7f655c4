#!/usr/bin/env python3
"""The comparator: sentence-transformers with its defaults (fp32, batches of 32), on the texts and cores given to it.

Runs inside the environment that tools/setup/fetch_deps --reference-venv creates. Loads the model once, then reads one
command per line from standard input and answers with one JSON line:
  {"texts": FILE}   encodes the texts of a JSON-lines file -> {"seconds": ..., "texts": ..., "tokens": ...}
Texts are read before the clock starts. Ends at the end of input.
"""

import json
import os
import sys
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")


def main():
    model_dir = sys.argv[1]
    start = time.monotonic()
    import sentence_transformers
    import torch
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(model_dir, device="cpu")
    model.encode(["warm up"], show_progress_bar=False)
    print(json.dumps({"ready_s": time.monotonic() - start, "sentence_transformers": sentence_transformers.__version__,
                      "torch": torch.__version__, "threads": torch.get_num_threads()}), flush=True)
    for line in sys.stdin:
        with open(json.loads(line)["texts"], encoding="utf-8") as file:
            texts = [json.loads(text) for text in file]
        start = time.monotonic()
        vectors = model.encode(texts, batch_size=32, show_progress_bar=False)
        seconds = time.monotonic() - start
        tokens = sum(len(ids) for ids in model.tokenizer(texts, truncation=True, max_length=model.max_seq_length)["input_ids"])
        print(json.dumps({"seconds": seconds, "texts": len(vectors), "tokens": tokens}), flush=True)


if __name__ == "__main__":
    main()
