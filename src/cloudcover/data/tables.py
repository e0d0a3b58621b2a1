"""The tables between stages, each with one declared schema that is checked on writing and on reading.

Tables that people may read or edit are CSV, the others Parquet; the suffix of the path decides.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from cloudcover.runtime.files import atomic
from cloudcover.runtime.text import listed

CHIP_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*")


CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
"""Characters not allowed in the texts of a table: line breaks, other control characters, and lone surrogates."""


class TableError(ValueError):
    """A table that violates its schema; the message names the file, the column and the rows."""


@dataclass(frozen=True)
class Table:
    """The schema of a table.

    Attributes:
        name: Name of the table in messages.
        columns: Column -> pandas dtype (`str`, `int64`, `float64`, `bool`); units are part of the column's name.
        key: Columns that identify a row.
        options: Column -> allowed values.
        extra: Whether further columns may follow.
        extra_dtype: Dtype of further columns; None: unchanged.
        checks_keys: Whether ids must be plain file names, texts on one line and keys unique; False for tables that list
            problems.
    """

    name: str
    columns: dict[str, str]
    key: tuple[str, ...] = ("chip_id",)
    options: dict[str, tuple[str, ...]] = field(default_factory=dict)
    extra: bool = False
    extra_dtype: str | None = None
    checks_keys: bool = True

    def empty(self) -> pd.DataFrame:
        """Return a table without rows."""
        return self.check(pd.DataFrame({c: [] for c in self.columns}), self.name)

    def check(self, frame: pd.DataFrame, origin: Path | str) -> pd.DataFrame:
        """Check a frame, and return it with the declared column order and dtypes.

        Raises:
            TableError: A column is missing or unknown, a value has another type, a key is duplicated (also if only in
                case), a chip id is not a plain name, a text is not on one line, or a value is not among the options.
        """
        where = f"{origin} ({self.name})"
        missing = [c for c in self.columns if c not in frame]
        unknown = [c for c in frame if c not in self.columns]
        if missing or (unknown and not self.extra):
            raise TableError(
                f"{where}: missing columns {missing}, unknown columns {unknown}; expected {list(self.columns)}"
            )
        frame = frame[[*self.columns, *(unknown if self.extra else [])]].copy()
        for column, dtype in self._dtypes(frame).items():
            try:
                frame[column] = _cast(frame[column], dtype)
            except (ValueError, TypeError) as error:
                raise TableError(f"{where}: column {column} is not {dtype}: {error}") from None
        if self.checks_keys:
            self._check_texts(frame, where)
            self._check_keys(frame, where)
        for column, options in self.options.items():
            wrong = frame.index[~frame[column].isin(options)]
            if len(wrong):
                values = sorted(set(frame.loc[wrong, column]))[:5]
                raise TableError(f"{where}: {column} has {values} in rows {_rows(wrong)}; options: {list(options)}")
        return frame.reset_index(drop=True)

    def _check_texts(self, frame: pd.DataFrame, where: str) -> None:
        for column in (c for c, dtype in self.columns.items() if dtype == "str"):
            odd = [row for row, text in enumerate(frame[column]) if CONTROL.search(text)]
            if odd:
                raise TableError(
                    f"{where}: {column} holds control characters, such as line breaks, in rows {_rows(pd.Index(odd))}: "
                    f"{[frame[column].iloc[row] for row in odd[:5]]}; write each text on one line"
                )

    def _check_keys(self, frame: pd.DataFrame, where: str) -> None:
        frame = frame.reset_index(drop=True)
        if "chip_id" in self.columns:
            odd = frame.index[~frame["chip_id"].map(lambda c: bool(CHIP_ID.fullmatch(c)) and ".." not in c)]
            if len(odd):
                raise TableError(
                    f"{where}: chip ids must be plain file names, but rows {_rows(odd)} "
                    f"hold {list(frame['chip_id'][odd])[:5]}"
                )
        if self.key:
            keys = frame[self.key[0]].astype(str)
            for column in self.key[1:]:
                keys = keys + "|" + frame[column].astype(str)
            twice = keys.index[keys.str.lower().duplicated(keep=False)]
            if len(twice):
                raise TableError(
                    f"{where}: rows {_rows(twice)} have the same {'+'.join(self.key)} "
                    f"(or differ only in case): {list(keys[twice])[:5]}"
                )

    def _dtypes(self, frame: pd.DataFrame) -> dict[str, str]:
        """Return the dtypes of the declared columns, and of further columns in the frame if they have one."""
        extra = {column: self.extra_dtype for column in frame if column not in self.columns} if self.extra else {}
        return self.columns | {str(column): dtype for column, dtype in extra.items() if dtype}

    def write(self, frame: pd.DataFrame, path: Path | str) -> None:
        """Check and write the table atomically."""
        frame = self.check(frame, path)
        with atomic(path) as part:
            if Path(path).suffix == ".parquet":
                frame.to_parquet(part, index=False, write_page_checksum=True)
            else:
                frame.to_csv(part, index=False, lineterminator="\n")

    def read(self, path: Path | str) -> pd.DataFrame:
        """Read and check the table.

        Raises:
            TableError: See `check`; also raised for an empty file.
            FileNotFoundError: The file does not exist.
        """
        try:
            if Path(path).suffix == ".parquet":
                frame = read_parquet(path)
            else:
                frame = read_csv(path)
                for column, dtype in self._dtypes(frame).items():
                    if dtype == "bool" and column in frame:
                        frame[column] = frame[column].map(truth)
                    elif dtype.startswith(("int", "float")) and column in frame:
                        frame[column] = pd.to_numeric(frame[column].replace("", None), errors="raise")
        except FileNotFoundError:
            raise
        except (ValueError, OSError) as error:
            raise TableError(f"{path} ({self.name}) cannot be read: {error}") from None
        return self.check(frame, path)


def read_parquet(path: Path | str) -> pd.DataFrame:
    """Read a Parquet file, pages checked.

    Raises:
        ValueError: It is damaged.
        OSError: It cannot be read.
    """
    try:
        return pd.read_parquet(path, page_checksum_verification=True)
    except (LookupError, TypeError, AttributeError) as error:
        # pandas trusts the description of the columns, which no checksum covers.
        raise ValueError(f"its description of the columns is damaged: {error!r}") from None


def read_csv(path: Path | str) -> pd.DataFrame:
    """Read a CSV as text without interpretation: no numbers, no missing values, no index.

    Raises:
        ValueError: The file is empty or not UTF-8, its columns are not separated by commas, it names a column twice, or
            a row has more or fewer fields than the header.
    """
    with Path(path).open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            numbered = [(reader.line_num, row) for row in reader if row]
        except csv.Error as error:
            raise ValueError(f"line {reader.line_num}: {error}") from None
        except UnicodeDecodeError as error:
            raise ValueError(f"it is not UTF-8 text, save it as such (CSV UTF-8): {error}") from None
    header = numbered[0][1] if numbered else []
    if len(header) == 1 and (found := re.search("[;\t|]", header[0])):
        raise ValueError(f"its first line is {header[0]!r}: separate the columns by commas, not by {found[0]!r}")
    for line, row in numbered:
        if len(row) != len(header):
            raise ValueError(f"line {line} has {len(row)} fields, but the header {len(header)}")
    if not header or len(set(header)) < len(header):
        raise ValueError(f"its first line must name each column once, found {header}")
    return pd.DataFrame([row for _, row in numbered[1:]], columns=header, dtype=str)


def truth(text: str) -> bool:
    """Parse a boolean as written by programs and spreadsheets; raise `ValueError` for any other text, even if empty."""
    values = {"true": True, "1": True, "false": False, "0": False}
    if text.lower() not in values:
        raise ValueError(f"{text!r} is not true or false")
    return values[text.lower()]


def _cast(values: pd.Series, dtype: str) -> pd.Series:
    if dtype == "str":
        return values.fillna("").astype(str)
    if dtype == "bool" and (values.isna().any() or not values.isin([True, False]).all()):
        raise ValueError("it contains values other than true and false")
    return values.astype(pd.api.types.pandas_dtype(dtype))


def _rows(index: pd.Index) -> str:
    """Return row numbers as in an editor, where the header is line 1."""
    return listed(index + 2)


FILES = Table("raw files", {"path": "str", "bytes": "int64", "sha256": "str", "origin": "str"}, key=("path",))
METADATA = Table(
    "chip metadata", {"chip_id": "str", "location": "str", "datetime": "str", "cloudpath": "str"}, extra=True
)
QUARANTINE = Table(
    "quarantined chips",
    {"chip_id": "str", "band": "str", "reason": "str"},
    key=("chip_id", "band"),
    checks_keys=False,
)
TRUTH = Table(
    "true masks of synthetic chips",
    {"chip_id": "str", "path": "str", "sha256": "str", "error": "str", "label_iou": "float64"},
)
INDEX = Table(
    "store index",
    {
        "chip_id": "str", "shard": "int64", "row": "int64", "split": "str",
        "location": "str", "datetime": "str", "scene": "str",
        "labelled": "bool", "label_coverage_share": "float64", "label_known_share": "float64",
        "nodata_share": "float64", "flags": "str", "crs": "str", "transform": "str", "source_sha256": "str",
    },
    options={"split": ("train", "test", "unlabelled")},
    extra=True,
)  # fmt: skip
EVIDENCE = Table(
    "evidence about labels",
    {
        "chip_id": "str", "row": "int64", "tree_fold": "int64", "early_agreement": "float64",
        "bright_outside_share": "float64", "dark_inside_share": "float64", "green_inside_share": "float64",
        "brightness_auc": "float64", "haze_auc": "float64", "label_separability_auc": "float64",
    },
)  # fmt: skip
AUDIT = Table(
    "label audit",
    {"chip_id": "str", "suspicion": "float64", "reasons": "str"},
    extra=True,
    extra_dtype="float64",  # the evidence
)
VERDICTS = Table(
    "human verdicts",
    {"chip_id": "str", "verdict": "str", "reviewer": "str", "reason": "str", "time": "str"},
    options={"verdict": ("clean", "bad", "unsure")},
)
MANIFEST = Table(
    "label-cleaning manifest",
    {
        "chip_id": "str", "verdict": "str", "label": "str", "source": "str", "reason": "str", "score": "float64",
        "time": "str",
    },
    options={"verdict": ("clean", "bad", "unlabelled"), "label": ("human", "pseudo", "none")},
    extra=True,
)  # fmt: skip
FOLDS = Table("folds", {"chip_id": "str", "fold": "int64", "scene": "str"})
ROUND = Table(
    "labels after a round",
    {
        **MANIFEST.columns, "row": "int64", "confident_share": "float64", "coverage_share": "float64",
        "agreement_iou": "float64", "change": "str", "changed_pixels_share": "float64",
    },
    options={**MANIFEST.options, "change": ("added", "kept", "dropped", "none")},
)  # fmt: skip
PSEUDO_LOCATIONS = Table(
    "pseudo-labels by location",
    {
        "round": "int64", "location": "str", "candidate_chips": "int64", "accepted_chips": "int64",
        "added_chips": "int64", "kept_chips": "int64", "dropped_chips": "int64", "confident_share": "float64",
        "agreement_share": "float64", "agreement_accepted_share": "float64", "agreement_refused_share": "float64",
    },
    key=("round", "location"),
)  # fmt: skip
COUNTS = Table(
    "confusion counts per chip",
    {
        "chip_id": "str", "run": "str", "tta": "str", "fold": "int64",
        "location": "str", "scene": "str", "verdict": "str",
        "tp_pixels": "int64", "fp_pixels": "int64", "fn_pixels": "int64", "tn_pixels": "int64",
    },
    key=("chip_id", "run", "tta"),
)  # fmt: skip
HISTORY = Table(
    "learning curve",
    {
        "epoch": "int64", "learning_rate": "float64", "train_loss": "float64", "validation_loss": "float64",
        "validation_jaccard": "float64", "validation_location_mean": "float64", "seconds": "float64",
    },
    key=("epoch",),
)  # fmt: skip
OOF = Table("out-of-fold predictions", {"chip_id": "str", "row": "int64", "fold": "int64"})
SECONDS = Table("time of prediction", {"tta": "str", "chips": "int64", "seconds": "float64"}, key=("tta",))
PREDICTIONS = Table(
    "masks of unlabelled chips", {"chip_id": "str", "path": "str", "sha256": "str", "coverage_share": "float64"}
)
SHARES = Table(
    "shares of masks",
    {
        "image": "str", "polygon": "str", "pixels": "int64", "cloud_share": "float64", "clear_share": "float64",
        "unknown_share": "float64",
    },
    key=("image", "polygon"),
)  # fmt: skip
