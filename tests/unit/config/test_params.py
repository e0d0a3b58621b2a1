"""The parameters: what is refused and how the message helps, and the files that are made from the model."""

from __future__ import annotations

import difflib
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from cloudcover.config import render
from cloudcover.config.params import REMOVED, RENAMED, Params, ParamsError, declared, load, pick, validate
from cloudcover.config.sections import BAND
from cloudcover.data.tables import VERDICTS
from helpers.paths import ROOT

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), max_size=20)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"trainig": {}}, r"trainig: unknown key; did you mean training\? \(keys here: seed, rounds, data, "),
        ({"training": {"learning_rte": 1}}, r"training\.learning_rte: unknown key; did you mean learning_rate\?"),
        ({"final": {"member": {}}}, r"final\.member: unknown key; did you mean members\?"),
        (
            {"final": {"members": {"a": {"encodr": "resnet18"}}}},
            r"final\.members\.a\.encodr: .* did you mean encoder\?",
        ),
        ({"data": {"qqqq": 1}}, r"data\.qqqq: unknown key \(keys here: source, path,"),
    ],
)
def test_an_unknown_key_is_refused_at_every_level_with_the_nearest_name(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        validate(values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"training": {"loss": "lovas"}},
            r"training\.loss: 'lovas' is not an option; did you mean lovasz\? \(options: lovasz,",
        ),
        (
            {"prediction": {"compare_tta": ["none", "vflp"]}},
            r"prediction\.compare_tta\.1: 'vflp' is not an option; did you mean vflip\?",
        ),
        ({"model": {"encoder": "timm-resnest50d"}}, r"model\.encoder: .*did you mean tu-resnest50d"),
        ({"final": {"members": {"a": {"encoder": "resnet19"}}}}, r"final\.members\.a\.encoder: .*did you mean"),
    ],
)
def test_a_wrong_option_is_refused_with_the_nearest_one(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        validate(values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"training": {"steps": "many"}}, r"training\.steps: .*valid integer.*\(got 'many'\)"),
        ({"training": {"steps": 2.5}}, r"training\.steps: .*\(got 2\.5\)"),
        ({"folds": {"number": 1}}, r"folds\.number: .*greater than or equal to 2 \(got 1\)"),
        ({"labels": {"max_suspicion": 1.5}}, r"labels\.max_suspicion: .*less than or equal to 1 \(got 1\.5\)"),
        ({"data": 3}, r"data: .*\(got 3\)"),
        ({"final": {"members": {}}}, r"final\.members: .*at least 1 item"),
        ({"final": {"members": {"a b": {}}}}, r"final\.members\.a b.*should match pattern"),
        ({"rounds": {"first": "manifest.csv"}}, r"rounds\.first.*should match pattern"),
        (
            {"rounds": {"round1": "round2", "round2": "manifest.csv"}},
            r"rounds\.round1: 'round2' is neither",
        ),
        ({"final": {"labels": "round4"}}, r"final\.labels: 'round4' is not one of"),
        ({"data": {"source": "local", "path": "x"}}, r"evaluation\.references: \['oracle'\] need the true masks"),
        (
            {"final": {"members": {"a": {"augmentation": {"cutmx": 0.5}}}}},
            r"final\.members\.a: augmentation\.cutmx: unknown key; did you mean cutmix\?",
        ),
    ],
)
def test_a_wrong_type_or_bound_is_refused_with_the_value(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        validate(values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"data": {"bands": ["B02", "B03", "B04"]}}, "input.mean has 4 values for 3 bands of data.bands"),
        ({"data": {"bands": ["B02"]}, "input": {"mean": [0.3]}}, "input.std has 4 values for 1 bands"),
        ({"data": {"bands": ["B02", "B02"]}}, "name a band twice"),
        ({"data": {"chip_size": 100}}, "100 is not a multiple of 32"),
        ({"data": {"source": "local"}}, "source: local needs path"),
    ],
)
def test_values_that_do_not_fit_each_other_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        validate(values)


def test_all_mistakes_are_listed_at_once_under_the_name_of_the_file() -> None:
    with pytest.raises(ParamsError) as caught:
        validate({"sed": 1, "folds": {"nmber": 3}}, "my.yaml")
    lines = str(caught.value).splitlines()
    assert lines[0] == "my.yaml cannot be used:"
    assert [line.split(":")[0].strip() for line in lines[1:]] == ["folds.nmber", "sed"]


def test_a_file_that_is_not_yaml_is_refused_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("seed: [")
    with pytest.raises(ParamsError, match=r"broken\.yaml is not valid YAML"):
        load(tmp_path / "broken.yaml")


@pytest.mark.parametrize("text", ["[]", "- seed", "0", "''", "seed", "false"])
def test_a_file_that_is_not_a_mapping_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "list.yaml").write_text(text)
    with pytest.raises(ParamsError, match=r"list\.yaml cannot be used:\n  expected a mapping of sections"):
        load(tmp_path / "list.yaml")


