"""The label-cleaning manifest and the import of lists."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from cloudcover.cli import main
from cloudcover.config.sections import LabelsParams
from cloudcover.data import tables
from cloudcover.data.folds import TEST
from cloudcover.labels.importers import ImportListError, agreement, read_verdicts, votes
from cloudcover.labels.manifest import ManifestError, build_manifest, suspects
from cloudcover.labels.score import is_determined
from helpers.paths import SHARED

TIME = "2024-05-01T12:00:00Z"
FOLDS = pd.DataFrame({"chip_id": ["a", "b", "c", "d"], "fold": [0, 1, 0, 1], "scene": "s"})


def params(policy: str, limit: float = 0.5) -> LabelsParams:
    return LabelsParams(policy=policy, max_suspicion=limit)


@pytest.fixture
def index() -> pd.DataFrame:
    chips = ["d", "a", "b", "c"]
    frame = pd.DataFrame({"chip_id": chips, "labelled": [False, True, True, True]})
    return frame.set_index("chip_id", drop=False)


@pytest.fixture
def audit() -> pd.DataFrame:
    return pd.DataFrame(
        {"chip_id": ["a", "b", "c"], "suspicion": [0.1, 0.5, 0.9], "reasons": ["", "coarse", "inverted swapped"]}
    )


def verdicts(**given_verdicts: str) -> pd.DataFrame:
    rows = [(c, v, "kim", "looked at it", TIME) for c, v in given_verdicts.items()]
    return tables.VERDICTS.check(pd.DataFrame(rows, columns=list(tables.VERDICTS.columns)), "test")


def verdict_of(manifest: pd.DataFrame) -> dict[str, str]:
    return dict(zip(manifest["chip_id"], manifest["verdict"], strict=True))


def test_auto_rejects_above_the_threshold_only(index, audit):
    manifest = build_manifest(audit, verdicts(a="bad"), index, FOLDS, params("auto"))
    assert verdict_of(manifest) == {"a": "clean", "b": "clean", "c": "bad", "d": "unlabelled"}
    row = manifest.set_index("chip_id").loc["c"]
    assert (row["source"], row["reason"], row["score"], row["time"]) == ("audit", "inverted swapped", 0.9, "")


def test_a_human_verdict_comes_first_and_unsure_leaves_it_to_the_audit(index, audit):
    manifest = build_manifest(audit, verdicts(a="bad", c="unsure", b="clean"), index, FOLDS, params("human_first"))
    assert verdict_of(manifest) == {"a": "bad", "b": "clean", "c": "bad", "d": "unlabelled"}
    assert manifest["source"].tolist() == ["kim", "kim", "audit", "none"]
    assert manifest["time"].tolist() == [TIME, TIME, "", ""]
    assert manifest["score"].tolist()[:3] == [0.1, 0.5, 0.9]


@pytest.mark.parametrize("name", ["", "audit", "none"])
def test_a_reviewer_cannot_be_taken_for_the_audit_or_for_nobody(index, audit, name):
    manifest = build_manifest(audit, verdicts(a="bad").assign(reviewer=name), index, FOLDS, params("human_first"))
    assert manifest.set_index("chip_id").loc["a", ["verdict", "source"]].tolist() == ["bad", "human"]


def test_human_keeps_labels_without_a_verdict_and_needs_no_audit(index):
    manifest = build_manifest(None, verdicts(a="bad", c="unsure"), index, FOLDS, params("human"))
    assert verdict_of(manifest) == {"a": "bad", "b": "clean", "c": "clean", "d": "unlabelled"}
    assert manifest["source"].tolist() == ["kim", "none", "none", "none"]
    assert manifest["score"].isna().all()


def test_verdicts_on_unknown_chips_are_logged_and_ignored(index, audit, caplog):
    with caplog.at_level(logging.WARNING):
        manifest = build_manifest(audit, verdicts(ghost="bad", d="bad"), index, FOLDS, params("human_first"))
    assert "1 verdicts name chips that are not in the store" in caplog.text
    assert "ghost" in caplog.text
    assert verdict_of(manifest)["d"] == "unlabelled"


def test_nothing_learns_from_the_test_part_and_only_people_reject_its_labels(index, audit):
    folds = FOLDS.assign(fold=[TEST, 1, TEST, 1])
    judged = audit[audit["chip_id"] == "b"]
    manifest = build_manifest(judged, verdicts(c="bad"), index, folds, params("human_first", 0.4)).set_index("chip_id")
    assert manifest["verdict"].to_dict() == {"a": "clean", "b": "bad", "c": "bad", "d": "unlabelled"}
    assert set(manifest["label"]) == {"none"}
    assert manifest["source"].to_dict() == {"a": "none", "b": "audit", "c": "kim", "d": "none"}


def test_a_training_learns_from_the_labels_that_are_called_clean(index, audit):
    manifest = build_manifest(audit, verdicts(a="bad"), index, FOLDS, params("human_first")).set_index("chip_id")
    assert manifest["label"].to_dict() == {"a": "none", "b": "human", "c": "none", "d": "none"}


def test_an_audit_that_lacks_chips_is_refused(index, audit):
    with pytest.raises(ManifestError, match=r"lacks 1 labelled chips \(b\)"):
        build_manifest(audit[audit["chip_id"] != "b"], verdicts(), index, FOLDS, params("human_first"))
    with pytest.raises(ManifestError, match="needs the audit"):
        build_manifest(None, verdicts(), index, FOLDS, params("auto"))


def test_the_manifest_survives_its_file(index, audit, tmp_path):
    manifest = build_manifest(audit, verdicts(a="bad"), index, FOLDS, params("human_first"))
    tables.MANIFEST.write(manifest, tmp_path / "manifest.csv")
    pd.testing.assert_frame_equal(tables.MANIFEST.read(tmp_path / "manifest.csv"), manifest)


def test_without_a_limit_as_many_are_rejected_as_the_audit_estimates(index, audit):
    # 0.1 + 0.6 + 0.9 make 1.6 wrong labels, rounded: 2.
    likely = audit.assign(suspicion=[0.1, 0.6, 0.9])
    manifest = build_manifest(likely, verdicts(), index, FOLDS, LabelsParams(policy="auto", max_suspicion=None))
    assert verdict_of(manifest) == {"a": "clean", "b": "bad", "c": "bad", "d": "unlabelled"}
    sure = build_manifest(audit.assign(suspicion=0.01), verdicts(), index, FOLDS, LabelsParams(policy="auto"))
    assert verdict_of(sure) == {"a": "clean", "b": "clean", "c": "clean", "d": "unlabelled"}


def test_a_label_that_is_more_likely_right_is_never_rejected_to_reach_the_estimate():
    assert suspects(pd.Series(0.4, [f"c{i}" for i in range(10)]), None).empty
    assert suspects(pd.Series([0.5, 0.45, 0.9, 0.45], list("abcd")), None).tolist() == ["c"]


def test_nothing_is_rejected_by_an_estimate_that_is_not_determined():
    suspicion = pd.Series([0.9, *[0.001] * 99], [f"c{i}" for i in range(100)])
    assert suspects(suspicion, None).empty
    assert suspects(suspicion, 0.5).tolist() == ["c0"]
    assert suspects(suspicion[:20], None).tolist() == ["c0"]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_the_most_suspicious_are_rejected_whatever_their_order(suspicion):
    score = pd.Series(suspicion, [f"c{i:02d}" for i in range(len(suspicion))])
    chosen = suspects(score, None)
    number = round(math.fsum(suspicion)) if is_determined(math.fsum(suspicion) / len(suspicion)) else 0
    assert len(chosen) == min(number, sum(s > 0.5 for s in suspicion))
    assert suspects(score[::-1], None).tolist() == chosen.tolist()
    if 0 < len(chosen) < len(score):
        assert score[chosen].min() >= score.drop(chosen).max()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=3, max_size=3), st.floats(0, 1), st.floats(0, 1))
def test_a_stricter_limit_never_rejects_fewer(suspicion, one, other):
    index = pd.DataFrame({"chip_id": ["a", "b", "c"], "labelled": True})
    audit = pd.DataFrame({"chip_id": ["a", "b", "c"], "suspicion": suspicion, "reasons": ""})
    strict, mild = (
        build_manifest(audit, verdicts(), index, FOLDS, params("auto", limit))["verdict"] == "bad"
        for limit in sorted((one, other))
    )
    assert (strict | ~mild).all()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.txt", "# rejected\nab12\n\n  0123  \n"),
        ("list.csv", "chip_id,votes\nab12,3\n0123,4\n"),
        ("bad_chips.yml", "overall: [ab12, 0123]\nshadow: [zz]\n"),
    ],
)
def test_lists_of_bad_chips_are_read_in_every_format(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    frame = read_verdicts(tmp_path / name)
    assert frame["chip_id"].tolist() == ["ab12", "0123"]
    assert set(frame["verdict"]) == {"bad"}
    assert set(frame["reviewer"]) == {name.split(".")[0]}


def test_verdicts_in_full_are_taken_as_they_are(tmp_path):
    tables.VERDICTS.write(verdicts(a="clean", b="unsure"), tmp_path / "mine.csv")
    pd.testing.assert_frame_equal(read_verdicts(tmp_path / "mine.csv"), verdicts(a="clean", b="unsure"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("list.json", "[]", "are .txt, .csv or .yml files"),
        ("list.csv", "id\na\n", r"columns \['id'\], but not chip_id"),
        ("list.yml", "shadow: [a]\n", "under the key overall"),
        ("list.yml", "- a\n", "under the key overall"),
    ],
)
def test_other_files_are_refused(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(ImportListError, match=message):
        read_verdicts(tmp_path / name)


@pytest.mark.parametrize("name", ["list.txt", "list.yml", "list.csv"])
def test_lists_of_a_spreadsheet_are_read_with_their_byte_order_mark_and_line_ends(tmp_path, name):
    content = {"txt": "a\r\nb\r\n", "yml": "overall: [a, b]\r\n", "csv": "chip_id\r\na\r\nb\r\n"}[name[-3:]]
    (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + content.encode())
    assert read_verdicts(tmp_path / name)["chip_id"].tolist() == ["a", "b"]
    (tmp_path / name).write_bytes(content.replace("b", "\xe9").encode("latin-1"))
    with pytest.raises(ImportListError, match=rf"{name} (is not UTF-8 text|cannot be read)"):
        read_verdicts(tmp_path / name)


def test_one_file_may_hold_several_reviews_and_a_manifest_is_one(tmp_path):
    (tmp_path / "votes.csv").write_text("chip_id,ana,bo\na,1,0\nb,1,1\nc,0,x\n")
    mine = read_verdicts(f"{tmp_path}/votes.csv:ana")
    assert mine[["chip_id", "verdict", "reviewer"]].to_numpy().tolist() == [["a", "bad", "ana"], ["b", "bad", "ana"]]
    with pytest.raises(ImportListError, match="bo contains values other"):
        read_verdicts(f"{tmp_path}/votes.csv:bo")
    with pytest.raises(ImportListError, match="but not cy"):
        read_verdicts(f"{tmp_path}/votes.csv:cy")
    index = pd.DataFrame({"chip_id": ["a", "b"], "labelled": True})
    audit = pd.DataFrame({"chip_id": ["a", "b"], "suspicion": [0.9, 0.1], "reasons": ""})
    manifest = build_manifest(audit, verdicts(), index, FOLDS, params("auto", 0.5))
    tables.MANIFEST.write(manifest, tmp_path / "manifest.csv")
    assert read_verdicts(tmp_path / "manifest.csv")["chip_id"].tolist() == ["a"]


def test_imported_lists_leave_earlier_verdicts_unless_told_otherwise(tmp_path):
    table = tmp_path / "verdicts.csv"
    tables.VERDICTS.write(verdicts(a="clean", z="bad"), table)
    (tmp_path / "list.yml").write_text("overall: [a, b]\n")
    arguments = ["manifest", "import", f"{tmp_path}/list.yml", "--reviewer", "ana", "--verdicts", str(table)]
    assert "1 verdicts added, 1 kept as they were" in CliRunner().invoke(main, arguments).output
    frame = tables.VERDICTS.read(table).set_index("chip_id")
    assert frame["verdict"].to_dict() == {"a": "clean", "b": "bad", "z": "bad"}
    assert frame.loc["b", "reviewer"] == "ana"
    assert "0 verdicts added, 2 replaced" in CliRunner().invoke(main, [*arguments, "--replace"]).output
    assert tables.VERDICTS.read(table)["verdict"].tolist() == ["bad", "bad", "bad"]


@pytest.fixture
def label_votes() -> Path:
    """Four people's reviews of the challenge's labels."""
    table = SHARED / "on-cloud-n" / "label_votes.csv"
    if not table.exists():
        pytest.skip("shared/on-cloud-n is not beside the project")
    return table


def test_the_published_reviews_differ_as_much_as_is_known(label_votes):
    names = ["list_1st", "list_2nd", "list_19th", "list_georgestein"]
    result = CliRunner().invoke(
        main,
        ["manifest", "compare", *(f"{label_votes}:{n}" for n in names), "--chips", str(label_votes)],
        catch_exceptions=False,
    )
    pairs = [line.split() for line in result.output.splitlines()[1:7]]
    jaccards = [float(pair[5]) for pair in pairs]
    assert min(jaccards) == pytest.approx(0.27, abs=0.01)
    assert max(jaccards) == pytest.approx(0.58, abs=0.01)
    counted = [int(line.split()[1]) for line in result.output.splitlines()[-5:]]
    assert counted == pd.read_csv(label_votes)["votes"].value_counts().sort_index().tolist()


def test_a_single_list_cannot_be_compared(tmp_path):
    (tmp_path / "list.csv").write_text("chip_id\na\n")
    result = CliRunner().invoke(
        main, ["manifest", "compare", f"{tmp_path}/list.csv", "--chips", f"{tmp_path}/list.csv"]
    )
    assert result.exit_code == 2
    assert "at least two lists" in result.output


def test_a_chip_listed_twice_is_refused(tmp_path):
    (tmp_path / "list.txt").write_text("a\nA\n")
    with pytest.raises(tables.TableError, match="same chip_id"):
        read_verdicts(tmp_path / "list.txt")


def test_kappa_is_cohens():
    rng = np.random.default_rng(0)
    chips = [f"c{i}" for i in range(200)]
    flags = rng.random((3, 200)) < np.array([[0.1], [0.3], [0.5]])
    flags[1, :20] = flags[0, :20] = True
    lists = {name: {c for c, f in zip(chips, row, strict=True) if f} for name, row in zip("abc", flags, strict=True)}
    table = agreement(lists, chips)
    assert table[["list_a", "list_b"]].to_numpy().tolist() == [["a", "b"], ["a", "c"], ["b", "c"]]
    expected = [cohen_kappa_score(flags[i], flags[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    np.testing.assert_allclose(table["kappa"], expected)
    np.testing.assert_allclose(table["jaccard"][0], (flags[0] & flags[1]).sum() / (flags[0] | flags[1]).sum())
    np.testing.assert_array_equal(votes(lists, chips).set_index("chip_id").loc[chips, "votes"], flags.sum(axis=0))


def test_equal_lists_agree_fully_even_when_empty():
    table = agreement({"a": {"x"}, "b": {"x", "elsewhere"}, "c": set(), "d": set()}, {"x", "y"})
    by_pair = table.set_index(["list_a", "list_b"])
    assert by_pair.loc[("a", "b"), ["jaccard", "kappa"]].tolist() == [1, 1]
    assert by_pair.loc[("c", "d"), ["jaccard", "kappa"]].tolist() == [1, 1]
    assert by_pair.loc[("a", "c"), ["jaccard", "kappa"]].tolist() == [0, 0]
    with pytest.raises(ValueError, match="without chips"):
        agreement({}, [])
