"""The archives of Radiant MLHub: checked, refused where they could harm, unpacked, and not read twice."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudcover.config.sections import DataParams, SyntheticParams
from cloudcover.data import tables
from cloudcover.data.layout import layout_files, read_metadata
from cloudcover.sources.archive import store as archive
from cloudcover.sources.archive import tar as tar_module
from cloudcover.sources.archive.stac import Item, locations, parse_item
from cloudcover.sources.archive.store import STEM, inspect
from cloudcover.sources.archive.tar import BoundedGzip
from cloudcover.sources.fetch import fetch
from cloudcover.sources.remote.errors import ArchiveError, DownloadError
from cloudcover.sources.verify import verify
from helpers.layouts import BANDS, make_layout
from helpers.paths import ROOT
from helpers.servers import Trouble


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def stac(name: str, datetime: str, lon: float, links: list[dict[str, str]]) -> bytes:
    item = {"type": "Feature", "id": name, "bbox": [lon, -2.8, lon + 0.05, -2.7], "links": links}
    return json.dumps(item | {"properties": {"datetime": datetime}}).encode()


def pack(source: Path, folder: Path, splits: tuple[str, ...] = ("train", "test")) -> Path:
    """Writes the archives of a set in the challenge's layout, labels before their items, and their md5sums."""
    folder.mkdir(parents=True, exist_ok=True)
    chips = read_metadata(source).to_dict("records")
    for split in splits:
        for part in ("source", "labels"):
            stem = f"{STEM}_{split}_{part}"
            with tarfile.open(folder / f"{stem}.tar.gz", "w:gz") as tar:
                tar.addfile(tarfile.TarInfo(stem + "/"))
                add(tar, f"{stem}/collection.json", b"{}")
                for number, chip in enumerate(c for c in chips if c["split"] == split):
                    base = f"{stem}/{stem}_{chip['chip_id']}"
                    item = {
                        "rel": "source",
                        "href": f"../../{STEM}_{split}_source/{STEM}_{split}_source_{chip['chip_id']}/stac.json",
                    }
                    if part == "source":
                        for band in BANDS:
                            path = source / f"{split}_features" / chip["chip_id"] / f"{band}.tif"
                            add(tar, f"{base}/{band}.tif", path.read_bytes())
                        add(tar, f"{base}/stac.json", stac(base, chip["datetime"], 32.5 + 3 * (number % 2), []))
                    else:
                        path = source / f"{split}_labels" / f"{chip['chip_id']}.tif"
                        if path.exists():
                            add(tar, f"{base}/labels.tif", path.read_bytes())
                            add(tar, f"{base}/stac.json", stac(base, chip["datetime"], 32.5, [item]))
    return with_checksums(folder)


def with_checksums(folder: Path) -> Path:
    """Writes the md5sums of the archives in a folder."""
    lines = [
        f"{hashlib.md5(p.read_bytes(), usedforsecurity=False).hexdigest()}  {p.name}\n" for p in folder.glob("*.tar.gz")
    ]
    (folder / "md5sums.txt").write_text("".join(lines))
    return folder


def of_train(folder: Path, url: str | None = None) -> dict[str, object]:
    """The parameters that read the training split from archives in a folder, or from an address that serves them."""
    place = {"url": url} if url else {"path": str(folder)}
    return {**place, "checksums": str(folder / "md5sums.txt"), "splits": ["train"]}


def bring(raw: Path, recheck: bool = False, **data: object) -> Path:
    params = DataParams.model_validate({"chip_size": 64, "source": "archive"} | data)
    fetch(params, SyntheticParams.model_validate({}), 0, raw, raw.parent / "truth", recheck=recheck)
    return raw


def assert_images(raw: Path, source: Path) -> None:
    images = {path for path in layout_files(source) if path.suffix == ".tif"}
    assert {path for path in layout_files(raw) if path.suffix == ".tif"} == images
    assert all((raw / path).read_bytes() == (source / path).read_bytes() for path in images)
    assert verify(raw).empty


@pytest.fixture
def source(tmp_path: Path) -> Path:
    make_layout(tmp_path / "source", chips=6, scenes=3, size=32, unlabelled=0)
    return tmp_path / "source"


@pytest.fixture
def archives(source: Path, tmp_path: Path) -> Path:
    """The archives of its training split."""
    return pack(source, tmp_path / "archives", ("train",))


def test_the_docs_publish_the_md5_that_the_program_expects():
    rows = re.findall(r"^\| `(\S+\.tar\.gz)` \| `([0-9a-f]{32})` \|", (ROOT / "docs/data.md").read_text(), re.MULTILINE)
    assert dict(rows) == archive.MD5
    assert len(rows) == 4


