"""Each network source against a real server on loopback: what arrives, what is fetched again, what part of a set."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudcover.config.params import ParamsError, validate
from cloudcover.config.sections import DataParams, SyntheticParams
from cloudcover.data import tables
from cloudcover.data.chips import read_chip
from cloudcover.data.layout import layout_files, read_metadata
from cloudcover.runtime.files import sha256
from cloudcover.runtime.locks import FolderBusyError, hold
from cloudcover.sources.fetch import fetch
from cloudcover.sources.remote import content, stores
from cloudcover.sources.remote.errors import AccessError, DownloadError
from cloudcover.sources.remote.journal import WORK
from cloudcover.sources.subset import SubsetError, select
from cloudcover.sources.verify import verify
from helpers.layouts import BANDS, make_layout, write_tif

BAND, LABEL = "train_features/c000/B02.tif", "train_labels/c000.tif"


def bring(raw: Path, recheck: bool = False, **data: object) -> Path:
    params = DataParams.model_validate({"chip_size": 64} | data)
    fetch(params, SyntheticParams.model_validate({}), 0, raw, raw.parent / "truth", recheck=recheck)
    return raw


def assert_same(raw: Path, source: Path) -> None:
    """The folder holds the files of the source, byte by byte, and a manifest that says so."""
    manifest = tables.FILES.read(raw / "files.csv").set_index("path")
    assert set(manifest.index) == {path.as_posix() for path in layout_files(source)}
    for path, digest in manifest["sha256"].items():
        assert (raw / path).read_bytes() == (source / path).read_bytes()
        assert sha256(source / path) == digest
    assert verify(raw).empty


def mirrored(source: Path, target: Path) -> Path:
    """The layout of the public mirrors: public/train_…, private/test_… and the crosswalk."""
    for path in layout_files(source):
        folder = "private" if path.parts[0].startswith("test") else "public"
        (target / folder / path).parent.mkdir(parents=True, exist_ok=True)
        (target / folder / path).write_bytes((source / path).read_bytes())
    (target / "chip_id_crosswalk.csv").write_text("chip_id,mlhub_id\nc000,m000\n")
    return target


@pytest.fixture
def small(tmp_path: Path) -> Path:
    make_layout(tmp_path / "remote", chips=6, scenes=3, size=32)
    return tmp_path / "remote"


# --- each source, its server, the real chips -----------------------------------------------------------------------


def test_azure_brings_the_real_chips_by_a_sas_url_from_a_file(azurite, real_chips, tmp_path, monkeypatch):
    azurite.upload("real", real_chips)
    (tmp_path / "sas_westeurope.txt").write_text(azurite.sas("real") + "\n")
    monkeypatch.delenv("CLOUDCOVER_SAS_URL", raising=False)
    raw = bring(tmp_path / "raw", source="azure", sas_file=str(tmp_path / "sas_westeurope.txt"), chip_size=512)
    assert_same(raw, real_chips)
    chips = read_metadata(raw)
    assert chips["split"].value_counts().to_dict() == {"train": 5, "test": 3}
    chip = read_chip(raw / "train_features" / "adwz", raw / "train_labels" / "adwz.tif", BANDS, (512, 512))
    assert chip.bands.shape == (4, 512, 512)
    origin = tables.FILES.read(raw / "files.csv")["origin"]
    assert origin.str.startswith(f"{azurite.url}/real/").all()


def test_azure_brings_the_layout_of_the_public_mirror_without_a_sas(azurite, real_chips, tmp_path, monkeypatch):
    monkeypatch.delenv("CLOUDCOVER_SAS_URL", raising=False)
    source = mirrored(real_chips, tmp_path / "mirror")
    azurite.upload("mlhub", source, prefix="challenge_v1/final/", public=True)
    monkeypatch.setattr(stores, "MIRROR", f"{azurite.url}/mlhub/challenge_v1/final")
    raw = bring(tmp_path / "raw", source="azure", chip_size=512)
    assert (raw / "chip_id_crosswalk.csv").read_text() == (source / "chip_id_crosswalk.csv").read_text()
    assert (raw / "test_features" / "adwu" / "B08.tif").exists()
    assert verify(raw).empty


def test_azure_takes_a_token_with_the_containers_address_in_the_parameters(azurite, small, tmp_path, monkeypatch):
    azurite.upload("token", small)
    address, _, token = azurite.sas("token").partition("?")
    monkeypatch.setenv("CLOUDCOVER_SAS_URL", token)
    assert_same(bring(tmp_path / "raw", source="azure", url=address), small)


@pytest.mark.parametrize("signed", [False, True])
def test_s3_brings_the_real_chips(moto, real_chips, tmp_path, monkeypatch, signed):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
        if signed:
            monkeypatch.setenv(name, "testing")
    bucket, prefix = f"radiantearth{signed}".lower(), "cloud-cover-detection-challenge/final/"
    moto.upload(bucket, mirrored(real_chips, tmp_path / "mirror"), prefix, public=not signed)
    data = {"source": "s3", "url": f"s3://{bucket}/{prefix}", "endpoint": moto.url, "chip_size": 512}
    raw = bring(tmp_path / "raw", **data)
    assert len(tables.FILES.read(raw / "files.csv")) == len(list(layout_files(real_chips))) + 1
    assert (raw / "test_features" / "akny" / "B02.tif").read_bytes() == (
        real_chips / "test_features" / "akny" / "B02.tif"
    ).read_bytes()
    assert not any("Signature" in origin for origin in tables.FILES.read(raw / "files.csv")["origin"])


def test_http_brings_the_real_chips_without_a_listing(web, real_chips, tmp_path):
    web.root = mirrored(real_chips, tmp_path / "mirror")
    raw = bring(tmp_path / "raw", source="http", url=web.url, chip_size=512)
    assert len(tables.FILES.read(raw / "files.csv")) == len(list(layout_files(real_chips))) + 1
    assert verify(raw).empty
    assert not (raw / "test_labels").exists() or not any((raw / "test_labels").iterdir())


# --- 500 chips, twice ----------------------------------------------------------------------------------------------


def test_azure_brings_500_chips_and_a_second_run_transfers_no_image(azurite, tmp_path, monkeypatch, caplog):
    make_layout(tmp_path / "many", chips=500, scenes=20, size=32, unlabelled=0)
    azurite.upload("many", tmp_path / "many")
    monkeypatch.setenv("CLOUDCOVER_SAS_URL", azurite.sas("many"))
    raw = bring(tmp_path / "raw", source="azure")
    assert_same(raw, tmp_path / "many")
    times = {path: (raw / path).stat().st_mtime_ns for path in layout_files(raw)}
    with caplog.at_level(logging.INFO):
        bring(tmp_path / "raw", source="azure")
    assert "0 of 2500 files are missing" in caplog.text
    tiffs = {path: time for path, time in times.items() if path.suffix == ".tif"}
    assert tiffs == {path: (raw / path).stat().st_mtime_ns for path in tiffs}


# --- what a later run fetches --------------------------------------------------------------------------------------


def test_only_what_is_missing_or_changed_on_disk_is_fetched_again(web, small, tmp_path):
    raw = bring(tmp_path / "raw", source="http", url=web.url)
    gone, flipped, cut = (raw / "train_features" / "c000" / f"{band}.tif" for band in BANDS[:3])
    gone.unlink()
    content = bytearray(flipped.read_bytes())
    content[-100] ^= 1
    flipped.write_bytes(content)
    cut.write_bytes(cut.read_bytes()[:-50])
    assert list(verify(raw)["path"]) == [path.relative_to(raw).as_posix() for path in (gone, flipped, cut)]
    web.requests.clear()
    bring(tmp_path / "raw", source="http", url=web.url)
    assert sorted(web.images_sent()) == [f"train_features/c000/{band}.tif" for band in BANDS[:3]]
    assert_same(raw, small)


def test_a_flipped_bit_behind_an_unchanged_time_is_found_by_verify_and_by_recheck(web, small, tmp_path):
    import os

    raw = bring(tmp_path / "raw", source="http", url=web.url)
    path = raw / "train_labels" / "c001.tif"
    time, content = path.stat().st_mtime_ns, bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(time, time))
    problems = verify(raw)
    assert problems.values.tolist() == [["train_labels/c001.tif", "has another SHA-256: its content has changed"]]
    bring(tmp_path / "raw", source="http", url=web.url, recheck=True)
    assert_same(raw, small)


def test_a_touched_file_is_not_fetched_again(web, small, tmp_path):
    raw = bring(tmp_path / "raw", source="http", url=web.url)
    for path in raw.rglob("*.tif"):
        path.touch()
    web.requests.clear()
    bring(tmp_path / "raw", source="http", url=web.url)
    assert web.images_sent() == []


def test_a_file_that_changed_at_the_source_is_fetched_again(azurite, small, tmp_path, monkeypatch):
    azurite.upload("changing", small)
    monkeypatch.setenv("CLOUDCOVER_SAS_URL", azurite.sas("changing"))
    raw = bring(tmp_path / "raw", source="azure")
    write_tif(small / "train_features" / "c000" / "B02.tif", np.full((32, 32), 77, np.uint16))
    blob = azurite.service().get_blob_client("changing", "train_features/c000/B02.tif")
    blob.upload_blob((small / "train_features" / "c000" / "B02.tif").read_bytes(), overwrite=True)
    bring(tmp_path / "raw", source="azure")
    assert_same(raw, small)


def test_a_set_from_another_address_replaces_the_first_though_its_files_have_the_same_names(web, small, tmp_path):
    raw = bring(tmp_path / "raw", source="http", url=web.url)
    second = small / "other"
    shutil.copytree(small, tmp_path / "other")
    (tmp_path / "other").rename(second)
    write_tif(second / "train_features/c000/B02.tif", np.full((32, 32), 77, np.uint16))
    bring(tmp_path / "raw", source="http", url=f"{web.url}/other")
    assert (raw / "train_features/c000/B02.tif").read_bytes() == (second / "train_features/c000/B02.tif").read_bytes()
    assert verify(raw).empty


def test_verify_names_what_is_too_much(web, small, tmp_path):
    raw = bring(tmp_path / "raw", source="http", url=web.url)
    (raw / "train_labels" / "alien.tif").write_bytes(b"II")
    assert verify(raw).values.tolist() == [["train_labels/alien.tif", "is not in the manifest"]]


def test_a_second_run_in_the_same_folder_ends_and_names_the_first(small, web, tmp_path):
    with (
        hold(tmp_path / "raw" / WORK / "lock", "busy"),
        pytest.raises(FolderBusyError, match=r"raw: process \d+ on "),
    ):
        bring(tmp_path / "raw", source="http", url=web.url)
    bring(tmp_path / "raw", source="http", url=web.url)


def test_a_missing_band_is_logged_and_left_to_packing(web, small, tmp_path, caplog):
    (small / "train_features" / "c002" / "B04.tif").unlink()
    raw = bring(tmp_path / "raw", source="http", url=web.url)
    assert "lacks 1 bands, such as train_features/c002/B04.tif" in caplog.text
    assert_same(raw, small)


def test_a_wrong_address_is_told_at_once(web, small, tmp_path):
    with pytest.raises(DownloadError, match=r"nowhere/train_metadata\.csv does not exist: check data\.url"):
        bring(tmp_path / "raw", source="http", url=f"{web.url}/nowhere")


def test_a_container_that_does_not_exist_is_told(azurite, tmp_path, monkeypatch):
    monkeypatch.setenv("CLOUDCOVER_SAS_URL", azurite.sas("nothing"))
    with pytest.raises(DownloadError, match=r"/nothing: the server answered 404 Not Found \(ContainerNotFound\)"):
        bring(tmp_path / "raw", source="azure")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"source": "azure", "url": "https://host"}, "no container: expected https://ACCOUNT"),
        ({"source": "s3", "url": "https://host/bucket"}, "no bucket: expected s3://BUCKET/PREFIX"),
    ],
)
def test_an_address_of_another_kind_is_explained(tmp_path, monkeypatch, data, message):
    monkeypatch.delenv("CLOUDCOVER_SAS_URL", raising=False)
    with pytest.raises(DownloadError, match=message):
        bring(tmp_path / "raw", **data)


# --- parts of a set ------------------------------------------------------------------------------------------------


def test_a_subset_brings_its_chips_and_a_filtered_table(web, small, tmp_path):
    raw = bring(tmp_path / "raw", source="http", url=web.url, subset=["c000", "c001"], splits=["train"])
    assert set(read_metadata(raw)["chip_id"]) == {"c000", "c001"}
    assert {path.parts[1] for path in layout_files(raw) if path.parts[0] == "train_features"} == {"c000", "c001"}
    assert not (raw / "test_metadata.csv").exists()
    web.requests.clear()
    bring(tmp_path / "raw", source="http", url=web.url)
    assert not any("c000" in path or "c001" in path for path in web.images_sent())
    assert_same(raw, small)
    bring(tmp_path / "raw", source="http", url=web.url, subset=["c005"])
    with pytest.raises(Exception, match="train_metadata"):
        read_metadata(raw)


def chips(number: int) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "chip_id": [f"c{i}" for i in range(number)],
            "split": ["train" if i % 3 else "test" for i in range(number)],
            "location": [f"place{i % 4}" for i in range(number)],
        }
    )


@given(st.integers(3, 60), st.floats(0.01, 1), st.floats(0.01, 1))
def test_a_larger_share_contains_every_smaller_one(number, a, b):
    small, large = (set(select(chips(number), ["train", "test"], share)["chip_id"]) for share in sorted((a, b)))
    assert small <= large
    assert len(select(chips(number), ["train"], 1.0)) == (chips(number)["split"] == "train").sum()


@given(st.integers(6, 60), st.integers(1, 80))
def test_a_number_is_per_split(number, wanted):
    found = select(chips(number), ["train", "test"], wanted)["split"].value_counts()
    for split, size in chips(number)["split"].value_counts().items():
        assert found[split] == min(wanted, size)


def test_a_subset_by_location_and_by_a_file(tmp_path):
    assert set(select(chips(40), ["train", "test"], ["place1"])["location"]) == {"place1"}
    (tmp_path / "chips.txt").write_text("c1\r\nc2\n\nplace3\n", encoding="utf-8-sig")
    found = select(chips(40), ["train", "test"], str(tmp_path / "chips.txt"))
    assert set(found["chip_id"]) == {"c1", "c2"} | {f"c{i}" for i in range(3, 40, 4)}


@pytest.mark.parametrize(
    ("subset", "message"),
    [
        (["c1", "nope"], "the set has no chip or location nope"),
        ("absent.txt", "absent.txt cannot be read"),
        ([], "leave none of 9 chips"),
    ],
)
def test_a_subset_that_fits_nothing_is_an_error(subset, message):
    with pytest.raises(SubsetError, match=message):
        select(chips(9), ["train", "test"], subset)


# --- the TIFF check ------------------------------------------------------------------------------------------------


@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    dtype=st.sampled_from(["uint8", "int16", "uint16", "float32"]),
    options=st.sampled_from([{}, {"compress": "deflate"}, {"tiled": True, "blockxsize": 16, "blockysize": 16},
                             {"BIGTIFF": "YES"}, {"compress": "lzw", "predictor": 2}]),
)  # fmt: skip
def test_the_tiff_check_reads_what_gdal_writes(tmp_path_factory, height, width, dtype, options):
    import rasterio
    from rasterio.io import MemoryFile

    if dtype == "float32" and "predictor" in options:
        options = {}
    with MemoryFile() as memory:
        profile = {"driver": "GTiff", "height": height, "width": width, "count": 1, "dtype": dtype}
        with pytest.warns(rasterio.errors.NotGeoreferencedWarning), memory.open(**profile, **options) as image:
            image.write(np.ones((1, height, width), dtype))
        data = bytes(memory.getbuffer())
    path = tmp_path_factory.mktemp("tiff") / "x.tif"
    path.write_bytes(data)
    if dtype in ("uint8", "uint16"):
        assert content.check(path, LABEL if dtype == "uint8" else BAND, len(data)) == len(data)
    else:
        with pytest.raises(DownloadError, match=f"of {dtype}, expected one of uint16"):
            content.check(path, BAND)
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(DownloadError, match=r"cut off|cannot be read"):
        content.check(path, LABEL if dtype == "uint8" else BAND)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"<!DOCTYPE html><title>403</title>", "an HTML, XML or JSON page"),
        (b'\xef\xbb\xbf<?xml version="1.0"?><Error/>', "an HTML, XML or JSON page"),
        (b"", "empty"),
        (b"II*\0\xff\xff\0\0", "cannot be read"),
        (b"PK\x03\x04" + bytes(100), "cannot be read"),
    ],
)
def test_what_is_no_tiff_is_refused(tmp_path, data, message):
    (tmp_path / "x.tif").write_bytes(data)
    with pytest.raises(DownloadError, match=f"B02.*{message}"):
        content.check(tmp_path / "x.tif", BAND)


@pytest.mark.parametrize("start", ["  <html>", '{"error": 1}', ""])
def test_a_page_is_no_table_and_a_table_of_another_length_is_refused(tmp_path, start):
    (tmp_path / "x.csv").write_text(f"{start}chip_id,location\n" if start else "")
    with pytest.raises(DownloadError, match=r"train_metadata\.csv is not the expected file"):
        content.check(tmp_path / "x.csv", "train_metadata.csv")
    (tmp_path / "x.csv").write_text("chip_id,location\n")
    assert content.check(tmp_path / "x.csv", "train_metadata.csv") == 17
    with pytest.raises(DownloadError, match=r"17 bytes.* 18"):
        content.check(tmp_path / "x.csv", "train_metadata.csv", 18)


def test_another_type_or_more_bands_are_refused(tmp_path):
    import rasterio

    write_tif(tmp_path / "label.tif", np.zeros((8, 8), np.uint8))
    with pytest.raises(DownloadError, match="1 bands of uint8, expected one of uint16"):
        content.check(tmp_path / "label.tif", BAND)
    with rasterio.open(tmp_path / "rgb.tif", "w", driver="GTiff", height=8, width=8, count=3, dtype="uint16",
                       crs="EPSG:32633", transform=rasterio.Affine(10, 0, 5, 0, -10, 5)) as image:  # fmt: skip
        image.write(np.ones((3, 8, 8), np.uint16))
    with pytest.raises(DownloadError, match="3 bands"):
        content.check(tmp_path / "rgb.tif", BAND)


# --- parameters ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"source": "http"}, "source: http needs url"),
        ({"source": "s3"}, "source: s3 needs url"),
        ({"source": "archive"}, "source: archive needs either path, the folder of the archives, or url"),
        ({"source": "azur"}, "did you mean azure"),
        ({"subset": 0}, "data.subset"),
    ],
)
def test_parameters_that_name_no_source_are_refused(data, message):
    with pytest.raises(ParamsError, match=message):
        validate({"data": data})


def test_a_sas_without_the_right_to_read_is_refused_at_once(azurite, small, tmp_path, monkeypatch):
    azurite.upload("listonly", small)
    monkeypatch.setenv("CLOUDCOVER_SAS_URL", azurite.sas("listonly", read=False))
    with pytest.raises(AccessError, match="renew it"):
        bring(tmp_path / "raw", source="azure")
