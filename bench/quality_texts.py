#!/usr/bin/env python3
"""Texts of all kinds for comparing int8 with fp32: at least 4,000 different ones, as JSON lines {"family", "text"}.

  quality_texts.py > FILE
Made from what every Debian or Python has: the standard library's documentation and sources, names of Unicode, messages
in many languages where the host has them (/usr/share/locale), documentation in /usr/share/doc. A fixed seed; what is
missing on a host makes a family smaller, and words take its place. Standard library only.
"""

import glob
import gzip
import itertools
import json
import os
import random
import re
import struct
import sys
import sysconfig
import unicodedata

TEXTS_MIN = 4200
COUNTS = {"short": 900, "word": 500, "sign": 300, "query": 450, "code": 450, "number": 400, "script": 700, "paragraph": 600}
EVERYDAY = """hello thanks ok yes no maybe please sorry good morning night bye help stop go wait home water coffee tea bread
milk money time today tomorrow yesterday monday friday summer winter rain sun snow car bus train plane phone mail news weather
music film book game love family mother father sister brother friend child dog cat bird fish red green blue black white one two
three ten hundred what who why when where how thank you see you later no way of course not yet never mind""".split()
SIGNS = list("?!.,;:-+*/=()[]{}<>#@&%$^~|_\"'") + ["...", "?!", "!!", ":-)", ";)", "->", "=>", "==", "&&", "§", "€", "£", "°", "½", "😀",
                                                    "👍", "❤", "🚀", "→", "✓", "—", "“”", "«»", "", " ", "\t"]
QUESTIONS = ["what is the {} of {}", "how do I {} a {} in {}", "best {} for {}", "{} vs {}", "why does {} not {}", "where can I buy {} {}",
             "when was the {} of {}", "is {} the same as {}?", "{} {} near me", "define {}", "who invented the {} {}", "{} {} {} price"]
SAMPLES = ["Привет, как дела?", "こんにちは世界", "你好，世界", "안녕하세요 세계", "مرحبا بالعالم", "שלום עולם", "नमस्ते दुनिया", "สวัสดีชาวโลก", "Γειά σου κόσμε",
           "Xin chào thế giới", "Grüße aus München", "ça va très bien", "İstanbul'da yağmur", "Zażółć gęślą jaźń", "ქართული ენა", "Հայաստան",
           "বাংলা ভাষা", "தமிழ் மொழி", "አማርኛ", "ភាសាខ្មែរ"]


def library_files(pattern):
    return sorted(glob.glob(os.path.join(sysconfig.get_path("stdlib"), pattern)))


def read(path):
    try:
        with (gzip.open(path, "rt", errors="replace") if path.endswith(".gz") else open(path, errors="replace")) as file:
            return file.read(400_000)
    except (OSError, EOFError):
        return ""


def paragraphs():
    """Prose of at least 80 characters from docstrings, then from the host's documentation."""
    for path in library_files("*.py"):
        for block in re.findall(r'"""(.*?)"""', read(path), re.S):
            for text in re.split(r"\n\s*\n", block):
                yield " ".join(text.split())
    for path in sorted(glob.glob("/usr/share/doc/*/*"))[:2000]:
        if re.search(r"/(README|NEWS|copyright|TODO|BUGS)[^/]*$", path):
            for text in re.split(r"\n\s*\n", read(path)):
                yield " ".join(text.split())


def code_lines():
    for path in itertools.chain(library_files("*.py"), sorted(glob.glob("/usr/include/*.h"))[:200]):
        lines = [line for line in read(path).splitlines() if line.strip()]
        for at in range(0, len(lines) - 8, 25):
            yield "\n".join(lines[at:at + 1 + at % 7])


def messages():
    """Translated messages from compiled gettext catalogues."""
    for path in sorted(glob.glob("/usr/share/locale/*/LC_MESSAGES/*.mo"))[:400]:
        try:
            with open(path, "rb") as file:
                data = file.read(2_000_000)
            order = "<" if data[:4] == b"\xde\x12\x04\x95" else ">"
            count, _, table = struct.unpack(order + "III", data[8:20])
            for index in range(1, min(count, 60)):
                length, offset = struct.unpack(order + "II", data[table + 8 * index:table + 8 * index + 8])
                yield data[offset:offset + length].decode().split("\0")[0]
        except (OSError, struct.error, UnicodeDecodeError):
            continue