def test_local_archives_bring_the_real_chips(real_chips, tmp_path):
    folder = pack(real_chips, tmp_path / "archives")
    (folder / f"{STEM}_test_labels.tar.gz").unlink()  # eight real chips, none of them a labelled test chip
    raw = bring(tmp_path / "raw", path=str(folder), checksums=str(folder / "md5sums.txt"), chip_size=512)
    assert_images(raw, real_chips)
    chips = read_metadata(raw).set_index("chip_id")
    original = read_metadata(real_chips).set_index("chip_id")
    assert chips["datetime"].to_dict() == original.loc[chips.index, "datetime"].to_dict()
    assert set(chips["location"]) == {"lon32.5_lat-2.8", "lon35.5_lat-2.8"}
    origins = tables.FILES.read(raw / "files.csv").set_index("path")["origin"]
    assert (
        origins["train_labels/adwz.tif"]
        == f"{STEM}_train_labels.tar.gz!{STEM}_train_labels/{STEM}_train_labels_adwz/labels.tif"
    )


def test_a_label_belongs_to_the_chip_that_its_item_links_to(source, archives, tmp_path):
    stem = f"{STEM}_train_labels"
    content = (source / "train_labels" / "c001.tif").read_bytes()
    with tarfile.open(archives / f"{stem}.tar.gz", "w:gz") as tar:
        add(tar, f"{stem}/{stem}_other/labels.tif", content)
        link = {"rel": "source", "href": f"../../{STEM}_train_source/{STEM}_train_source_c001/stac.json"}
        add(tar, f"{stem}/{stem}_other/stac.json", stac("other", "", 0, [{"rel": "root", "href": "x"}, link]))
    raw = bring(tmp_path / "raw", **of_train(with_checksums(archives)))
    assert [path.name for path in (raw / "train_labels").iterdir()] == ["c001.tif"]
    assert (raw / "train_labels" / "c001.tif").read_bytes() == content


def test_a_second_run_does_not_read_the_archives(source, archives, tmp_path, monkeypatch):
    data = of_train(archives)
    raw = bring(tmp_path / "raw", **data)
    for path in archives.glob("*.tar.gz"):
        path.unlink()
    bring(raw, **data)
    assert_images(raw, source)


def test_an_archive_is_read_twice_in_whatever_order_its_members_are(source, archives, tmp_path, monkeypatch):
    path = archives / f"{STEM}_train_source.tar.gz"
    with tarfile.open(path) as tar:
        members = [(member.name, tar.extractfile(member).read()) for member in tar if member.isfile()]
    with tarfile.open(path, "w:gz") as tar:
        for name, content in reversed(members):
            add(tar, name, content)
    opened: list[str] = []
    monkeypatch.setattr(tar_module, "BoundedGzip", lambda path: opened.append(path.name) or BoundedGzip(path))
    assert_images(bring(tmp_path / "raw", **of_train(with_checksums(archives))), source)
    assert sorted(opened) == [f"{STEM}_train_{part}.tar.gz" for part in ("labels", "labels", "source", "source")]


def test_what_is_missing_is_unpacked_again_and_a_subset_is_kept_to(source, archives, tmp_path):
    data = of_train(archives)
    raw = bring(tmp_path / "raw", subset=["c000", "c003"], **data)
    assert set(read_metadata(raw)["chip_id"]) == {"c000", "c003"}
    kept = (raw / "train_labels" / "c000.tif").stat().st_mtime_ns
    (raw / "train_labels" / "c003.tif").unlink()
    bring(raw, **data)
    assert_images(raw, source)
    assert (raw / "train_labels" / "c000.tif").stat().st_mtime_ns == kept


# --- from an address -----------------------------------------------------------------------------------------------


def test_archives_by_url_are_resumed_checked_and_removed_in_the_end(web, source, archives, tmp_path):
    web.root = archives
    name = f"{STEM}_train_source.tar.gz"
    work = tmp_path / "raw" / ".download" / "archives"
    work.mkdir(parents=True)
    (work / f".{name}.part").write_bytes((web.root / name).read_bytes()[:5000])  # what an earlier run left
    web.trouble = lambda path, number: Trouble(cut=300) if path == name and number == 2 else None
    data = of_train(archives, web.url)
    raw = bring(tmp_path / "raw", **data)
    assert_images(raw, source)
    total = (web.root / name).stat().st_size
    sizes = [(status, size) for method, path, status, size, _ in web.requests if path == name and method == "GET"]
    assert sizes == [(206, 300), (206, total - 5300)]
    assert not work.exists()
    web.requests.clear()
    bring(raw, **data)
    assert web.requests == []


