"""Files rendered from the parameter model: commented YAML, the JSON schema and `config/README.md`.

Both the command that updates the files and the test that detects drift rely on `outdated`.
"""

from __future__ import annotations

import inspect
import json
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from cloudcover.config.params import Params, load, validate
from cloudcover.config.sections import MemberParams

WIDTH = 120
"""Maximum line length of the YAML [characters]; a comment that would exceed it goes above its key."""

PARAMS = Path("params.yaml")
PRESETS = Path("config/presets")
SCHEMA = Path("workflow/schemas/params.schema.json")
README = Path("config/README.md")

_HEAD = """\
# Every value that changes a result, and nothing else. What each key means and allows: config/README.md.
# After an edit, `snakemake` or `dvc repro` runs what depends on it; `cloudcover params --write` updates the comments.

"""


def render(params: Params) -> str:
    """Render the parameters as YAML with a comment for each key; parsing it yields equal parameters."""
    blocks = ["\n".join(_lines({"seed": params.seed}, Params, ""))]
    for name, section in params:
        if isinstance(section, dict):
            comment = textwrap.wrap(str(Params.model_fields[name].description), WIDTH - 2)
            blocks.append("\n".join([*(f"# {line}" for line in comment), f"{name}:", *_mapping(section)]))
        elif isinstance(section, BaseModel):
            lines = [f"# {_summary(type(section))}", f"{name}:"]
            blocks.append("\n".join([*lines, *_lines(dict(section), type(section), "  ")]))
    return _HEAD + "\n\n".join(blocks) + "\n"


def schema() -> str:
    """Return the JSON schema (2020-12) of `params.yaml`, for editors and other programs."""
    content = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Params.model_json_schema()}
    return json.dumps(content, indent=2) + "\n"


def readme(presets: Mapping[str, str]) -> str:
    """Return `config/README.md`: the presets, and a table of keys for each section.

    Args:
        presets: Purpose of each preset by name, as `purposes` returns it.
    """
    content = Params.model_json_schema()
    rows = [f"| [`{name}`](presets/{name}.yaml) | {purpose} |" for name, purpose in presets.items()]
    plain = {name: _table({name: content["properties"][name]}) for name in ("seed", "rounds")}
    parts = ["\n".join([_README_HEAD, *rows]), *(f"## {name}\n\n{table}" for name, table in plain.items())]
    for name, field in Params.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            parts.append(_section(name, section, content))
        if name == "final":
            parts.append(_section("final.members.NAME", MemberParams, content))
    return "\n\n".join([*parts, _README_TAIL]).rstrip() + "\n"


def preset_path(name: str, root: Path = Path()) -> Path:
    """Return the file of a preset of the project in `root`.

    Raises:
        FileNotFoundError: The preset does not exist; the message lists those that do.
    """
    path = root / PRESETS / f"{name}.yaml"
    if not path.is_file():
        names = ", ".join(sorted(p.stem for p in (root / PRESETS).glob("*.yaml"))) or "none"
        raise FileNotFoundError(f"{name} is neither a file nor a preset (presets in {root / PRESETS}: {names})")
    return path


def purposes(root: Path) -> dict[str, str]:
    """Return the purpose of each preset below `root` by name: the comment in its first line."""
    files = sorted((root / PRESETS).glob("*.yaml"))
    return {path.stem: _text(path).partition("\n")[0].removeprefix("#").strip() for path in files}


def outdated(root: Path) -> dict[Path, str]:
    """Return the new text of every generated file below `root` that differs from the parameter model.

    Values in `params.yaml` are preserved, and new keys get their defaults. Presets are written by hand and not touched.

    Raises:
        ParamsError: `params.yaml` does not match the model, for example because a key was renamed.
    """
    params = load(root / PARAMS) if (root / PARAMS).exists() else validate({})
    wanted = {PARAMS: render(params), SCHEMA: schema(), README: readme(purposes(root))}
    return {path: text for path, text in wanted.items() if _text(root / path) != text}


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _lines(values: Mapping[str, Any], model: type[BaseModel], indent: str) -> Iterator[str]:
    """Render lines `key: value  # comment`, with aligned comments except after long values."""
    plain = {k: f"{indent}{k}: {scalar(v)}" for k, v in values.items() if not _holds_sections(v)}
    column = max([len(text) for text in plain.values() if len(text) <= 44], default=0)
    for key, value in values.items():
        comment = f"# {model.model_fields[key].description}"
        if _holds_sections(value):
            yield from textwrap.wrap(comment, WIDTH, initial_indent=indent, subsequent_indent=f"{indent}# ")
            yield f"{indent}{key}:"
            for name, item in value.items():
                yield f"{indent}  {scalar(name)}:"
                yield from _lines(dict(item), type(item), indent + "    ")
        elif len(line := f"{plain[key]:<{column}}  {comment}") <= WIDTH:
            yield line
        else:
            yield from textwrap.wrap(comment, WIDTH, initial_indent=indent, subsequent_indent=f"{indent}# ")
            yield plain[key]