def test_keys_that_appear_twice_are_refused_with_both_lines(tmp_path: Path) -> None:
    (tmp_path / "twice.yaml").write_text("folds: {number: 3}\ntraining:\n  steps: 1\n  steps: 2\nfolds: {}\n")
    with pytest.raises(ParamsError) as caught:
        load(tmp_path / "twice.yaml")
    assert str(caught.value).splitlines()[1:] == [
        "  training.steps: appears twice, on lines 3 and 4; remove one of them",
        "  folds: appears twice, on lines 1 and 5; remove one of them",
    ]


def _holds(key: str) -> bool:
    values: Any = validate({}).model_dump()
    for part in key.split("."):
        if part not in values:
            return False
        values = values[part]
    return True


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_an_earlier_name_is_refused_with_the_new_one(old: str, new: str) -> None:
    assert (_holds(old), _holds(new)) == (False, True)
    values: Any = {}
    for part in reversed(old.split(".")):
        values = {part: values}
    with pytest.raises(ParamsError, match=rf"(?m)^  {re.escape(old)}: renamed to {re.escape(new)}$"):
        validate(values)


@pytest.mark.parametrize("old", REMOVED)
def test_what_is_no_longer_used_is_refused_with_the_reason(old: str) -> None:
    assert not _holds(old)
    section, _, key = old.partition(".")
    with pytest.raises(ParamsError, match=rf"(?m)^  {re.escape(old)}: no longer used, remove it; \w+"):
        validate({section: {key or "epochs": 3}})


def test_an_empty_file_is_all_defaults(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("")
    assert load(tmp_path / "empty.yaml") == validate({})


def test_a_rule_sees_only_what_it_declares() -> None:
    params = validate({"seed": 3, "folds": {"number": 4}})
    seen = declared(pick(params, ["seed", "folds", "data.nodata", "data.bands"]))
    assert (seen.seed, seen.folds, seen.data.nodata) == (3, params.folds, 0)
    assert not hasattr(seen, "model")
    assert not hasattr(seen.data, "link")
    assert pick(seen, ["data.nodata"]) == {"data": {"nodata": 0}}
    with pytest.raises(KeyError, match="link"):
        pick(seen, ["data.link"])


def test_what_a_rule_declares_is_checked() -> None:
    with pytest.raises(ValidationError):
        declared({"data": {"nodata": -1}})


def test_generated_files_are_up_to_date() -> None:
    changed = render.outdated(ROOT)
    differences = [
        "".join(
            difflib.unified_diff(
                (ROOT / path).read_text(encoding="utf-8").splitlines(keepends=True) if (ROOT / path).exists() else [],
                text.splitlines(keepends=True), str(path), f"{path} by the model",
            )
        )
        for path, text in changed.items()
    ]  # fmt: skip
    assert not changed, "run `cloudcover params --write`:\n" + "\n".join(differences)


PRESETS = sorted((ROOT / render.PRESETS).glob("*.yaml"))


def test_the_quick_preset_is_the_projects_own_parameters() -> None:
    assert load(ROOT / render.PRESETS / "quick.yaml") == load(ROOT / "params.yaml")


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_a_preset_says_its_purpose_and_holds_only_what_differs_from_the_defaults(path: Path) -> None:
    assert re.match(r"# \S.*\.\n(?!#)", path.read_text(encoding="utf-8") + "\n")
    given, full, defaults = yaml.safe_load(path.read_text()) or {}, load(path).model_dump(), validate({}).model_dump()
    for section, values in given.items():
        if isinstance(values, dict) and section != "rounds":
            assert values, section
            assert [key for key in values if full[section][key] == defaults[section][key]] == [], section
        else:
            assert full[section] != defaults[section]


def test_the_full_preset_is_the_recipe_of_the_original() -> None:
    full = load(ROOT / render.PRESETS / "full.yaml")
    t = full.training
    assert (full.data.source, full.data.chip_size, full.folds.number) == ("local", 512, 5)
    assert (full.model.architecture, full.model.encoder, full.model.encoder_weights) == (
        "unet",
        "tu-resnest50d",
        "imagenet",
    )
    assert full.model.decoder_channels is None
    assert (t.loss, t.optimizer, t.learning_rate, t.weight_decay) == ("lovasz", "adam", 4e-5, 1e-5)
    assert (t.steps, t.batch_size, t.warmup_steps, t.min_learning_rate) == (6750, 32, 0, 1e-6)


def test_the_file_of_verdicts_can_be_read() -> None:
    VERDICTS.read(ROOT / "config/verdicts.csv")


def test_the_schema_refuses_unknown_keys_and_describes_every_key() -> None:
    content = json.loads(render.schema())
    for definition in [content, *content["$defs"].values()]:
        assert definition["additionalProperties"] is False
        assert all("description" in p or "$ref" in p for p in definition["properties"].values())


def test_the_reference_names_every_key() -> None:
    text = render.readme({"mine": "for me"})
    assert "| [`mine`](presets/mine.yaml) | for me |" in text
    for name, section in validate({}).model_dump().items():
        for key in section if isinstance(section, dict) and name != "rounds" else [name]:
            assert f"| `{key}` |" in text


def test_rendered_yaml_has_a_comment_for_every_key_and_short_lines() -> None:
    text = render.render(validate({}))
    lines = text.splitlines()
    assert max(map(len, lines)) <= render.WIDTH
    for number, line in enumerate(lines):
        if (
            line
            and not line.lstrip().startswith("#")
            and line.strip() != "unet:"
            and not re.match(r"  round\d: ", line)
        ):
            assert "# " in line or lines[number - 1].lstrip().startswith("#")


@example(seed=0, rate=5.960464477539063e-08, decay=None, path=None, members={"a": {}}, bands=["null", "0"])
@example(seed=0, rate=1e-5, decay=None, path="a, b: #c", members={"no": {}}, bands=["no", "1e5"])
@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 10**9),
    rate=st.floats(1e-12, 1e3),
    decay=st.none() | st.floats(0.001, 0.999),
    path=st.none() | TEXT.map(lambda text: text.translate(dict.fromkeys(map(ord, "{}")))),
    bands=st.lists(
        st.from_regex(r"[0-9a-z_-]{1,6}", fullmatch=True).filter(BAND.fullmatch), min_size=2, max_size=2, unique=True
    ),
    members=st.dictionaries(
        st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,8}", fullmatch=True),
        st.sampled_from([{}, {"architecture": "fpn"}]),
        min_size=1,
    ),
)
def test_rendered_yaml_reads_back_to_equal_parameters(
    seed: int, rate: float, decay: float | None, path: str | None, members: dict[str, Any], bands: list[str]
) -> None:
    values = {
        "seed": seed,
        "training": {"learning_rate": rate, "ema_decay": decay},
        "data": {"path": path, "bands": bands},
        "input": {"mean": [rate, 0.5], "std": [1.0, 0.25]},
        "final": {"members": members},
    }
    params = validate(values)
    assert Params.model_validate(yaml.safe_load(render.render(params))) == params


