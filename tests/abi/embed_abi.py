#!/usr/bin/env python3
"""The C ABI of embed.h as a table, compared with the one that is checked in (embed_abi.txt).

  embed_abi.py HEADER TABLE EXPORTS            compares; exit code 1 and the difference if they are not the same
  embed_abi.py HEADER TABLE EXPORTS --accept   writes the table: for a change that is meant (the table's first lines say
                                               when one may be)
  embed_abi.py HEADER TABLE EXPORTS --self-test   changes a copy of the header in every way that matters, and fails
                                               unless each of them is noticed

The header is read as text for names, types and signatures, so that nothing new can be left out, and by the C compiler
for numbers. EXPORTS is the list of the functions that the library exports: the same as those that the header declares.
"""
import argparse
import difflib
import pathlib
import re
import subprocess
import sys
import tempfile

PREFACE = """\
# What a program that was compiled against embed.h relies on, on x86-64 and other LP64 machines. Compared in every build by
# tests/abi/embed_abi.py; made by it with --accept.
# A program stays compatible with what comes later if lines are only added: a function, a constant with a new number, a
# field at the end of a structure (whose size and padding change then). Any other difference breaks programs that are
# already compiled, and needs another SONAME and SUTRA_ABI_VERSION.
"""


def declarations(header: str) -> list[str]:
    """The C declarations of the header, one string each, with single spaces."""
    text = re.sub(r"/\*.*?\*/", " ", header, flags=re.S)
    text = text.replace("\\\n", " ")
    text = re.sub(r"^\s*#.*$", "", text, flags=re.M)
    text = re.sub(r'extern "C" \{|^\}\s*$', "", text, flags=re.M).replace("SUTRA_API", "")
    found, depth, start = [], 0, 0
    for at, letter in enumerate(text):
        depth += {"{": 1, "}": -1}.get(letter, 0)
        if letter == ";" and depth == 0:
            found.append(" ".join(text[start:at].split()))
            start = at + 1
    if text[start:].strip(" \n}"):
        raise SystemExit(f"not understood: {text[start:].strip()[:200]}")
    return found


def fields_of(body: str) -> list[tuple[str, str]]:
    """(name, type) of each field of a structure."""
    fields = []
    for field in filter(None, (part.strip() for part in body.split(";"))):
        pointer = re.fullmatch(r"(.*)\(\*(\w+)\)(\(.*\))", field)
        array = re.fullmatch(r"(.*?)(\w+)(\[\w+\])", field)
        plain = re.fullmatch(r"(.*?)(\w+)", field)
        if pointer:
            fields.append((pointer[2], f"{pointer[1]}(*){pointer[3]}"))
        elif array:
            fields.append((array[2], array[1].strip() + array[3]))
        elif plain:
            fields.append((plain[2], plain[1].strip()))
        else:
            raise SystemExit(f"not understood: {field}")
    return fields


def compile_and_run(header: pathlib.Path, body: str) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        program = pathlib.Path(folder) / "numbers"
        source = f'#include "{header.resolve()}"\n#include <stdio.h>\nint main(void) {{\n{body}return 0;\n}}\n'
        subprocess.run(["cc", "-std=c11", "-Werror", "-x", "c", "-", "-o", str(program)], input=source, text=True,
                       check=True)
        return subprocess.run([str(program)], capture_output=True, text=True, check=True).stdout.splitlines()


def constants_of(header: pathlib.Path) -> tuple[list[str], list[str]]:
    """Names of the macros that are numbers, and lines of the others."""
    macros = subprocess.run(["cc", "-dM", "-E", "-x", "c", str(header)], capture_output=True, text=True,
                            check=True).stdout
    numbers, others = [], []
    for name, value in re.findall(r"^#define (SUTRA_\w+) ?(.*)$", macros, flags=re.M):
        if name in ("SUTRA_EMBED_H", "SUTRA_API"):
            continue
        if re.fullmatch(r"(0x)?[0-9a-fA-F]+u?", value):
            numbers.append(name)
        else:
            others.append(f"macro {name} {value}")
    return numbers, others


