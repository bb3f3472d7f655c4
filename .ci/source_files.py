"""Which files a repository has and what their quoted includes name: what the checks of .ci share."""

import os
import re
import subprocess

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')


def listed_files(root):
    try:
        output = subprocess.run(["git", "-C", root, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
                                check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout.decode()
        names = [name for name in output.split("\0") if name]
    except (OSError, subprocess.CalledProcessError):
        names = []
        for base, folders, files in os.walk(root):
            folders[:] = [f for f in folders if f != ".git" and not (base == root and f.startswith("build"))]
            names += [os.path.relpath(os.path.join(base, f), root) for f in files]
    return sorted(name for name in names if os.path.isfile(os.path.join(root, name)))


def resolve(root, path, target):
    """The repository path of a quoted include, or None if it is not ours."""
    beside = os.path.normpath(os.path.join(os.path.dirname(path), target))
    for candidate in (target, beside, os.path.join("producer/include", target)):
        if os.path.isfile(os.path.join(root, candidate)):
            return candidate
    return None