def scripts():
    yield from messages()
    yield from SAMPLES
    choose = random.Random(3)
    blocks = [(0x400, 0x4FF), (0x3B1, 0x3C9), (0x5D0, 0x5EA), (0x620, 0x64A), (0x905, 0x939), (0xE01, 0xE2E), (0x3041, 0x3096),
              (0x4E00, 0x9FA5), (0xAC00, 0xD7A3), (0x10D0, 0x10F0), (0xC0, 0x17F)]
    while True:
        low, high = choose.choice(blocks)
        letters = [chr(choose.randint(low, high)) for _ in range(choose.randint(2, 40))]
        letters = [c for c in letters if unicodedata.category(c)[0] in "LM"]
        yield "".join(c + (" " if choose.random() < 0.15 else "") for c in letters).strip()


def numbers():
    choose = random.Random(4)
    forms = ["{0}", "{0}.{1:02}", "${0},{1:03}.{2:02}", "{0}-{1:02}-{2:02}", "+{0} {1} {2}", "{0} + {1} = {2}", "{0}%", "v{0}.{1}.{2}", "{0:x}{1:x}",
             "{0}:{1:02}:{2:02}", "revenue rose {0}.{1:02} % to {2} million", "192.168.{1}.{2}", "{0}e-{1}", "{0} km in {1} h {2} min"]
    while True:
        yield choose.choice(forms).format(choose.randint(0, 10 ** choose.randint(1, 7)), choose.randint(0, 99), choose.randint(0, 99))


def words():
    """Words of the documentation, the rarest last."""
    counts = {}
    for text in itertools.islice(paragraphs(), 4000):
        for word in re.findall(r"[A-Za-z]{2,14}", text):
            counts[word.lower()] = counts.get(word.lower(), 0) + 1
    return sorted(counts, key=lambda word: (-counts[word], word))


def families():
    choose = random.Random(5)
    known = words() or EVERYDAY

    def some(low, high):
        return " ".join(choose.choice(EVERYDAY if choose.random() < 0.5 else known) for _ in range(choose.randint(low, high)))

    yield "sign", itertools.chain(SIGNS, ("".join(choose.choice(SIGNS[:60]) for _ in range(choose.randint(1, 8))) for _ in itertools.count()))
    yield "word", itertools.chain(EVERYDAY, (choose.choice(known) for _ in itertools.count()))
    yield "short", itertools.chain(["thank you", "no.", "see you", "ok?", "hi!"],
                                   (some(1, 5) + choose.choice(["", "", ".", "!", "?"]) for _ in itertools.count()))
    yield "query", (choose.choice(QUESTIONS).format(some(1, 2), some(1, 2), some(1, 2)) for _ in itertools.count())
    yield "number", numbers()
    yield "script", scripts()
    yield "code", code_lines()
    yield "paragraph", (text[:1200] for text in paragraphs() if len(text) >= 80)


def main():
    seen, made = set(), 0
    for family, texts in families():
        texts = itertools.islice(texts, 40 * COUNTS[family])
        if family in ("code", "paragraph", "script"):  # from all of the source, not its beginning
            texts = list(texts)
            random.Random(6).shuffle(texts)
        wanted = COUNTS[family]
        for text in texts:
            if wanted and text not in seen and "\0" not in text:
                seen.add(text)
                print(json.dumps({"family": family, "text": text}))
                wanted, made = wanted - 1, made + 1
    choose, known = random.Random(7), words() or EVERYDAY
    while made < TEXTS_MIN:
        text = " ".join(choose.choice(known) for _ in range(choose.randint(2, 30)))
        if text not in seen:
            seen.add(text)
            print(json.dumps({"family": "filler", "text": text}))
            made += 1


if __name__ == "__main__":
    sys.exit(main())
