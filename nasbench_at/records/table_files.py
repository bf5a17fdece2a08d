"""Tables as files: CSV, Parquet or LaTeX, by the suffix."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pandas as pd

from nasbench_at.runtime.atomic_files import write_atomically

__all__ = ["TABLE_SUFFIXES", "plain_cell", "write_frame"]

TABLE_SUFFIXES = (".csv", ".parquet", ".tex")
_RUN_BY_SPREADSHEETS = ("=", "+", "-", "@", "\t", "\n")


def write_frame(frame: pd.DataFrame, path: str | Path) -> None:
    """Writes a table; the suffix decides how.

    Args:
        frame: The table; its index is left out.
        path: A .csv, .parquet or .tex file. Values that are no numbers become text in Parquet; in
            CSV, text that spreadsheets would run is quoted, see :func:`plain_cell`.

    Raises:
        ValueError: If the suffix is another one, or the file cannot be written.
    """
    path = Path(path)
    match path.suffix:
        case ".csv":
            content = _to_csv(frame).encode()
        case ".parquet":
            content = _to_parquet(frame)
        case ".tex":
            content = _to_latex(frame).encode()
        case _:
            allowed = ", ".join(TABLE_SUFFIXES)
            raise ValueError(f"a table must end in {allowed}, got {str(path)!r}")
    try:
        write_atomically(path, content)
    except OSError as error:
        raise ValueError(f"cannot write {str(path)!r}: {error.strerror}") from None


def plain_cell(value: object) -> object:
    """Returns a cell for CSV: a text that a spreadsheet would run begins with ``'``.

    Those are texts that begin with ``=``, ``+``, ``-``, ``@``, a tab or a line break, and are no
    number. Run ids, options and names in a record may be anybody's. A carriage return, which the
    writer would not quote and readers take for the end of the row, becomes a line feed.

    Reference:
        OWASP, "CSV Injection".
    """
    if isinstance(value, bool | int | float) or value is None:
        return value
    text = str(value)
    if "\r" in text:
        text = value = text.replace("\r\n", "\n").replace("\r", "\n")
    if not text.startswith(_RUN_BY_SPREADSHEETS) or _is_number(text):
        return value
    return f"'{text}"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return not text[:1].isspace()


def _to_csv(frame: pd.DataFrame) -> str:
    plain = frame.copy()
    for i, kind in enumerate(frame.dtypes):
        if kind.kind not in "biufM":
            plain.isetitem(i, list(map(plain_cell, frame.iloc[:, i])))
    plain.columns = pd.Index([plain_cell(str(name)) for name in frame.columns])
    return plain.to_csv(index=False)


def _to_parquet(frame: pd.DataFrame) -> bytes:
    plain = frame.copy()
    for name in plain.columns:
        # A column of tuples, or of tuples and None, is no type of Parquet's.
        if plain[name].dtype == object:
            plain[name] = plain[name].map(lambda value: None if value is None else str(value))
    buffer = BytesIO()
    plain.to_parquet(buffer, index=False)
    return buffer.getvalue()


def _to_latex(frame: pd.DataFrame) -> str:
    """Returns a table with the rules of the package booktabs, numbers with four digits."""

    def to_text(value: object) -> str:
        if value is None or value != value:  # NaN
            return "--"
        if isinstance(value, list | tuple):
            return ", ".join(map(str, value))
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    # As text, because pandas leaves the special characters of lists and mappings as they are.
    texts = frame.map(to_text)
    layout = "".join("r" if kind.kind in "if" else "l" for kind in frame.dtypes)
    return texts.to_latex(index=False, escape=True, column_format=layout)
