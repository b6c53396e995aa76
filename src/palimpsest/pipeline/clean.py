"""Strip the notebooks of what running them leaves behind, so that git and DVC see changes of substance alone.

    python -m palimpsest.pipeline.clean [--check]

Outputs, execution counts and all metadata but tags go; the kernel is named neutrally. Cell ids stay.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

import nbformat
from nbformat.reader import NotJSONError

from palimpsest.files import atomic_path
from palimpsest.pipeline import project
from palimpsest.pipeline.project import ProjectError

METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def cleaned(text: str) -> str:
    """The notebook's text as it is to be stored; a clean notebook's text is its own fixed point.

    Raises nbformat's errors if ``text`` is not a notebook.
    """
    document = json.loads(text)
    for position, cell in enumerate(document.get("cells", []), start=1):
        cell.setdefault("id", f"cell-{position}")  # before nbformat would draw one at random
    if document.get("nbformat") == 4:
        document["nbformat_minor"] = max(5, document.get("nbformat_minor", 0))
    notebook = nbformat.reads(json.dumps(document), as_version=4)
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict({"tags": tags} if (tags := cell.metadata.get("tags")) else {})
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nbformat.validate(notebook)
    return nbformat.writes(notebook) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status: with ``--check``, 1 if a notebook is not clean."""
    parser = argparse.ArgumentParser(prog="python -m palimpsest.pipeline.clean", description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="change nothing; name the notebooks that are not clean")
    options = parser.parse_args(arguments)
    try:
        folder = project.root() / "notebooks"
    except ProjectError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    status = 0
    for path in sorted(folder.glob("*.ipynb")):
        text = path.read_text(encoding="utf-8")
        try:
            clean = cleaned(text)
        except (ValueError, NotJSONError, nbformat.ValidationError) as error:
            print(f"error: {path}: not a notebook: {error}", file=sys.stderr)
            status = 1
            continue
        if clean == text:
            continue
        if options.check:
            print(f"not clean: {path.relative_to(folder.parent)} (run: python -m palimpsest.pipeline.clean)")
            status = 1
        else:
            with atomic_path(path) as temporary:
                temporary.write_text(clean, encoding="utf-8")
            print(f"cleaned: {path.relative_to(folder.parent)}")
    return status


if __name__ == "__main__":
    sys.exit(main())
