"""The IDX files of the MNIST family: small ones written here, broken ones, and the real 70,000 images."""

import gzip
import importlib.util
import shutil
import struct
from pathlib import Path

import pytest
import torch

import hpsearch as hp
from hpsearch.training.data import prepare, sealed_test
from hpsearch.training.recipe import ModelParams

STUDIES = Path(__file__).parents[2] / "studies"
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
FILES = {"train": 60, "t10k": 20}


def module():
    spec = importlib.util.spec_from_file_location("fashion_mnist", STUDIES / "fashion_mnist.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


fashion = module()


def idx(tensor):
    return bytes([0, 0, 8, tensor.dim()]) + struct.pack(f">{tensor.dim()}I", *tensor.shape) + tensor.numpy().tobytes()


def write(folder, name, raw, zipped):
    folder.mkdir(exist_ok=True)
    (folder / (f"{name}.gz" if zipped else name)).write_bytes(gzip.compress(raw) if zipped else raw)


@pytest.fixture(params=[False, True], ids=["plain", "gz"])
def folder(tmp_path, request):
    """Images whose class is the row that is lit: learnable, and every pixel is known."""
    for part, count in FILES.items():
        labels = torch.arange(count, dtype=torch.uint8) % 10
        images = torch.zeros(count, 28, 28, dtype=torch.uint8)
        for image, label in zip(images, labels.tolist(), strict=True):
            image[2 * label] = 255
        write(tmp_path / "images", f"{part}-images-idx3-ubyte", idx(images), request.param)
        write(tmp_path / "images", f"{part}-labels-idx1-ubyte", idx(labels), request.param)
    return tmp_path / "images"


def test_reads_bytes_in_their_places(folder):
    data = fashion.load(folder)
    assert data.inputs.shape == (60, 28, 28)
    assert data.inputs.dtype == data.targets.dtype == torch.uint8
    assert data.inputs[13].nonzero()[:, 0].unique().tolist() == [6]
    assert data.targets[13].item() == 3
    assert len(data.test_inputs) == len(data.test_targets) == 20
    batch = data.transform(data.inputs[:7])
    assert batch.shape == (7, 1, 28, 28)
    assert (batch.min().item(), batch.max().item()) == pytest.approx((-0.286 / 0.353, 0.714 / 0.353))


def test_the_folder_is_the_studys_and_t10k_is_the_test_part(folder):
    task = fashion.FashionMLP()
    task.study_dir = folder.parent
    params = ModelParams({"images": "images", "dropout": 0.0})
    (parts,) = prepare(task, 0, "cpu", params)
    assert params.read == {"images": "images"}
    assert len(parts.train.targets) + len(parts.validation.targets) == 60
    assert parts.train.inputs.dtype == torch.uint8
    assert len(sealed_test(task, 0, "cpu", params)[0].targets) == 20


GOOD = idx(torch.zeros(3, 2, 2, dtype=torch.uint8))


@pytest.mark.parametrize(
    ("raw", "zipped", "words"),
    [
        (GOOD[:-1], False, "says \\[3, 2, 2\\], which is 12 bytes, but 11 follow"),
        (GOOD + b"\0", True, "but 13 follow"),
        (b"", False, "begins with nothing"),
        (GOOD[:9], False, "is no IDX file"),
        (b"\x89PNG" + GOOD, False, "begins with 89 50 4e 47"),
        (b"\0\0\x0d" + GOOD[3:], False, "numbers of type 0x0d"),
        (idx(torch.zeros(12, dtype=torch.uint8)) + bytes(8), False, "has 1 dimensions, not 3"),
        (b"\0\0\x08\x03" + b"\xff" * 12, False, "says \\[4294967295, "),
    ],
)
def test_a_broken_file_is_named_with_what_is_wrong(tmp_path, raw, zipped, words):
    write(tmp_path, "images", raw, zipped)
    with pytest.raises(ValueError, match=words) as caught:
        fashion.read_idx(tmp_path, "images", 3)
    assert str(tmp_path / "images") in str(caught.value)


def test_broken_gzip_missing_files_and_unequal_lengths(tmp_path):
    (tmp_path / "images.gz").write_bytes(gzip.compress(GOOD)[:-4])
    with pytest.raises(ValueError, match="is no whole gzip file"):
        fashion.read_idx(tmp_path, "images", 3)
    (tmp_path / "images.gz").write_bytes(GOOD)
    with pytest.raises(ValueError, match="is no whole gzip file"):
        fashion.read_idx(tmp_path, "images", 3)
    with pytest.raises(FileNotFoundError, match=r"neither labels nor labels\.gz"):
        fashion.read_idx(tmp_path, "labels", 1)
    write(tmp_path, "train-images-idx3-ubyte", GOOD, False)
    write(tmp_path, "train-labels-idx1-ubyte", idx(torch.zeros(2, dtype=torch.uint8)), False)
    with pytest.raises(ValueError, match="3 images, but 2 labels"):
        fashion.read_part(tmp_path, "train")


def quick_study(tmp_path, name, **overrides):
    """A copy of a study whose task trains for one epoch."""
    for file in STUDIES.glob("fashion_mnist*"):
        if file.is_file():
            shutil.copy(file, tmp_path)
    task = {"mlp": "FashionMLP", "cnn": "FashionCNN"}[name]
    (tmp_path / "quick.py").write_text(f"from fashion_mnist import {task}\n\n\nclass Quick({task}):\n    epochs = 1\n")
    return hp.read_study(
        tmp_path / f"fashion_mnist_{name}.yaml", {"objective": "quick.py:Quick", "baseline": False, **overrides}
    )


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_a_study_on_a_small_file(tmp_path, folder, name):
    study = quick_study(tmp_path, name, **{"search_space.images": "images", "n_trials": 2})
    hp.run(study, db=f"sqlite:///{tmp_path}/record.db", on="inline")
    trials = hp.load(study.name, db=f"sqlite:///{tmp_path}/record.db").trials
    assert [trial.state for trial in trials] == ["complete"] * 2
    assert {trial.params["images"] for trial in trials} == {"images"}


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="needs Debian's package dataset-fashion-mnist")
def test_a_study_on_the_real_70_000_images(tmp_path):
    data = fashion.load(DEBIAN)
    assert torch.bincount(data.targets.int()).tolist() == [6000] * 10
    assert torch.bincount(data.test_targets.int()).tolist() == [1000] * 10
    scaled = data.transform(data.inputs)
    assert (scaled.mean().item(), scaled.std().item()) == pytest.approx((0.0, 1.0), abs=1e-3)
    narrow = {"search_space.lr": "{log: [0.02, 0.1]}", "search_space.momentum": 0.9, "n_trials": 2}
    study = quick_study(tmp_path, "mlp", **narrow)
    hp.run(study, db=f"sqlite:///{tmp_path}/record.db", on="inline")
    values = [trial.value for trial in hp.load(study.name, db=f"sqlite:///{tmp_path}/record.db").trials]
    assert len(values) == 2
    # One epoch of a two-layer network reaches about 0.85 there; a wrong order of bytes or labels, 0.1.
    assert min(values) > 0.75
