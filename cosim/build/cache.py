"""Build folder keyed by content: what was built once is never built again."""
import contextlib
import fcntl
import hashlib
import os
import shutil
import time
from pathlib import Path


def build_root():
    """Folder of everything that is built; ``MXLET_BUILD`` overrides it."""
    return Path(os.environ.get("MXLET_BUILD", Path(__file__).parents[2] / "build")) / "cosim"


def digest(*parts):
    """Key of a build: a hash of the texts and values that decide its result."""
    text = "\0".join(p if isinstance(p, str) else repr(p) for p in parts)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


@contextlib.contextmanager
def locked(path):
    """Hold an exclusive lock between processes for as long as the context lasts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def cached(key, make):
    """Folder ``<root>/<key>``, made by ``make(folder)`` if it is not there yet.

    Two processes that want the same key build it once: the second waits for the first. A build
    that fails leaves nothing behind. Returns the folder and the seconds spent building (0.0 if it
    was there).
    """
    folder = build_root() / key
    if (folder / "done").exists():
        return folder, 0.0
    with locked(build_root() / f"{key}.lock"):
        if (folder / "done").exists():
            return folder, 0.0
        start = time.monotonic()
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            make(folder)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        seconds = time.monotonic() - start
        (folder / "done").write_text(f"{seconds:.1f}\n")
    return folder, seconds


def building_seconds(folders):
    """Seconds in which at least one of the folders was being built, when that was."""
    total, latest = 0.0, 0.0
    notes = [folder / "done" for folder in folders]
    spans = [(n.stat().st_mtime - float(n.read_text()), n.stat().st_mtime) for n in notes]
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, latest))
        latest = max(latest, end)
    return total
