"""Files that were made to harm, or are no files: an error of ours, at once, and nothing of the user's is lost."""

import io
import os
import sys
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from guard_plugin.cli import main
from guard_plugin.distilled.arrays import ArrayFile
from guard_plugin.errors import UnusableInput
from guard_plugin.evaluation.folder import BenchmarkFolder
from guard_plugin.files import (
    atomic_file,
    file_sha256,
    load_untrusted,
    read_json_object,
    refuse_foreign_files,
    remove_unfinished,
)
from guard_plugin.foreign_text import printable
from guard_plugin.image_files import read_image_files

ONES = torch.ones(2, 2)
READERS = [load_untrusted, read_json_object, ArrayFile, file_sha256, lambda file: read_image_files([file])]


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    "make",
    [
        lambda file: file.mkdir(),
        os.mkfifo,
        lambda file: file.symlink_to("/dev/zero"),
        lambda file: file.symlink_to(file),
        lambda file: file.symlink_to("nowhere"),
        lambda file: file.write_bytes(b""),
    ],
    ids=["folder", "pipe", "endless device", "circle of links", "dangling link", "empty"],
)
def test_what_is_no_file_is_refused_and_never_waited_for(tmp_path, reader, make):
    file = tmp_path / "file"
    make(file)
    if reader is file_sha256 and file.is_file():
        assert reader(file).startswith("e3b0c442")
        return
    with pytest.raises(UnusableInput, match="file"):
        reader(file)


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.zeros(1).expand(10**12),
        lambda: ONES.to_sparse(),
        lambda: ONES.to_sparse_csr(),
        lambda: ONES.to("meta"),
        lambda: ONES.to(torch.complex64),
        lambda: torch.quantize_per_tensor(ONES, 0.1, 0, torch.quint8),
        lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
    ],
    ids=["endless", "sparse", "csr", "meta", "complex", "quantised", "nested"],
)
@pytest.mark.filterwarnings("ignore")
def test_tensors_that_are_not_plain_are_refused_wherever_they_lie(tmp_path, make):
    file = tmp_path / "file.pt"
    torch.save({"data": [(ONES, {"deep": make()})]}, file)
    with pytest.raises(UnusableInput, match="dense tensors|repeats its values"):
        load_untrusted(file)


def test_a_label_that_was_expanded_and_containers_in_a_circle_are_read(tmp_path):
    circle = [ONES, torch.tensor(3).expand(50_000)]
    circle.append(circle)
    torch.save(circle, tmp_path / "file.pt")
    assert torch.equal(load_untrusted(tmp_path / "file.pt")[1], torch.full((50_000,), 3))


def test_an_archive_that_torch_did_not_write_is_not_unpacked(tmp_path):
    torch.save(torch.zeros(100_000), tmp_path / "file.pt")
    with (
        zipfile.ZipFile(tmp_path / "file.pt") as whole,
        zipfile.ZipFile(tmp_path / "small.pt", "w", zipfile.ZIP_DEFLATED) as small,
    ):
        for name in whole.namelist():
            small.writestr(name, whole.read(name))
    with pytest.raises(UnusableInput, match="torch.save does not compress"):
        load_untrusted(tmp_path / "small.pt")


@pytest.mark.parametrize(
    "text",
    ["[" * 10**5, '{"a": ' * 10**5, '{"a": NaN}', '{"a": 1e999}', f'{{"a": {"1" * 5000}}}', "[1]", '{"a": "\xff"}'],
    ids=["lists", "objects", "nan", "infinity", "digits", "no object", "no text"],
)
def test_json_that_cannot_be_written_again_is_refused(tmp_path, text):
    (tmp_path / "file.json").write_text(text, encoding="latin-1")
    with pytest.raises(UnusableInput, match=r"file\.json"):
        read_json_object(tmp_path / "file.json")


def npy(shape, data=b"", descr="<f4"):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": descr, "fortran_order": False, "shape": shape})
    return header.getvalue() + data


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (npy((10**12, 8)), "32000000000000 bytes, and the file holds"),
        (npy((2,), descr="|V2000000000"), "4000000000 bytes"),
        (npy((-3, 8), bytes(400)), "cannot be read"),
        (b"\x93NUMPY\x01\x00\x28\x23" + b"(" * 9000, "cannot be read"),
        (npy((2**20,), bytes(2**22)), "unpacks to"),
    ],
    ids=["shape", "type", "negative", "nesting", "zeros"],
)
def test_arrays_larger_than_their_file_are_not_read(tmp_path, monkeypatch, array, words):
    monkeypatch.setattr("guard_plugin.distilled.arrays._SMALL", 2**21)
    with zipfile.ZipFile(tmp_path / "file.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", array)
    monkeypatch.setattr(np, "load", None)
    with pytest.raises(UnusableInput, match=words):
        ArrayFile(tmp_path / "file.npz")["images"]