def test_new_keys_reach_params_yaml_its_values_are_kept_and_presets_left_alone(tmp_path: Path) -> None:
    (tmp_path / render.PRESETS).mkdir(parents=True)
    (tmp_path / render.PRESETS / "mine.yaml").write_text("# For me.\ntraining: {steps: 98}\n")
    (tmp_path / render.PARAMS).write_text("training: {steps: 99}")
    changed = render.outdated(tmp_path)
    assert set(changed) == {render.PARAMS, render.SCHEMA, render.README}
    assert changed[render.PARAMS] == render.render(validate({"training": {"steps": 99}}))
    assert "| [`mine`](presets/mine.yaml) | For me. |" in changed[render.README]


def test_a_member_overrides_network_and_augmentation_and_keeps_the_rest() -> None:
    member = {"architecture": "fpn", "augmentation": {"cutmix": 0.5, "crop_size": 64}}
    params = validate({"augmentation": {"vflip": 0.25}, "final": {"members": {"a": member, "b": {}}}})
    a, b = params.final.members["a"], params.final.members["b"]
    assert a.override_model(params.model) == params.model.model_copy(update={"architecture": "fpn"})
    changed = a.override_augmentation(params.augmentation)
    assert (changed.cutmix, changed.crop_size, changed.vflip) == (0.5, 64, 0.25)
    assert b.override_model(params.model) == params.model
    assert b.override_augmentation(params.augmentation) == params.augmentation


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("training", "learning_rate", math.inf), ("training", "weight_decay", math.inf),
        ("input", "mean", [math.nan] * 4), ("input", "std", [math.inf] * 4), ("input", "std", [0.2, 0.2, 0.0, 0.2]),
    ],
)  # fmt: skip
def test_numbers_are_finite_and_divisors_positive(section, key, value):
    with pytest.raises(ParamsError, match=rf"{section}\.{key}.*(finite|above 0)"):
        validate({section: {key: value}})


def test_a_file_that_is_no_text_is_named(tmp_path):
    (tmp_path / "params.yaml").write_bytes("seed: 1  # caf\xe9".encode("latin-1"))
    with pytest.raises(ParamsError, match=r"params\.yaml is not UTF-8 text"):
        load(tmp_path / "params.yaml")


@pytest.mark.parametrize("text", ["seed: 2020-99-01", "seed: " + "9" * 5000, "seed: " + "[" * 3000])
def test_values_that_yaml_cannot_read_are_refused_with_the_file(tmp_path, text):
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(ParamsError, match=r"params\.yaml is not valid YAML"):
        load(tmp_path / "params.yaml")


@pytest.mark.parametrize("data", [{"source": "local", "path": "x"}, {"source": "synthetic"}])
def test_a_source_without_subsets_does_not_ignore_one(data):
    with pytest.raises(ParamsError, match="has no subsets"):
        validate({"data": {**data, "subset": 0.5}, "evaluation": {"references": []}})
