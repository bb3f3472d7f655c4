#!/usr/bin/env python3
"""Writes unicode_table.inc: what the Hugging Face `tokenizers` library does to every Unicode code point.

The library's tables are a mixture of Unicode versions (old ones for categories, newer ones for case and white space),
so they are read out of the library itself instead of any Unicode release. Every primitive step is asked alone; then
the whole pipeline is composed from the table and compared with the library on random strings, for every combination
of the normalizer's options, before anything is written.

    python3 make_unicode_table.py [--check] [OUTPUT]     needs: pip install tokenizers

--check compares with the existing file instead of writing it. The version of `tokenizers` is named in the output.
"""

import argparse
import os
import random
import sys

import tokenizers
from tokenizers import normalizers, pre_tokenizers

CODE_POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]

# Bits of a class; unicode_data.h repeats them.
CLEAN_DROP = 1      # clean_text removes it
CLEAN_SPACE = 2     # clean_text turns it into a space
WHITE = 4           # the pre-tokenizer splits here and removes it
PUNCTUATION = 8     # the pre-tokenizer isolates it
IDEOGRAPH = 16      # handle_chinese_chars puts spaces around it
MARK = 32           # strip_accents removes it (after decomposition)
DECOMPOSES = 64     # has an entry in the decomposition table (Hangul syllables do not: they are computed)
HAS_LOWER = 128     # has an entry in the lowercase tables

HANGUL_FIRST, HANGUL_COUNT = 0xAC00, 11172


def bert(**options):
    settings = dict(clean_text=False, handle_chinese_chars=False, strip_accents=False, lowercase=False)
    settings.update(options)
    return normalizers.BertNormalizer(**settings)


def one_of(code_point, answer, choices):
    for expected, result in choices:
        if answer == expected:
            return result
    sys.exit(f"U+{code_point:04X}: unexpected answer {answer!r}; the table's model of the library no longer holds")