def make_table(header: pathlib.Path) -> tuple[list[str], list[str]]:
    """The lines of the table, and the names of the functions."""
    numbers, lines = constants_of(header)
    functions, queries = [], [f'printf("constant {name} %llu\\n", (unsigned long long)({name}));\n' for name in numbers]
    for declaration in declarations(header.read_text()):
        structure = re.fullmatch(r"typedef struct (\w+) \{(.*)\} \1", declaration)
        if structure:
            name = structure[1]
            queries.append(f'printf("struct {name} size %zu align %zu\\n", sizeof({name}), _Alignof({name}));\n')
            queries += [
                f'printf("field {name}.{field} offset %zu size %zu type {kind}\\n", offsetof({name}, {field}), '
                f"sizeof((({name}*)0)->{field}));\n" for field, kind in fields_of(structure[2])
            ]
        elif declaration.startswith("typedef"):
            lines.append(declaration)
        else:
            name = re.search(r"(\w+)\(", declaration)
            if not name:
                raise SystemExit(f"not understood: {declaration}")
            functions.append(name[1])
            lines.append(f"function {declaration}")
    return sorted(lines + compile_and_run(header, "".join(queries)), key=sort_key), sorted(functions)


def sort_key(line: str):
    """Fields in the order of their offsets, all else by name."""
    field = re.match(r"field (\w+)\.\w+ offset (\d+)", line)
    if field:
        return ("struct", field[1], 1, int(field[2]), "")
    kind, name = line.split(" ", 2)[:2]
    constant = re.match(r"constant (\w+) ", line)
    return (kind, name if kind == "struct" else "", 0, 0, constant[1] if constant else line)


def differences(header: pathlib.Path, table: str, exports: list[str]) -> list[str]:
    lines, functions = make_table(header)
    found = list(difflib.unified_diff(table.splitlines(), (PREFACE + "\n".join(lines)).splitlines(), "checked in",
                                      "now", lineterm="", n=0))
    found += [f"the header does not declare {name}" for name in exports if name not in functions]
    return found


# Each changes one thing that a compiled program relies on.
CHANGES = {
    "a field that changes its type": ("uint32_t timeout_ms; /* deadline", "uint64_t timeout_ms; /* deadline"),
    "a field that changes its type, but not its size": ("uint64_t tag;        /*", "int64_t tag;        /*"),
    "two fields that change places": ("uint32_t flags;\n  uint32_t width; /* 0 = the model's */",
                                      "uint32_t width; /* 0 = the model's */\n  uint32_t flags;"),
    "a field that is renamed": ("float near_threshold;", "float near;"),
    "a new field": ("uint64_t match_id;", "uint64_t match_id;\n  uint64_t another;"),
    "an array of another length": ("char identity[72];", "char identity[80];"),
    "a function pointer of another signature": ("(void* context, size_t done", "(void* context, uint32_t done"),
    "a constant of another number": ("#define SUTRA_CANCELLED 9u", "#define SUTRA_CANCELLED 99u"),
    "a constant that is gone": ("#define SUTRA_FORKED 17u", ""),
    "a function of another signature": ("SUTRA_API void sutra_detach(sutra_client* client)",
                                        "SUTRA_API int sutra_detach(sutra_client* client)"),
    "a function that is gone": ("SUTRA_API uint32_t sutra_abi_version(void);", ""),
    "a type of another width": ("typedef uint64_t sutra_ticket;", "typedef uint32_t sutra_ticket;"),
    "other defaults": ("#define SUTRA_SPIN_US_DEFAULT 30u", "#define SUTRA_SPIN_US_DEFAULT 31u"),
}


def self_test(header: pathlib.Path, table: str, exports: list[str]) -> int:
    text, missed, before_any = header.read_text(), 0, set(differences(header, table, exports))
    for what, (before, after) in CHANGES.items():
        with tempfile.TemporaryDirectory() as folder:
            changed = pathlib.Path(folder) / "embed.h"
            if before not in text:
                raise SystemExit(f"{what}: the header no longer has {before!r}; change this script's CHANGES")
            changed.write_text(text.replace(before, after, 1))
            noticed = set(differences(changed, table, exports)) - before_any
        print(f"{'noticed' if noticed else 'NOT NOTICED'}: {what}")
        missed += not noticed
    return 1 if missed else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("header", type=pathlib.Path)
    parser.add_argument("table", type=pathlib.Path)
    parser.add_argument("exports", type=pathlib.Path)
    parser.add_argument("--accept", action="store_true")
    parser.add_argument("--self-test", action="store_true")
    arguments = parser.parse_args()
    if arguments.accept:
        arguments.table.write_text(PREFACE + "\n".join(make_table(arguments.header)[0]) + "\n")
        return 0
    table, exports = arguments.table.read_text(), arguments.exports.read_text().split()
    if arguments.self_test:
        return self_test(arguments.header, table, exports)
    found = differences(arguments.header, table, exports)
    print("\n".join(found + [f"see the first lines of {arguments.table}"] if found else ["the same"]))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
