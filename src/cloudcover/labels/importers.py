"""Reviews made elsewhere: import of lists of rejected chips as verdicts, and comparison of lists."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import combinations
from pathlib import Path

import pandas as pd
import yaml

from cloudcover.config.params import refuse_duplicate_keys
from cloudcover.data import tables
from cloudcover.data.chips import stem_of
from cloudcover.runtime.text import plain

GOOD = frozenset(["0", "0.0", "false", "no", "n", "good", "clean", "ok"])
BAD = frozenset(["1", "1.0", "true", "yes", "y", "x", "bad"])
"""Words by which a column may judge each chip; an empty cell beside them judges as well."""


class ImportListError(ValueError):
    """A list of chips that cannot be read; the message names the file and the expected content."""


def read_verdicts(name: Path | str, reviewer: str | None = None) -> pd.DataFrame:
    """Read a review of labels.

    - `.csv` by `tables.VERDICTS`: used unchanged;
    - `.csv` by `tables.MANIFEST`: the labels that it rejects;
    - `.csv` with a column chip_id and none that judges the chips: every chip is bad;
    - `FILE.csv:COLUMN`: every chip with a 1 (or true) in the column is bad;
    - `.txt`: one chip id per line; blank lines and lines that begin with # are ignored;
    - `.yml`, `.yaml`: `overall: [chip ids]`.

    A chip may be written as the name of its file, with or without its folder.

    Args:
        name: File name, with `:COLUMN` for a file with several reviews.
        reviewer: Author of the list; None: the file's stem. A CSV by `tables.VERDICTS` names its own reviewers.

    Returns:
        `tables.VERDICTS`; `time` is empty, because lists contain no times.

    Raises:
        ImportListError: The file has an unsupported suffix or unexpected content.
        TableError: An id is not a plain name, or occurs twice.
    """
    path, column = Path(name), ""
    if ".csv:" in str(name):
        file, _, column = str(name).rpartition(":")
        path = Path(file)
    suffix = path.suffix.lower()
    if suffix == ".csv":
        frame = _read_csv(path, {"chip_id", column} - {""})
        if column:
            try:
                frame = frame[[tables.truth(text) for text in frame[column]]]
            except ValueError:
                raise ImportListError(f"{path}: the column {column} contains values other than 0 and 1") from None
        elif set(tables.VERDICTS.columns) <= set(frame):
            return tables.VERDICTS.check(frame.assign(chip_id=frame["chip_id"].map(_chip)), path)
        elif set(tables.MANIFEST.columns) <= set(frame):
            frame = frame[frame["verdict"] == "bad"]
        else:
            _refuse_judgements(path, frame)
        chips = frame["chip_id"].tolist()
    elif suffix == ".txt":
        lines = [line.strip() for line in _text(path).splitlines()]
        chips = [line for line in lines if line and not line.startswith("#")]
    elif suffix in (".yml", ".yaml"):
        # BaseLoader keeps ids as text: an id such as 0123 or no must not become a number or a boolean.
        try:
            content = yaml.load(_text(path), yaml.BaseLoader)
            refuse_duplicate_keys(path)
        except (yaml.YAMLError, RecursionError) as error:
            raise ImportListError(f"{path} is not valid YAML: {error}") from None
        overall = content.get("overall") if isinstance(content, dict) else None
        if not isinstance(overall, list) or not all(isinstance(c, str) for c in overall):
            raise ImportListError(f"{path} must hold a list of chip ids under the key overall")
        chips = overall
    else:
        raise ImportListError(f"{path}: lists of bad chips are .txt, .csv or .yml files")
    frame = pd.DataFrame({"chip_id": [_chip(text) for text in chips]})
    frame = frame.assign(verdict="bad", reviewer=plain(reviewer or column or path.stem), reason="", time="")
    return tables.VERDICTS.check(frame, path)


def read_chips(path: Path) -> list[str]:
    """Read the column chip_id of a CSV.

    Raises:
        ImportListError: The file cannot be read or has no such column.
    """
    return _read_csv(path, {"chip_id"})["chip_id"].tolist()


def _read_csv(path: Path, columns: set[str]) -> pd.DataFrame:
    try:
        frame = tables.read_csv(path)
    except ValueError as error:
        raise ImportListError(f"{path} cannot be read: {error}") from None
    if missing := columns - set(frame):
        raise ImportListError(f"{path} has the columns {list(frame)}, but not {', '.join(sorted(missing))}")
    return frame


def _refuse_judgements(path: Path, frame: pd.DataFrame) -> None:
    """Refuse a table of chips with a column that calls only some of them bad (`ImportListError`)."""
    if "verdict" in frame:
        missing = [column for column in tables.VERDICTS.columns if column not in frame]
        raise ImportListError(
            f"{path} has a column verdict, but not {', '.join(missing)}: add these columns, which may be empty, or "
            "list only the bad chips, without verdicts"
        )
    for column in frame.columns.drop("chip_id"):
        values = {text.strip().lower() for text in frame[column]}
        if values & (GOOD | {""}) and values & (GOOD | BAD) and values <= GOOD | BAD | {""}:
            raise ImportListError(
                f"{path}: the column {column} seems to say which chips are bad: name it, as {path}:{column}, or list "
                "only the bad chips, without it"
            )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ImportListError(f"{path} is not UTF-8 text, save it as such: {error}") from None


def _chip(text: str) -> str:
    """Parse the chip id of a line: `00120`, or the name or path of its file, `train_labels/00120.tif`."""
    name = text.strip().replace("\\", "/").rpartition("/")[2]
    return stem_of(name) or name


def agreement(lists: Mapping[str, Collection[str]], all_chips: Collection[str]) -> pd.DataFrame:
    """Measure the agreement of lists of rejected chips, pair by pair.

    Args:
        lists: Rejected chips by name of the list.
        all_chips: Chips that every list judged; others are ignored.

    Returns:
        A row per pair: `list_a`, `list_b`, `rejected_a_chips`, `rejected_b_chips`, `both_chips`, `jaccard` (1 if both
        are empty) and `kappa`, Cohen's (1960): agreement beyond chance, 1 for equal lists and 0 for chance; 1 if both
        lists reject nothing or everything.

    Raises:
        ValueError: There are no chips.
    """
    chips = set(all_chips)
    if not chips:
        raise ValueError("lists cannot be compared without chips")
    rows = []
    for (name_a, list_a), (name_b, list_b) in combinations(lists.items(), 2):
        a, b = set(list_a) & chips, set(list_b) & chips
        share_a, share_b = len(a) / len(chips), len(b) / len(chips)
        observed = 1 - len(a ^ b) / len(chips)
        chance = share_a * share_b + (1 - share_a) * (1 - share_b)
        rows.append(
            {
                "list_a": name_a,
                "list_b": name_b,
                "rejected_a_chips": len(a),
                "rejected_b_chips": len(b),
                "both_chips": len(a & b),
                "jaccard": len(a & b) / len(a | b) if a | b else 1.0,
                "kappa": (observed - chance) / (1 - chance) if chance < 1 else 1.0,
            }
        )
    columns = ["list_a", "list_b", "rejected_a_chips", "rejected_b_chips", "both_chips", "jaccard", "kappa"]
    return pd.DataFrame(rows, columns=columns)


def votes(lists: Mapping[str, Collection[str]], all_chips: Collection[str]) -> pd.DataFrame:
    """Count how many lists reject each chip.

    Returns:
        `chip_id`, a bool column per list, and the number of `votes`; sorted by chip.
    """
    frame = pd.DataFrame({"chip_id": sorted(set(all_chips))})
    for name, rejected in lists.items():
        frame[name] = frame["chip_id"].isin(set(rejected))
    return frame.assign(votes=frame[list(lists)].sum(axis=1).astype("int64"))