def test_a_damaged_archive_from_an_address_is_refused(web, archives, tmp_path):
    web.root = archives
    damaged = bytearray((web.root / f"{STEM}_train_source.tar.gz").read_bytes())
    damaged[3000] ^= 1
    (web.root / f"{STEM}_train_source.tar.gz").write_bytes(damaged)
    with pytest.raises(ArchiveError, match=r"train_source\.tar\.gz has MD5 .*, expected"):
        bring(tmp_path / "raw", **of_train(archives, web.url))
    assert not list((tmp_path / "raw").rglob("*.tif*"))


def test_space_for_an_archive_is_checked_before_its_first_byte(web, archives, disk):
    with pytest.raises(DownloadError, match="are free: make room"):
        bring(disk.path / "raw", **of_train(archives, web.url))
    assert [method for method, *_ in web.requests] == ["HEAD"]


# --- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["source", "labels"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_an_archive_of_another_md5_is_refused_before_it_is_read(tmp_path, split, part):
    make_layout(tmp_path / "source", chips=6, scenes=3, size=32)
    folder = pack(tmp_path / "source", tmp_path / "archives")
    expected = archive.MD5[f"{STEM}_{split}_{part}.tar.gz"]
    lines = (folder / "md5sums.txt").read_text()
    own = re.search(rf"[0-9a-f]{{32}}(?=  {STEM}_{split}_{part})", lines)[0]
    (folder / "md5sums.txt").write_text(lines.replace(own, expected))
    with pytest.raises(ArchiveError, match=rf"{split}_{part}.* has MD5 {own}, expected {expected}"):
        bring(tmp_path / "raw", path=str(folder), checksums=str(folder / "md5sums.txt"))
    assert not list((tmp_path / "raw").rglob("*.tif"))


def test_a_missing_archive_is_named(tmp_path):
    with pytest.raises(DownloadError, match=r"train_source\.tar\.gz is missing"):
        bring(tmp_path / "raw", path=str(tmp_path / "archives"))


def special(name: str, kind: bytes, target: str = "") -> Callable[[tarfile.TarFile], None]:
    def write(tar: tarfile.TarFile) -> None:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, target
        tar.addfile(info)

    return write


def sized(name: str, size: int) -> Callable[[tarfile.TarFile], None]:
    return lambda tar: add(tar, name, bytes(size))


def backwards(tar: tarfile.TarFile) -> None:
    """A member of negative length, at which tarfile would read the same header for ever."""
    info = tarfile.TarInfo(f"{INSIDE}/B02.tif")
    info.pax_headers = {"size": "-1536"}
    tar.addfile(info)


INSIDE = f"{STEM}_train_source/{STEM}_train_source_x"


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (sized("../outside.tif", 10), "leads out of the archive"),
        (sized(f"{INSIDE}/../../../outside.tif", 10), "leads out of the archive"),
        (sized("/tmp/outside.tif", 10), "leads out of the archive"),
        (sized("..\\outside.tif", 10), "leads out of the archive"),
        (special(f"{INSIDE}/B02.tif", tarfile.SYMTYPE, "/etc/passwd"), "a link, a device"),
        (special(f"{INSIDE}/B02.tif", tarfile.LNKTYPE, "../../x"), "a link, a device"),
        (special(f"{INSIDE}/B02.tif", tarfile.CHRTYPE), "a link, a device"),
        (special(f"{INSIDE}/B02.tif", tarfile.BLKTYPE), "a link, a device"),
        (special(f"{INSIDE}/B02.tif", tarfile.FIFOTYPE), "a link, a device"),
        (sized(f"{INSIDE}/B02.tif", (64 << 20) + 1), "claims 67108865 bytes"),
        (backwards, "claims -1536 bytes"),
    ],
)
def test_members_that_could_harm_are_refused_and_nothing_is_written(tmp_path, write, message):
    folder = tmp_path / "deep" / "archives"
    folder.mkdir(parents=True)
    with tarfile.open(folder / f"{STEM}_train_source.tar.gz", "w:gz") as tar:
        add(tar, f"{STEM}_train_source/{STEM}_train_source_ok/stac.json", stac("ok", "", 0, []))
        write(tar)
    with pytest.raises(ArchiveError, match=rf"refused at .*{message}"):
        bring(tmp_path / "deep" / "raw", **of_train(with_checksums(folder)))
    assert not list(tmp_path.rglob("*.tif"))
    assert not Path("/tmp/outside.tif").exists()


