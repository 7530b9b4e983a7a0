"""Weights are told by their content, hashed beside whatever else goes on."""

import hashlib
import os
import subprocess
import sys
import time

import pytest

from adallava.checkpoints import weights_hash
from adallava.checkpoints.weights_hash import begin_weights_sha256, sha256_of, weights_sha256


@pytest.mark.parametrize("size", [0, 1, 10, 11])
def test_a_file_in_pieces_has_the_hash_of_the_whole(tmp_path, monkeypatch, size):
    monkeypatch.setattr(weights_hash, "_PIECE_BYTES", 5)
    path = tmp_path / "file"
    path.write_bytes(bytes(range(size)))
    assert sha256_of(path) == hashlib.sha256(bytes(range(size))).hexdigest()


def test_of_several_files_it_is_that_of_their_digests(tmp_path):
    (tmp_path / "model.safetensors.index.json").write_text(
        '{"weight_map": {"x": "b.safetensors", "y": "a.safetensors"}}'
    )
    for name in "ab":
        (tmp_path / f"{name}.safetensors").write_bytes(name.encode())
    digests = [hashlib.sha256(name.encode()).hexdigest() for name in "ab"]
    assert weights_sha256(tmp_path) == hashlib.sha256("".join(digests).encode()).hexdigest()


def test_it_is_read_once_and_anew_when_the_file_is_another(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"one")
    begun = begin_weights_sha256(tmp_path)
    assert begin_weights_sha256(tmp_path) is begun
    path.write_bytes(b"two")
    os.utime(path, ns=(1, 1))
    assert weights_sha256(tmp_path) == hashlib.sha256(b"two").hexdigest()


_ENDS = """
import sys
from pathlib import Path
from adallava.checkpoints import weights_hash
weights_hash.sha256_of = lambda path: __import__("time").sleep(60)
weights_hash.begin_weights_sha256(Path(sys.argv[1]))
"""


def test_a_process_that_ends_does_not_wait_for_it(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"one")
    start = time.monotonic()
    subprocess.run([sys.executable, "-c", _ENDS, str(tmp_path)], check=True, timeout=50)
    assert time.monotonic() - start < 50