@pytest.mark.parametrize("most", [10, 39])  # Pillow raises an error from twice its limit on, and only warns before
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_huge_images_are_refused(tmp_path, monkeypatch, most):
    Image.new("L", (8, 5)).save(tmp_path / "a.png")
    assert read_image_files([tmp_path / "a.png"]).shape == (1, 1, 5, 8)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", most)
    with pytest.raises(UnusableInput, match=r"a\.png.*decompression bomb"):
        read_image_files([tmp_path / "a.png"])


def test_what_terminals_obey_is_written_as_codes():
    hostile = "a\x1b[2J\r\x07\x9b\u202eb\ud800\udcff\u2028\x7f"
    assert printable(hostile) == r"a\x1b[2J\r\x07\x9b\u202eb\ud800\udcff\u2028\x7f"
    kept = "é, 中, µ,\ta\N{NO-BREAK SPACE}% \N{MINUS SIGN}1\n"
    assert printable(kept) == kept


@pytest.mark.parametrize("name", ["\x1b[2J.pt", "\udcff\u202e.pt", "x" * 300])
@pytest.mark.parametrize("options", [[], ["--checkpoint"], ["--adapter", "plain", "--distilled"]])
def test_names_of_files_reach_the_terminal_without_control_characters(tmp_path, monkeypatch, capsys, name, options):
    monkeypatch.setattr(sys, "argv", ["guard", "benchmark", "--out", str(tmp_path / "out"), *options, name])
    with pytest.raises(SystemExit, match="2"):
        main()
    told = capsys.readouterr().err
    assert "rror" in told and printable(told) == told


def test_a_pipe_is_written_to_straight_and_not_waited_for(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="No such device"), atomic_file(pipe):
        pass
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with atomic_file(pipe) as file:
        file.write(b"content")
    assert os.read(reader, 99) == b"content"
    os.close(reader)
    assert pipe.is_fifo()


def test_links_stay_and_lead_to_what_is_written(tmp_path):
    link, target, circle = (tmp_path / name for name in ("link", "target", "circle"))
    link.symlink_to(target)
    for content in (b"1", b"2"):
        with atomic_file(link) as file:
            file.write(content)
        assert link.is_symlink() and target.read_bytes() == content
    circle.symlink_to(circle)
    with pytest.raises(OSError, match="Too many levels"), atomic_file(circle):
        pass
    assert circle.is_symlink()


def test_only_our_own_leftovers_are_removed(tmp_path):
    ours, secret = tmp_path / f".results.json.{os.getpid()}.unfinished", tmp_path / "secret"
    secret.write_text("kept")
    foreign = [tmp_path / name for name in ("thesis.unfinished", ".thesis.unfinished", "a.1.unfinished")]
    for file in (ours, *foreign):
        file.write_text("")
    (tmp_path / ".link.1.unfinished").symlink_to(secret)
    (tmp_path / ".folder.1.unfinished").mkdir()
    before = set(tmp_path.iterdir())
    remove_unfinished(tmp_path)
    remove_unfinished(tmp_path / "nowhere")
    assert before - set(tmp_path.iterdir()) == {ours}
    # What is begun does not go through a link that lies where it begins.
    ours.symlink_to(secret)
    with atomic_file(tmp_path / "results.json") as file:
        file.write(b"new")
    assert secret.read_text() == "kept"


@pytest.mark.parametrize("name", ["results.json", "records", "students"])
def test_a_benchmark_does_not_begin_in_a_folder_with_files_of_that_name(tmp_path, name):
    (tmp_path / name).write_text("mine")
    claim = BenchmarkFolder(tmp_path, examples=3).claimed({})
    with pytest.raises(UnusableInput, match=f"holds {name} of another origin.*choose another --out"), claim:
        pass
    assert (tmp_path / name).read_text() == "mine" and not (tmp_path / "fingerprint.json").exists()


def test_a_foreign_lock_is_left_as_it_is(tmp_path):
    lock, secret = tmp_path / "out" / ".lock", tmp_path / "secret"
    lock.parent.mkdir()
    for file in (lock, secret):
        file.write_text("mine")
    with BenchmarkFolder(lock.parent, examples=3).claimed({}):
        pass
    assert lock.read_text() == "mine"
    lock.unlink()
    lock.symlink_to(secret)
    with pytest.raises(UnusableInput, match="Choose another --out"), BenchmarkFolder(lock.parent, 3).claimed({}):
        pass
    assert secret.read_text() == "mine"


def test_a_marked_folder_may_hold_everything(tmp_path):
    for name in ("mark", "results.json"):
        (tmp_path / name).write_text("")
    refuse_foreign_files(tmp_path, ["results.json"], "mark")