def _mapping(values: Mapping[str, Any]) -> Iterator[str]:
    return (f"  {scalar(key)}: {scalar(value)}" for key, value in values.items())


def _holds_sections(value: Any) -> bool:
    return isinstance(value, dict) and any(isinstance(item, BaseModel) for item in value.values())


def scalar(value: Any) -> str:
    """Render a value as YAML on one line, with exponents that YAML 1.1 parses as numbers."""
    if isinstance(value, float) and "e" in repr(value):
        digits, exponent = repr(value).split("e")
        return f"{digits if '.' in digits else digits + '.0'}e{int(exponent):+d}"
    if isinstance(value, list):
        return f"[{', '.join(map(scalar, value))}]"
    text: str = yaml.safe_dump([value], default_flow_style=True, width=10_000)  # a list, so that commas are quoted
    return text.strip()[1:-1]


def _summary(model: type[BaseModel]) -> str:
    return inspect.getdoc(model) or ""


def _section(name: str, model: type[BaseModel], content: dict[str, Any]) -> str:
    definition = content["$defs"][model.__name__]
    return f"## {name}\n\n{_summary(model)}\n\n{_table(definition['properties'])}"


def _table(properties: dict[str, dict[str, Any]]) -> str:
    rows = ["| key | default | meaning | allowed |", "|---|---|---|---|"]
    for key, value in properties.items():
        default = value.get("default")
        shown = "{" + ", ".join(default) + "}" if isinstance(default, dict) else scalar(default)
        meaning = str(value["description"]).replace("|", r"\|")
        rows.append(f"| `{key}` | `{shown}` | {meaning} | {_allowed(value)} |")
    return "\n".join(rows)


def _allowed(value: dict[str, Any]) -> str:
    """Describe in words which values a property of the schema allows."""
    if "anyOf" in value:
        return " or ".join(_allowed(option) for option in value["anyOf"])
    if "enum" in value:
        return ", ".join(f"`{option}`" for option in value["enum"])
    kind = value.get("type")
    if kind == "array":
        return "list of " + _allowed(value["items"])
    if kind == "object":
        return "mapping of names to the keys below"
    words = {
        "integer": "whole number",
        "number": "number",
        "string": "text",
        "boolean": "`true`, `false`",
        "null": "`null`",
    }
    bounds = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = [f"{sign} {value[bound]:g}" for bound, sign in bounds.items() if bound in value]
    return " ".join([words[str(kind)], ", ".join(limits)]).strip()


_README_HEAD = """\
# Parameters

`params.yaml` in the root of the project holds every value that changes a result. This page is generated from the model
that checks the file; `cloudcover params --write` updates both. Editors can use `workflow/schemas/params.schema.json` to
complete and check the file.

- Keys that are left out take their defaults. Unknown keys, renamed keys and keys that appear twice are errors.
- A rule runs again only when a section that it depends on changes.
- A preset holds only what differs from the defaults. `cloudcover params full` prints it complete and commented, so
  `cloudcover params full > params.yaml` switches to it.

| preset | purpose |
|---|---|"""

_README_TAIL = """\
## verdicts.csv

Human verdicts on labels, one row per chip, edited by hand or by `cloudcover review`. `labels.policy` sets how they are
used.

| column | meaning |
|---|---|
| `chip_id` | id of the chip |
| `verdict` | `clean`, `bad` or `unsure` (reviewed, but left to the audit) |
| `reviewer` | name of the reviewer; recorded as the source in `data/labels/manifest.csv` |
| `reason` | what is wrong with the label, free text |
| `time` | time of the verdict, ISO 8601 |"""
