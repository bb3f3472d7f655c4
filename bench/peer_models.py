"""The model in the formats of the engines that bench/run peers measures. Runs inside the reference environment.

  peer_models.py MODEL FOLDER FORMAT     FORMAT: onnx, onnx-int8, openvino, openvino-int8, ctranslate2
Writes FOLDER/FORMAT/ and does nothing where it is complete. Weights are the model's own; int8 is made as each engine's
documentation makes it: ONNX Runtime by dynamic quantisation of the fused graph, OpenVINO by NNCF, calibrated on the texts
of FOLDER/calibration.jsonl, CTranslate2 by its converter.
"""

import json
import os
import shutil
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")


class Encoder:
    """The transformer without pooling, as every engine gets it."""

    def __new__(cls, model_dir):
        import torch
        from transformers import AutoModel

        class Wrapped(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.model = AutoModel.from_pretrained(model_dir, attn_implementation="eager").eval()

            def forward(self, input_ids, attention_mask, token_type_ids):
                return self.model(input_ids=input_ids, attention_mask=attention_mask,
                                  token_type_ids=token_type_ids).last_hidden_state

        return Wrapped()


def example():
    import torch
    ids = torch.randint(1000, 20000, (2, 16))
    return ids, torch.ones_like(ids), torch.zeros_like(ids)


def calibration(model_dir, texts_file):
    from tokenizers import Tokenizer
    import numpy
    tokenizer = Tokenizer.from_file(os.path.join(model_dir, "tokenizer.json"))
    tokenizer.no_padding()
    with open(texts_file, encoding="utf-8") as file:
        texts = [json.loads(line) for line in file]
    for text in texts:
        ids = numpy.array([tokenizer.encode(text).ids])
        yield {"input_ids": ids, "attention_mask": numpy.ones_like(ids), "token_type_ids": numpy.zeros_like(ids)}


def make_onnx(model_dir, folder):
    """Exported by torch, its attention, norms and GELU fused by ONNX Runtime's own optimiser."""
    import torch
    from onnxruntime.transformers import optimizer
    names = ["input_ids", "attention_mask", "token_type_ids"]
    plain = os.path.join(folder, "plain.onnx")
    with torch.inference_mode():
        torch.onnx.export(Encoder(model_dir), example(), plain, input_names=names, output_names=["hidden"],
                          dynamic_axes={name: {0: "texts", 1: "tokens"} for name in [*names, "hidden"]},
                          opset_version=17, dynamo=False)
    with open(os.path.join(model_dir, "config.json")) as file:
        config = json.load(file)
    fused = optimizer.optimize_model(plain, model_type="bert", num_heads=config["num_attention_heads"],
                                     hidden_size=config["hidden_size"])
    counts = fused.get_fused_operator_statistics()
    print(f"peer_models: fused {counts}", file=sys.stderr)
    fused.save_model_to_file(os.path.join(folder, "model.onnx"))
    os.unlink(plain)


def make_onnx_int8(model_dir, folder):
    from onnx import TensorProto
    from onnxruntime.quantization import QuantType, quantize_dynamic
    base = ensure(model_dir, os.path.dirname(folder), "onnx")
    quantize_dynamic(os.path.join(base, "model.onnx"), os.path.join(folder, "model.onnx"), weight_type=QuantType.QInt8,
                     per_channel=True, extra_options={"DefaultTensorType": TensorProto.FLOAT})


def make_openvino(model_dir, folder):
    import openvino
    model = openvino.convert_model(Encoder(model_dir), example_input=example())
    for port, name in zip(model.inputs, ["input_ids", "attention_mask", "token_type_ids"]):
        port.get_tensor().set_names({name})
    openvino.save_model(model, os.path.join(folder, "model.xml"), compress_to_fp16=False)


def make_openvino_int8(model_dir, folder):
    import nncf
    import openvino
    base = ensure(model_dir, os.path.dirname(folder), "openvino")
    model = openvino.Core().read_model(os.path.join(base, "model.xml"))
    texts = os.path.join(os.path.dirname(folder), "calibration.jsonl")
    quantised = nncf.quantize(model, nncf.Dataset(list(calibration(model_dir, texts))),
                              model_type=nncf.ModelType.TRANSFORMER)
    openvino.save_model(quantised, os.path.join(folder, "model.xml"), compress_to_fp16=False)


def make_ctranslate2(model_dir, folder):
    from ctranslate2.converters import TransformersConverter
    TransformersConverter(model_dir).convert(folder, quantization="int8", force=True)


MAKERS = {"onnx": make_onnx, "onnx-int8": make_onnx_int8, "openvino": make_openvino,
          "openvino-int8": make_openvino_int8, "ctranslate2": make_ctranslate2}


def ensure(model_dir, folder, form):
    """The folder of the model in this format; made beside and renamed when complete."""
    target = os.path.join(folder, form)
    if not os.path.isdir(target):
        fresh = os.path.join(folder, f".{form}.new")
        shutil.rmtree(fresh, ignore_errors=True)
        os.makedirs(fresh)
        MAKERS[form](model_dir, fresh)
        os.rename(fresh, target)
    return target


if __name__ == "__main__":
    ensure(*sys.argv[1:4])