def test_a_decompression_bomb_is_refused(tmp_path, monkeypatch):
    path = tmp_path / f"{STEM}_train_source.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for number in range(8):
            add(tar, f"{INSIDE}/{number}.tif", bytes(1 << 19))
    monkeypatch.setattr(tar_module, "_LEAST_LIMIT", 1 << 20)
    with pytest.raises(ArchiveError, match="more than 1048576 bytes: a decompression bomb"):
        inspect(path)
    with BoundedGzip(path) as stream, pytest.raises(ArchiveError, match="a header claims -1 bytes"):
        stream.read()


def test_a_header_that_claims_gigabytes_is_refused_without_reading_them(tmp_path):
    path = tmp_path / f"{STEM}_train_source.tar.gz"
    with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("x")
        info.type, info.size = tarfile.XHDTYPE, (1 << 33) - 1
        tar.fileobj.write(info.tobuf(tarfile.USTAR_FORMAT))
    with pytest.raises(ArchiveError, match=r"a header claims 858993459[0-9] bytes"):
        inspect(path)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({}, "holds no images"),
        ({"x/B02.tif": b"II"}, "holds no images"),
        ({f"{INSIDE}/B02.tif": b"II"}, "the chip x has no stac.json"),
        ({f"{INSIDE}/stac.json": b"{}"}, "stac.json is not a STAC item"),
        ({f"{INSIDE}/stac.json": b"<html>"}, "stac.json is not a STAC item"),
    ],
)
def test_an_archive_of_something_else_is_refused(tmp_path, members, message):
    path = tmp_path / f"{STEM}_train_source.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            add(tar, name, content)
    with pytest.raises(ArchiveError, match=message):
        inspect(path)


def test_a_truncated_archive_is_refused(archives, tmp_path):
    path = archives / f"{STEM}_train_source.tar.gz"
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(ArchiveError, match="cannot be read to its end"):
        inspect(path)


def test_an_image_that_is_no_tiff_is_refused_and_leaves_no_file(source, tmp_path):
    for path in ("train_features/c002/B03.tif", "train_labels/c001.tif"):
        (source / path).write_bytes(b"<html>error</html>")
    folder = pack(source, tmp_path / "archives", ("train",))
    with pytest.raises(DownloadError, match=r"2 of 30 files failed") as caught:
        bring(tmp_path / "raw", **of_train(folder))
    assert "train_features/c002/B03.tif is not the expected file: it is an HTML" in str(caught.value)
    assert "train_labels/c001.tif is not the expected file" in str(caught.value)
    assert not (tmp_path / "raw" / "train_features" / "c002" / "B03.tif").exists()
    chips = list((source / "train_features").iterdir())
    assert len(list((tmp_path / "raw/train_features").glob("*/*.tif"))) == 4 * len(chips) - 1
    assert not [path for path in (tmp_path / "raw").rglob("*") if path.name.endswith(".part")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonsense\n", "is not in the format of md5sum"),
        (None, "cannot be read"),
        ("0" * 32 + "  other.tar.gz\n", "names no MD5"),
    ],
)
def test_a_bad_list_of_checksums_is_told(tmp_path, text, message):
    if text is not None:
        (tmp_path / "sums").write_text(text)
    with pytest.raises(ArchiveError, match=f"data.checksums.*{message}"):
        bring(tmp_path / "raw", path=str(tmp_path / "archives"), checksums=str(tmp_path / "sums"))


# --- STAC ----------------------------------------------------------------------------------------------------------


def test_an_item_with_heights_in_its_bbox_and_without_a_date():
    text = json.dumps({"bbox": [1, 2, 0, 3, 6, 9], "properties": {"datetime": None}}).encode()
    assert parse_item(text, "x") == Item("", (2.0, 4.0), "")


@given(st.lists(st.tuples(st.floats(-170, 170), st.floats(-70, 70)), max_size=40))
def test_neighbours_share_a_location_and_distant_chips_do_not(centres):
    items = {i: Item("", centre, "") for i, centre in enumerate(centres)}
    names = locations(items)
    assert set(names) == set(items)
    for i, (lon, lat) in enumerate(centres):
        for k, (other_lon, other_lat) in enumerate(centres):
            if max(abs(lon - other_lon), abs(lat - other_lat)) < 0.25:
                assert names[i] == names[k]
            elif max(abs(lon - other_lon), abs(lat - other_lat)) > 0.5 * len(centres) + 0.2:
                assert names[i] != names[k]


def test_chips_without_an_extent_have_no_location():
    assert locations({"a": Item("", None, ""), "b": Item("", (0.0, 0.0), "")}) == {"a": "", "b": "lon0.0_lat0.0"}
