"""Where images come from: every accepted source, every refusal, and the cache."""

from __future__ import annotations

import hashlib
import http.server
import io
import pickle
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.datasets import CIFAR10

from evonorm.lab.data import cifar10, image_files
from evonorm.lab.data.sets import balanced_subset, load
from evonorm.lab.errors import UserError

REAL = Path(__file__).parents[4] / "shared" / "data" / "cifar10-images.zip"


def picture(value: int, size: tuple[int, int] = (32, 32), mode: str = "RGB", kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, (value, 2 * value, 255 - value)).convert(mode).save(out, kind)
    return out.getvalue()


FILES = {
    f"set/{split}/{name}/{index}.png": picture(20 * place + index)
    for split, count in (("train", 4), ("test", 2))
    for place, name in enumerate(("cat", "dog"))
    for index in range(count)
}


def as_zip(path: Path, files: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def as_folder(path: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def quiet(text: str) -> None:
    pass


def test_a_zip_and_a_folder_hold_the_same_images(tmp_path: Path, cache: Path) -> None:
    zipped = load(str(as_zip(tmp_path / "a.zip", FILES)), cache_folder=cache, say=quiet)
    folder = load(str(as_folder(tmp_path / "pictures", FILES)), cache_folder=cache, say=quiet)
    for data in (zipped, folder):
        assert data.classes == ("cat", "dog")
        assert data.train_images.shape == (8, 32, 32, 3)
        assert data.train_images.dtype == np.uint8
        assert data.train_labels.dtype == np.int64
        assert data.notice == ""
    assert (zipped.name, folder.name) == ("a.zip", "pictures")
    np.testing.assert_array_equal(zipped.train_images, folder.train_images)
    red = zipped.train_images[:, 0, 0, 0].astype(int)
    np.testing.assert_array_equal(red // 20, zipped.train_labels)
    assert sorted(red) == [0, 1, 2, 3, 20, 21, 22, 23]
    assert list(zipped.train_labels) != sorted(zipped.train_labels)  # not sorted by class: the first N are a sample


def test_the_cache_is_by_content(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = as_zip(tmp_path / "a.zip", FILES)
    first = load(str(path), cache_folder=cache, say=quiet)
    with monkeypatch.context() as patched:
        patched.setattr(image_files, "decode", lambda *_: pytest.fail("decoded again"))
        path.rename(tmp_path / "b.zip")
        again = load(str(tmp_path / "b.zip"), cache_folder=cache, say=quiet)
    assert again.fingerprint == first.fingerprint
    np.testing.assert_array_equal(again.test_images, first.test_images)
    other = load(str(as_zip(path, FILES | {"set/test/dog/9.png": picture(9)})), cache_folder=cache, say=quiet)
    assert other.fingerprint != first.fingerprint


@pytest.mark.parametrize("garbage", [b"", b"half of it", b"PK\x03\x04 torn"])
def test_a_broken_cache_is_said_and_rebuilt(tmp_path: Path, cache: Path, garbage: bytes) -> None:
    path = as_zip(tmp_path / "a.zip", FILES)
    first = load(str(path), cache_folder=cache, say=quiet)
    (kept,) = cache.glob("*.npz")
    kept.write_bytes(garbage)
    said: list[str] = []
    again = load(str(path), cache_folder=cache, say=said.append)
    assert any("is broken" in text for text in said)
    np.testing.assert_array_equal(again.train_images, first.train_images)
    assert kept.stat().st_size > 1000


def test_a_cache_that_cannot_be_written_costs_only_the_cache(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said: list[str] = []
    data = load(str(as_zip(tmp_path / "a.zip", FILES)), cache_folder=tmp_path / "file" / "cache", say=said.append)
    assert len(data.train_labels) == 8
    assert any("cannot cache" in text for text in said)


def test_other_sizes_and_modes_are_converted_and_said(tmp_path: Path, cache: Path) -> None:
    more = {
        "set/train/cat/grey.png": picture(7, (50, 40), "L"),
        "set/train/cat/alpha.png": picture(7, mode="RGBA"),
        "set/train/cat/palette.gif": picture(7, mode="P", kind="GIF"),
        "set/train/dog/photo.jpg": picture(7, (300, 200), kind="JPEG"),
    }
    data = load(str(as_zip(tmp_path / "a.zip", FILES | more)), cache_folder=cache, say=quiet)
    assert data.train_images.shape == (12, 32, 32, 3)
    assert data.notice == "2 images were of other sizes and were resized to 32x32."
    cached = load(str(tmp_path / "a.zip"), cache_folder=cache, say=quiet)
    assert cached.notice == data.notice


def test_the_side_of_pictures_is_said_behind_the_name(tmp_path: Path, cache: Path) -> None:
    large = {name: picture(index, (64, 64)) for index, name in enumerate(FILES)}
    archive = as_zip(tmp_path / "set.zip", large)
    small, data, larger = (load(f"{archive}{at}", cache_folder=cache, say=quiet) for at in ("", "@64", "@128"))
    assert (data.train_images.shape, data.test_images.shape) == ((8, 64, 64, 3), (4, 64, 64, 3))
    assert (data.name, data.notice) == ("set.zip@64", "")
    assert "resized to 128x128" in larger.notice
    assert small.train_images.shape == (8, 32, 32, 3)
    assert load(f"{archive}@32", cache_folder=cache, say=quiet).fingerprint == small.fingerprint
    assert len({one.fingerprint for one in (small, data, larger)}) == 3
    # What is called so is meant.
    folder = as_folder(tmp_path / "set@64", large)
    assert load(str(folder), cache_folder=cache, say=quiet).train_images.shape == (8, 32, 32, 3)


@pytest.mark.parametrize(
    ("at", "message"),
    [("@8", "a side must be between 16 and 512 pixels: got 8"), ("@x", "there is no"), ("/cifar-10-batches-py@64", "")],
)
def test_sides_that_are_refused(tmp_path: Path, cache: Path, at: str, message: str) -> None:
    (tmp_path / "cifar-10-batches-py").mkdir()
    with pytest.raises(UserError, match=message or "a side is of folders and zips of .*; leave out @64"):
        load(f"{tmp_path}{at}", cache_folder=cache, say=quiet)


def test_what_desktops_leave_behind_is_passed_over(tmp_path: Path, cache: Path) -> None:
    clutter = {
        "__MACOSX/set/train/cat/._0.png": b"x",
        "set/train/cat/.DS_Store": b"x",
        "set/train/.hidden/0.png": b"x",
        "set/train/cat/Thumbs.db": b"x",
        "set/README.txt": b"x",
    }
    data = load(str(as_zip(tmp_path / "a.zip", FILES | clutter)), cache_folder=cache, say=quiet)
    assert len(data.train_labels) == 8


def without(prefix: str) -> dict[str, bytes]:
    return {name: content for name, content in FILES.items() if not name.startswith(prefix)}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (without("set/test"), "has no test/<class>/<image>; images must lie as"),
        ({"a.png": picture(1)}, "has no train/<class>/<image>"),
        (without("set/test/dog"), "class dog is in train but not in test"),
        (without("set/train/dog"), "class dog is in test but not in train"),
        (FILES | {"set/train/cow/": b"", "set/test/cow/1.png": picture(1)}, "class train/cow is empty"),
        (FILES | {"set/train/cat/7.png": b"no picture"}, "set/train/cat/7.png is not an image that can be read"),
        (FILES | {"set/train/cat/7.png": picture(1)[:60]}, "set/train/cat/7.png is not an image that can be read"),
        (FILES | {"set/train/cat/7.png": b""}, "set/train/cat/7.png is not an image that can be read"),
        (FILES | {"../evil.png": picture(1)}, "'../evil.png' points outside the zip; refused"),
        (FILES | {"set/../../evil.png": picture(1)}, "points outside the zip"),
        (FILES | {"/etc/evil.png": picture(1)}, "points outside the zip"),
        (FILES | {"C:/evil.png": picture(1)}, "points outside the zip"),
    ],
)
def test_faulty_zips_are_named(tmp_path: Path, cache: Path, files: dict[str, bytes], message: str) -> None:
    path = as_zip(tmp_path / "a.zip", files)
    with pytest.raises(UserError, match=message) as caught:
        load(str(path), cache_folder=cache, say=quiet)
    assert "a.zip" in str(caught.value)
    assert not (tmp_path / "evil.png").exists()
    assert not list(cache.glob("*.npz"))


def test_an_empty_class_folder(tmp_path: Path, cache: Path) -> None:
    folder = as_folder(tmp_path / "pictures", FILES)
    (folder / "set" / "train" / "cow").mkdir()
    with pytest.raises(UserError, match="class train/cow is empty"):
        load(str(folder), cache_folder=cache, say=quiet)


def test_links_and_encryption_are_refused(tmp_path: Path, cache: Path) -> None:
    path = as_zip(tmp_path / "a.zip", FILES)
    with zipfile.ZipFile(path, "a") as archive:
        link = zipfile.ZipInfo("set/train/cat/link.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(UserError, match=r"link\.png' is a symbolic link; refused"):
        load(str(path), cache_folder=cache, say=quiet)
    path = as_zip(tmp_path / "b.zip", FILES)
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1  # the flag of encryption, in the central directory
    path.write_bytes(content)
    with pytest.raises(UserError, match="is encrypted; unpack it"):
        load(str(path), cache_folder=cache, say=quiet)


def test_a_zip_that_explodes(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = FILES | {"set/train/cat/bomb.png": b"\0" * 20_000_000}
    path = as_zip(tmp_path / "a.zip", bomb, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 100_000
    with pytest.raises(UserError, match=r"bomb.png' unpacks to 20,000,000 bytes"):
        load(str(path), cache_folder=cache, say=quiet)
    monkeypatch.setattr(image_files, "MAX_TOTAL_BYTES", 100)
    with pytest.raises(UserError, match="above the limit"):
        load(str(as_zip(tmp_path / "b.zip", FILES)), cache_folder=cache, say=quiet)


def test_an_image_that_explodes(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_files, "MAX_PIXELS", 10_000)
    path = as_zip(tmp_path / "a.zip", FILES | {"set/train/cat/7.png": picture(1, (200, 200))})
    with pytest.raises(UserError, match=r"7\.png has 200 x 200 pixels, too many"):
        load(str(path), cache_folder=cache, say=quiet)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "text"])
def test_damaged_zips(tmp_path: Path, cache: Path, damage: str) -> None:
    path = as_zip(tmp_path / "a.zip", FILES)
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[80] ^= 255
    path.write_bytes({"truncated": content[: len(content) // 2], "text": b"not a zip"}.get(damage, content))
    with pytest.raises(UserError, match=r"a\.zip"):
        load(str(path), cache_folder=cache, say=quiet)


@pytest.mark.parametrize("source", ["no/such/place", "cifar-10", "digit"])
def test_a_source_that_is_not_there(source: str, cache: Path) -> None:
    with pytest.raises(UserError, match=f"there is no '{source}'; --data takes `cifar10`, `digits`"):
        load(source, cache_folder=cache, say=quiet)


def test_a_file_that_is_no_archive(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(UserError, match="is neither a zip nor a tar archive"):
        load(str(tmp_path / "notes.txt"), cache_folder=cache, say=quiet)


def test_digits(cache: Path) -> None:
    data = load("digits", cache_folder=cache, say=quiet)
    assert data.train_images.shape == (1437, 32, 32, 3)
    assert data.test_images.shape == (360, 32, 32, 3)
    assert len(data.classes) == 10
    assert np.ptp(np.bincount(data.test_labels)) <= 1
    assert data.train_images.max() == 255
    assert data.notice == ""
    assert load("digits", cache_folder=cache, say=quiet).fingerprint == data.fingerprint


# The official archive's form, in small, with checksums to match.


@pytest.fixture
def official(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A small archive in CIFAR-10's form; torchvision and this package take its checksums for the official ones."""
    random = np.random.default_rng(0)
    batches, lists = {}, {"train_list": [], "test_list": []}
    for name in ("data_batch_1", "data_batch_2", "test_batch"):
        labels = [int(label) for label in random.integers(0, 3, 6)]
        data = np.repeat(np.array(labels, np.uint8)[:, None] * 50, 3072, axis=1)
        batches[name] = pickle.dumps({"data": data, "labels": labels})
        kind = "test_list" if name == "test_batch" else "train_list"
        lists[kind].append([name, hashlib.md5(batches[name]).hexdigest()])
    batches["batches.meta"] = pickle.dumps({"label_names": ["plane", "bird", "ship"]})
    for name, value in lists.items():
        monkeypatch.setattr(CIFAR10, name, value)
    meta = dict(CIFAR10.meta, md5=hashlib.md5(batches["batches.meta"]).hexdigest())
    monkeypatch.setattr(CIFAR10, "meta", meta)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, content in batches.items():
            info = tarfile.TarInfo(f"{cifar10.FOLDER}/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    monkeypatch.setattr(cifar10, "ARCHIVE_MD5", hashlib.md5(out.getvalue()).hexdigest())
    monkeypatch.setattr(cifar10, "places", lambda cache: [cache / "cifar10"])
    return out.getvalue()


def test_the_official_archive(official: bytes, tmp_path: Path, cache: Path) -> None:
    path = tmp_path / cifar10.ARCHIVE
    path.write_bytes(official)
    data = load(str(path), cache_folder=cache, say=quiet)
    assert (data.name, data.classes) == ("cifar10", ("plane", "bird", "ship"))
    assert data.train_images.shape == (12, 32, 32, 3)
    np.testing.assert_array_equal(data.train_images[:, 5, 5, 2], data.train_labels * 50)
    extracted = cache / "cifar10" / cifar10.FOLDER
    for source in (str(tmp_path), str(extracted), str(extracted.parent), "cifar10"):
        assert load(source, cache_folder=cache, say=quiet).fingerprint == data.fingerprint


def test_a_wrong_archive_is_not_unpickled(official: bytes, tmp_path: Path, cache: Path) -> None:
    path = tmp_path / cifar10.ARCHIVE
    path.write_bytes(official[:-20])
    with pytest.raises(UserError, match="is not the official CIFAR-10 archive or is incomplete: md5"):
        load(str(path), cache_folder=cache, say=quiet)
    assert not (cache / "cifar10" / cifar10.FOLDER).exists()


def test_a_changed_batch_is_not_unpickled(official: bytes, tmp_path: Path, cache: Path) -> None:
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "harmed",))

    path = tmp_path / cifar10.ARCHIVE
    path.write_bytes(official)
    load(str(path), cache_folder=cache, say=quiet)
    extracted = cache / "cifar10" / cifar10.FOLDER
    (extracted / "data_batch_2").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(UserError, match="a file's checksum is not that of CIFAR-10"):
        load(str(extracted), cache_folder=cache, say=quiet)
    assert not (tmp_path / "harmed").exists()


class Server(http.server.BaseHTTPRequestHandler):
    """Sends half of the content and hangs up, as often as `breaks` says; then all of it."""

    content = b""
    breaks = 0
    requests = 0

    def do_GET(self) -> None:
        type(self).requests += 1
        broken = self.requests <= self.breaks
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()
        self.wfile.write(self.content[: len(self.content) // 2] if broken else self.content)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(official: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Server]]:
    handler = type("Handler", (Server,), {"content": official})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        monkeypatch.setattr(cifar10, "URL", f"http://127.0.0.1:{running.server_port}/{cifar10.ARCHIVE}")
        yield handler
        running.shutdown()
        thread.join()


def test_download(server: type[Server], cache: Path) -> None:
    data = load(None, cache_folder=cache, say=quiet)
    assert data.name == "cifar10"
    assert load(None, cache_folder=cache, say=quiet).fingerprint == data.fingerprint
    assert server.requests == 1


def test_a_download_that_breaks_off_restarts_cleanly(server: type[Server], cache: Path) -> None:
    server.breaks = 1
    with pytest.raises(UserError, match="cannot download CIFAR-10 from http"):
        load("cifar10", cache_folder=cache, say=quiet)
    assert not [path for path in (cache / "cifar10").iterdir() if path.name == cifar10.ARCHIVE]
    assert load("cifar10", cache_folder=cache, say=quiet).name == "cifar10"


def test_a_download_of_something_else_is_refused(server: type[Server], cache: Path) -> None:
    server.content = b"please log in to this network"
    with pytest.raises(UserError, match="cannot download CIFAR-10"):
        load("cifar10", cache_folder=cache, say=quiet)


def test_without_data_digits_stand_in_and_say_why(server: type[Server], cache: Path) -> None:
    server.breaks = 10
    data = load(None, cache_folder=cache, say=quiet)
    assert data.name == "digits"
    assert "handwritten digits, not CIFAR-10: cannot download" in data.notice


@given(
    st.lists(st.integers(0, 4), min_size=5, max_size=80).filter(lambda x: len(set(x)) == 5),
    st.integers(5, 90),
    st.integers(0, 9),
)
@settings(max_examples=100, deadline=None)
def test_balanced_subset(labels: list[int], count: int, seed: int) -> None:
    array = np.array(labels)
    kept = balanced_subset(array, count, seed)
    assert len(kept) == min(count, len(array))
    assert list(kept) == sorted(set(kept))
    have, available = np.bincount(array[kept], minlength=5), np.bincount(array, minlength=5)
    # No class falls behind another but for want of images.
    assert all(have[c] >= have.max() - 1 or have[c] == available[c] for c in range(5))
    np.testing.assert_array_equal(kept, balanced_subset(array, count, seed))


def test_subsets_differ_by_seed_and_must_hold_every_class() -> None:
    labels = np.arange(1000) % 10
    assert list(balanced_subset(labels, 100, 0)) != list(balanced_subset(labels, 100, 1))
    np.testing.assert_array_equal(balanced_subset(labels, None, 0), np.arange(1000))
    with pytest.raises(UserError, match="got 9 images for 10 classes"):
        balanced_subset(labels, 9, 0)


@pytest.mark.skipif(not REAL.exists(), reason="the real images are not beside this checkout (shared/data)")
def test_the_real_images(tmp_path: Path) -> None:
    """All 60,000, decoded anew."""
    data = load(str(REAL), cache_folder=tmp_path, say=quiet)
    assert data.train_images.shape == (50_000, 32, 32, 3)
    assert list(np.bincount(data.train_labels)) == [5_000] * 10
    assert list(np.bincount(data.test_labels)) == [1_000] * 10
    assert data.classes[0] == "airplane"
    first = np.bincount(data.test_labels[:2_496], minlength=10)
    assert first.min() > 200  # the published runs' first 2,496 are a sample of every class