class Table:
    """The library's behaviour as data: flags, canonical order, decompositions, lowercase."""

    def __init__(self):
        nfd = normalizers.NFD()
        clean, ideographs = bert(clean_text=True), bert(handle_chinese_chars=True)
        strip, lower = bert(strip_accents=True), bert(lowercase=True)
        split = pre_tokenizers.BertPreTokenizer()
        self.flags, self.decomposition, self.lower = {}, {}, {}
        for code_point in CODE_POINTS:
            char = chr(code_point)
            word = "a" + char + "b"
            flags = 0
            if char != " ":
                flags |= one_of(code_point, clean.normalize_str(word),
                                [("ab", CLEAN_DROP), ("a b", CLEAN_SPACE), (word, 0)])
            flags |= one_of(code_point, ideographs.normalize_str(word), [(f"a {char} b", IDEOGRAPH), (word, 0)])
            flags |= one_of(code_point, [piece for piece, _ in split.pre_tokenize_str(word)],
                            [(["a", "b"], WHITE), (["a", char, "b"], PUNCTUATION), ([word], 0)])
            parts = nfd.normalize_str(char)
            if parts != char:
                self.decomposition[code_point] = [ord(c) for c in parts]
                if not HANGUL_FIRST <= code_point < HANGUL_FIRST + HANGUL_COUNT:
                    flags |= DECOMPOSES
            elif strip.normalize_str(char) == "":
                flags |= MARK
            lowered = lower.normalize_str(char)
            if lowered != char:
                flags |= HAS_LOWER
                self.lower[code_point] = [ord(c) for c in lowered]
            self.flags[code_point] = flags
        self.check_hangul()
        self.order = self.canonical_order(nfd)

    def check_hangul(self):
        for index in range(HANGUL_COUNT):
            expected = [0x1100 + index // 588, 0x1161 + index % 588 // 28]
            if index % 28:
                expected.append(0x11A7 + index % 28)
            if self.decomposition[HANGUL_FIRST + index] != expected:
                sys.exit(f"U+{HANGUL_FIRST + index:04X} does not decompose by the Hangul rule")

    def canonical_order(self, nfd):
        """Rank of each code point among the combining classes; 0 is a starter. Found by asking which pairs swap."""
        def swaps(first, second):
            return nfd.normalize_str(chr(first) + chr(second)) != chr(first) + chr(second)

        lowest, highest = 0x0334, 0x0345  # combining classes 1 and 240
        marks = [c for c in CODE_POINTS
                 if c not in self.decomposition and (swaps(highest, c) or swaps(c, lowest) or c in (lowest, highest))]
        classes = []  # lists of equal class, ascending
        for mark in marks:
            low, high = 0, len(classes)
            while low < high:
                middle = (low + high) // 2
                if swaps(classes[middle][0], mark):
                    high = middle
                elif swaps(mark, classes[middle][0]):
                    low = middle + 1
                else:
                    classes[middle].append(mark)
                    break
            else:
                classes.insert(low, [mark])
        order = {mark: rank + 1 for rank, equal in enumerate(classes) for mark in equal}
        # The streaming reorder in wordpiece.cc relies on this: a kept combining mark never splits a word.
        for mark in order:
            if self.flags[mark] & (WHITE | IDEOGRAPH | (0 if self.flags[mark] & MARK else PUNCTUATION)):
                sys.exit(f"U+{mark:04X} is a combining mark and splits words; wordpiece.cc cannot reorder it")
        return order

    def normalize(self, text, clean_text, ideographs, strip_accents, lowercase):
        """The composition that wordpiece.cc does, in its simplest form."""
        points = [ord(c) for c in text]
        if clean_text:
            points = [0x20 if self.flags[c] & CLEAN_SPACE else c for c in points if not self.flags[c] & CLEAN_DROP]
        if ideographs:
            points = [p for c in points for p in ([0x20, c, 0x20] if self.flags[c] & IDEOGRAPH else [c])]
        if strip_accents:
            points = [p for c in points for p in self.decomposition.get(c, [c])]
            start = 0
            while start < len(points):
                end = start
                while end < len(points) and self.order.get(points[end], 0):
                    end += 1
                points[start:end] = sorted(points[start:end], key=lambda c: self.order[c])
                start = end + 1
            points = [c for c in points if not self.flags[c] & MARK]
        if lowercase:
            points = [p for c in points for p in self.lower.get(c, [c])]
        return "".join(map(chr, points))

    def pre_tokenize(self, text):
        words, word = [], ""
        for char in text:
            flags = self.flags[ord(char)]
            if flags & (WHITE | PUNCTUATION):
                words += [word] if word else []
                words += [char] if flags & PUNCTUATION else []
                word = ""
            else:
                word += char
        return words + ([word] if word else [])

    def check_composition(self, strings):
        """The library's whole normalizer against the table, on strings rich in marks and rare characters."""
        generator = random.Random(20240229)
        marks, special = sorted(self.order), sorted(c for c in CODE_POINTS if self.flags[c])
        split = pre_tokenizers.BertPreTokenizer()
        for number in range(strings):
            options = [generator.random() < 0.5 for _ in range(4)]
            pools = [marks, special, CODE_POINTS, range(0x20, 0x7F), range(0x20, 0x250)]
            text = "".join(chr(generator.choice(generator.choice(pools))) for _ in range(generator.randint(1, 24)))
            clean_text, ideographs, strip_accents, lowercase = options
            wanted = normalizers.BertNormalizer(clean_text=clean_text, handle_chinese_chars=ideographs,
                                                strip_accents=strip_accents, lowercase=lowercase).normalize_str(text)
            got = self.normalize(text, *options)
            if wanted != got or [w for w, _ in split.pre_tokenize_str(wanted)] != self.pre_tokenize(got):
                sys.exit(f"string {number} with options {options}: {text!r} gives {wanted!r}, the table {got!r}")


def rows(items, width=116):
    lines, line = [], " "
    for item in items:
        if len(line) + len(item) + 2 > width:
            lines.append(line)
            line = " "
        line += f" {item},"
    return "\n".join(lines + [line])


def lower_runs(lower):
    """Single-code-point mappings as {first, last, stride, delta}; the case pairs of most scripts have stride 2."""
    runs = []
    for code_point, target in sorted(lower.items()):
        if len(target) != 1:
            continue
        delta = target[0] - code_point
        if runs:
            first, last, stride, same = runs[-1]
            step = code_point - last
            if delta == same and step <= 2 and (first == last or step == stride):
                runs[-1] = (first, code_point, step, same)
                continue
        runs.append((code_point, code_point, 1, delta))
    return runs


def render(table):
    classes, runs, previous = [], [], None
    for code_point in range(0x110000):
        key = (table.flags.get(code_point, 0), table.order.get(code_point, 0))
        if key not in classes:
            classes.append(key)
        if key != previous:
            runs.append((code_point << 8) | classes.index(key))
            previous = key
    assert len(classes) <= 256
    decompositions = []
    for code_point, parts in sorted(table.decomposition.items()):
        if table.flags[code_point] & DECOMPOSES:
            assert len(parts) <= 4
            decompositions.append(f"{code_point << 3 | len(parts):#x}")
            decompositions += [f"{part:#x}" for part in parts]
    many = []
    for code_point, parts in sorted(table.lower.items()):
        if len(parts) > 1:
            many.append(f"{code_point << 3 | len(parts):#x}")
            many += [f"{part:#x}" for part in parts]
    return f"""// Generated by make_unicode_table.py from tokenizers {tokenizers.__version__}; do not edit.
// unicode_data.cc explains and reads it.

// flags, rank of the canonical combining class (0: starter)
constexpr ClassOf kClasses[] = {{
{rows(f"{{{flags}, {order}}}" for flags, order in classes)}
}};

// first code point << 8 | index into kClasses; a run ends where the next begins
constexpr uint32_t kClassRuns[] = {{
{rows(f"{run:#x}" for run in runs)}
}};

// first, last, stride, delta
constexpr LowerRun kLowerRuns[] = {{
{rows(f"{{{first:#x}, {last:#x}, {stride}, {delta}}}" for first, last, stride, delta in lower_runs(table.lower))}
}};

// code point << 3 | count, then the code points
constexpr uint32_t kLowerMany[] = {{
{rows(many)}
}};
constexpr uint32_t kDecompositions[] = {{
{rows(decompositions)}
}};
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--strings", type=int, default=200_000, help="random strings for the self-check")
    parser.add_argument("output", nargs="?",
                        default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "unicode_table.inc"))
    arguments = parser.parse_args()
    table = Table()
    table.check_composition(arguments.strings)
    text = render(table)
    if arguments.check:
        with open(arguments.output, encoding="ascii") as file:
            if file.read() != text:
                sys.exit(f"{arguments.output} differs from what tokenizers {tokenizers.__version__} does")
        return
    with open(arguments.output, "w", encoding="ascii") as file:
        file.write(text)
    print(f"{arguments.output}: {len(text)} bytes, {len(set(table.order.values()))} combining classes")


if __name__ == "__main__":
    main()
