"""Each network source against a real server on loopback: what arrives, what is fetched again, what part of a set."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cloudcover.config.params import ParamsError, validate
from cloudcover.config.sections import DataParams, SyntheticParams
from cloudcover.data import tables
from cloudcover.data.chips import read_chip
from cloudcover.data.layout import layout_files, read_metadata
from cloudcover.runtime.files import sha256
from cloudcover.runtime.locks import FolderBusyError, hold
from cloudcover.sources.fetch import fetch
from cloudcover.sources.remote import stores
from cloudcover.sources.remote.errors import AccessError, DownloadError
from cloudcover.sources.remote.journal import WORK
from cloudcover.sources.verify import verify
from helpers.layouts import BANDS, make_layout, write_tif
from helpers.servers import Web


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


@pytest.fixture
def by_http(web: Web, small: Path, tmp_path: Path) -> Callable[..., Path]:
    """Brings the small set from the web server: `by_http(subset=["c000"])`."""
    return lambda recheck=False, **data: bring(tmp_path / "raw", recheck, **{"source": "http", "url": web.url} | data)


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


def test_only_what_is_missing_or_changed_on_disk_is_fetched_again(by_http, web, small):
    raw = by_http()
    gone, flipped, cut = (raw / "train_features" / "c000" / f"{band}.tif" for band in BANDS[:3])
    gone.unlink()
    content = bytearray(flipped.read_bytes())
    content[-100] ^= 1
    flipped.write_bytes(content)
    cut.write_bytes(cut.read_bytes()[:-50])
    assert list(verify(raw)["path"]) == [path.relative_to(raw).as_posix() for path in (gone, flipped, cut)]
    web.requests.clear()
    by_http()
    assert sorted(web.images_sent()) == [f"train_features/c000/{band}.tif" for band in BANDS[:3]]
    assert_same(raw, small)


def test_a_flipped_bit_behind_an_unchanged_time_is_found_by_verify_and_by_recheck(by_http, small):
    raw = by_http()
    path = raw / "train_labels" / "c001.tif"
    time, content = path.stat().st_mtime_ns, bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(time, time))
    problems = verify(raw)
    assert problems.values.tolist() == [["train_labels/c001.tif", "has another SHA-256: its content has changed"]]
    by_http(recheck=True)
    assert_same(raw, small)


def test_a_touched_file_is_not_fetched_again(by_http, web):
    raw = by_http()
    for path in raw.rglob("*.tif"):
        path.touch()
    web.requests.clear()
    by_http()
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


def test_a_set_from_another_address_replaces_the_first_though_its_files_have_the_same_names(
    by_http, web, small, tmp_path
):
    raw = by_http()
    second = small / "other"
    shutil.copytree(small, tmp_path / "other")
    (tmp_path / "other").rename(second)
    write_tif(second / "train_features/c000/B02.tif", np.full((32, 32), 77, np.uint16))
    by_http(url=f"{web.url}/other")
    assert (raw / "train_features/c000/B02.tif").read_bytes() == (second / "train_features/c000/B02.tif").read_bytes()
    assert verify(raw).empty


def test_verify_names_what_is_too_much(by_http):
    raw = by_http()
    (raw / "train_labels" / "alien.tif").write_bytes(b"II")
    assert verify(raw).values.tolist() == [["train_labels/alien.tif", "is not in the manifest"]]


def test_a_second_run_in_the_same_folder_ends_and_names_the_first(by_http, tmp_path):
    with (
        hold(tmp_path / "raw" / WORK / "lock", "busy"),
        pytest.raises(FolderBusyError, match=r"raw: process \d+ on "),
    ):
        by_http()
    by_http()


def test_a_missing_band_is_logged_and_left_to_packing(by_http, small, caplog):
    (small / "train_features" / "c002" / "B04.tif").unlink()
    raw = by_http()
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
        ({"source": "azure", "url": "https://host"}, "is not a container: expected https://ACCOUNT"),
        ({"source": "s3", "url": "https://host/bucket"}, "is not a bucket: expected s3://BUCKET/PREFIX"),
    ],
)
def test_an_address_of_another_kind_is_explained(tmp_path, monkeypatch, data, message):
    monkeypatch.delenv("CLOUDCOVER_SAS_URL", raising=False)
    with pytest.raises(DownloadError, match=message):
        bring(tmp_path / "raw", **data)


# --- parts of a set ------------------------------------------------------------------------------------------------


def test_a_subset_brings_its_chips_and_a_filtered_table(by_http, web, small):
    raw = by_http(subset=["c000", "c001"], splits=["train"])
    assert set(read_metadata(raw)["chip_id"]) == {"c000", "c001"}
    assert {path.parts[1] for path in layout_files(raw) if path.parts[0] == "train_features"} == {"c000", "c001"}
    assert not (raw / "test_metadata.csv").exists()
    web.requests.clear()
    by_http()
    assert not any("c000" in path or "c001" in path for path in web.images_sent())
    assert_same(raw, small)
    by_http(subset=["c005"])
    with pytest.raises(Exception, match="train_metadata"):
        read_metadata(raw)


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
