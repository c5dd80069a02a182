"""Tests of the command line: what a user can get wrong ends in one sentence and status 2."""
import json
import subprocess
import sys

import pytest


def mxlet(*arguments):
    return subprocess.run([sys.executable, "-m", "host.cli", *map(str, arguments)], text=True,
                          capture_output=True, check=False)


@pytest.mark.parametrize("arguments, words", [
    (["run", "embed", "--package", "mtia999"], "Package 'mtia999' does not exist; there are"),
    (["run", "fly"], "Job 'fly' does not exist; there are embed, tp"),
    (["run", "tp", "--ranks", "9"], "Ranks must be 2 to 8, not 9"),
    (["run", "tp", "--ranks", "1"], "Ranks must be 2 to 8, not 1"),
    (["run", "tp", "--ranks", "3"], "Ranks must divide the 32 heads, as 3 do not"),
    (["run", "tp", "--ranks", "2", "--inner", "96"], "for each of 2 ranks, not 96"),
    (["run", "tp", "--tokens", "0"], "Tokens must be at least 1, not 0"),
    (["run", "tp", "--sums", "fp8"], "Sums must be fp32 or bf16, not 'fp8'"),
    (["run", "tp", "--weights", "mxfp5"], "Weights must be mxfp8 or mxfp4, not 'mxfp5'"),
    (["run", "tp", "--weights", "mxfp4", "--package", "mtia300"], "which has no MX4"),
    (["run", "tp", "--package", "mtia999"], "Package 'mtia999' does not exist; there are"),
    (["run", "tp", "--package", "all"], "Package 'all' does not exist; there are"),
    (["run", "tp", "--text", "Hello."], "--text is for embed, not for tp"),
    (["run", "embed", "--ranks", "2"], "--ranks is for tp, not for embed"),
    (["run", "embed", "--weights", "mxfp5"], "Weights must be mxfp8 or mxfp4, not 'mxfp5'"),
    (["run", "embed", "--text", "  "], "has no words"),
    (["run", "embed", "--text", "word " * 600], "at most"),
    (["run", "embed", "--file", "/nowhere/at/all"], "cannot be read"),
    (["run", "embed", "--threads", "0"], "Workers must be positive"),
    (["run", "embed", "--out", "/proc/nothing"], "Cannot write to '/proc/nothing'"),
    (["run", "embed", "--trace", "/proc/nothing/t.json"], "Cannot write to"),
    (["bench", "nothing"], "Bench 'nothing' does not exist; there are"),
    (["bench"], "Bench None does not exist; there are"),
    (["generate", "nothing", "-o", "/tmp"], "Top 'nothing' does not exist; there are"),
    (["generate", "pe", "-o", "/tmp", "--size", "huge"], "Size must be one of sim, full, not"),
    (["packages", "--size", "huge"], "Size must be one of sim, full, not 'huge'"),
])
def test_mistakes_end_in_one_sentence(arguments, words):
    result = mxlet(*arguments)
    assert result.returncode == 2
    assert words in result.stderr and "Traceback" not in result.stderr
    assert len(result.stderr.splitlines()) <= 2 and not result.stdout


@pytest.mark.parametrize("content, words", [
    (b"", "has no sentence"), (b"\n \n", "has no sentence"), (b"\xc1\x00\xff", "is no UTF-8 text")])
def test_files_without_a_sentence(content, words, tmp_path):
    path = tmp_path / "texts.txt"
    path.write_bytes(content)
    result = mxlet("run", "embed", "--file", path)
    assert result.returncode == 2 and words in result.stderr


def test_packages_as_json():
    result = mxlet("packages", "--json", "-")
    report = json.loads(result.stdout)
    assert result.returncode == 0
    assert {"name", "package", "metrics", "checks", "config"} <= report.keys()
