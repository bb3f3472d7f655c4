"""One engine that bench/run peers measures, in a process of its own, inside the reference environment.

  peer_child.py ENGINE MODEL MODELS THREADS
ENGINE: st-fp32, st-bf16, onnx-fp32, onnx-int8, openvino-bf16, openvino-int8, ctranslate2-int8. MODELS: a folder for
converted models (peer_models.py). Says that it is ready with one JSON line, then reads one command per line from standard
input and answers each with one JSON line:
  {"command": "prepare", "texts": FILE, "batch": B, "limit": N}   reads the first N texts and encodes them once, unmeasured
  {"command": "encode", "vectors": FILE or ""}                    all of them -> seconds, texts, tokens
  {"command": "one_by_one", "count": N}                           one text at a time -> p50_us, p99_us
Measured is text in, vector out: tokenising, the encoder, mean pooling, unit length. Ends at the end of input.
"""

import json
import math
import os
import sys
import time

sys.dont_write_bytecode = True
os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

STATIC_TOKENS = 8  # OpenVINO's static shapes: lengths are rounded up to a multiple; single texts keep their own


class SentenceTransformers:
    def __init__(self, model_dir, _models, threads, dtype):
        import sentence_transformers
        import torch
        torch.set_num_threads(threads)
        self.model = sentence_transformers.SentenceTransformer(model_dir, device="cpu",
                                                               model_kwargs={"dtype": getattr(torch, dtype)})
        self.version = f"{sentence_transformers.__version__}, torch {torch.__version__}"
        self.capability = torch.backends.cpu.get_cpu_capability()

    def clear(self):
        pass

    def encode(self, texts, batch):
        return self.model.encode(texts, batch_size=batch, show_progress_bar=False)


class Batched:
    """What an engine without its own tokenizer and pooling needs around it: texts of similar length share a batch."""

    capability = ""

    def __init__(self, model_dir):
        import numpy
        from tokenizers import Tokenizer
        self.numpy = numpy
        self.tokenizer = Tokenizer.from_file(os.path.join(model_dir, "tokenizer.json"))
        self.tokenizer.no_padding()
        with open(os.path.join(model_dir, "sentence_bert_config.json")) as file:
            self.tokenizer.enable_truncation(json.load(file)["max_seq_length"])

    def clear(self):
        pass

    def encode(self, texts, batch):
        numpy = self.numpy
        ids = [encoding.ids for encoding in self.tokenizer.encode_batch_fast(texts)]
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]), reverse=True)
        vectors = None
        for begin in range(0, len(ids), batch):
            part = order[begin:begin + batch]
            lengths = numpy.array([len(ids[i]) for i in part])
            hidden = self.hidden([ids[i] for i in part], batch if len(ids) > 1 else 1)
            mask = (numpy.arange(hidden.shape[1]) < lengths[:, None]).astype(numpy.float32)
            mean = numpy.einsum("bth,bt->bh", hidden[:len(part)], mask) / lengths[:, None]
            if vectors is None:
                vectors = numpy.empty((len(ids), mean.shape[1]), numpy.float32)
            vectors[part] = mean / numpy.linalg.norm(mean, axis=1, keepdims=True)
        return vectors

    def padded(self, ids, texts, tokens, dtype):
        """Ids and mask of [texts][tokens]; what is not a text has one token, so that no mask is empty."""
        numpy = self.numpy
        padded, mask = numpy.zeros((texts, tokens), dtype), numpy.zeros((texts, tokens), dtype)
        mask[:, 0] = 1
        for row, text in enumerate(ids):
            padded[row, :len(text)] = text
            mask[row, :len(text)] = 1
        return {"input_ids": padded, "attention_mask": mask, "token_type_ids": numpy.zeros_like(padded)}


class OnnxRuntime(Batched):
    def __init__(self, model_dir, models, threads, form):
        super().__init__(model_dir)
        import onnxruntime
        import peer_models
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        folder = peer_models.ensure(model_dir, models, form)
        self.session = onnxruntime.InferenceSession(os.path.join(folder, "model.onnx"), options,
                                                    providers=["CPUExecutionProvider"])
        self.dtype = self.numpy.int32 if "int32" in self.session.get_inputs()[0].type else self.numpy.int64
        self.version = onnxruntime.__version__

    def hidden(self, ids, _batch):
        return self.session.run(None, self.padded(ids, len(ids), len(ids[0]), self.dtype))[0]


class OpenVino(Batched):
    """A compiled model for each shape: static shapes are 1.2 x as fast as dynamic ones."""

    def __init__(self, model_dir, models, threads, form):
        super().__init__(model_dir)
        import openvino
        import peer_models
        self.core = openvino.Core()
        self.file = os.path.join(peer_models.ensure(model_dir, models, form), "model.xml")
        self.options = {"INFERENCE_PRECISION_HINT": "bf16", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1,
                        "PERFORMANCE_HINT": "LATENCY", "ENABLE_CPU_PINNING": False}
        self.compiled = {}
        self.version = openvino.__version__.split("-")[0]

    def clear(self):
        self.compiled = {}

    def hidden(self, ids, batch):
        tokens = len(ids[0]) if batch == 1 else -(-len(ids[0]) // STATIC_TOKENS) * STATIC_TOKENS
        if (batch, tokens) not in self.compiled:
            model = self.core.read_model(self.file)
            model.reshape({port.any_name: [batch, tokens] for port in model.inputs})
            self.compiled[batch, tokens] = self.core.compile_model(model, "CPU", self.options).create_infer_request()
        request = self.compiled[batch, tokens]
        request.infer(self.padded(ids, batch, tokens, self.numpy.int64), share_inputs=True, share_outputs=True)
        return request.get_output_tensor().data


class CTranslate2(Batched):
    def __init__(self, model_dir, models, threads, form):
        super().__init__(model_dir)
        import ctranslate2
        import peer_models
        self.encoder = ctranslate2.Encoder(peer_models.ensure(model_dir, models, form), device="cpu", compute_type="int8",
                                           inter_threads=1, intra_threads=threads)
        self.version = ctranslate2.__version__

    def hidden(self, ids, _batch):
        return self.numpy.array(self.encoder.forward_batch(ids).last_hidden_state)


ENGINES = {
    "st-fp32": (SentenceTransformers, "float32"), "st-bf16": (SentenceTransformers, "bfloat16"),
    "onnx-fp32": (OnnxRuntime, "onnx"), "onnx-int8": (OnnxRuntime, "onnx-int8"),
    "openvino-bf16": (OpenVino, "openvino"), "openvino-int8": (OpenVino, "openvino-int8"),
    "ctranslate2-int8": (CTranslate2, "ctranslate2"),
}


def percentile(values, fraction):
    return sorted(values)[max(math.ceil(fraction * len(values)), 1) - 1]


def main():
    engine, model_dir, models, threads = sys.argv[1:5]
    answers = os.fdopen(os.dup(1), "w")  # libraries print to standard output
    os.dup2(2, 1)

    def answer(**values):
        print(json.dumps(values), file=answers, flush=True)

    maker, form = ENGINES[engine]
    encoder = maker(model_dir, models, int(threads), form)
    answer(version=encoder.version, capability=encoder.capability)
    texts, batch = [], 1
    for line in sys.stdin:
        command = json.loads(line)
        if command["command"] == "prepare":
            with open(command["texts"], encoding="utf-8") as file:
                texts = [json.loads(text) for text in file][:command["limit"] or None]
            batch = command["batch"]
            encoder.clear()
            for group in ([[text] for text in texts] if batch == 1 else [texts]):
                encoder.encode(group, batch)
            answer(texts=len(texts))
        elif command["command"] == "encode":
            start = time.monotonic()
            vectors = encoder.encode(texts, batch)
            seconds = time.monotonic() - start
            if command["vectors"]:
                vectors.astype("float32").tofile(command["vectors"])
            answer(seconds=seconds, texts=len(vectors))
        else:
            us = []
            for index in range(command["count"]):
                start = time.monotonic()
                encoder.encode([texts[index % len(texts)]], 1)
                us.append(1e6 * (time.monotonic() - start))
            answer(p50_us=percentile(us, 0.5), p99_us=percentile(us, 0.99))


if __name__ == "__main__":
    main()
