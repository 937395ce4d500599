"""Executes the notebooks of this folder in full and keeps their output: `make colabs`.

    python colabs/execute.py [NAME ...]

The runs are made in `runs/colabs`; a notebook that was interrupted goes on from there. CPU minutes are those of all of
its processes, and do not depend much on what else the machine does.
"""

import resource
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent


def main() -> None:
    folder = HERE.parent / "runs" / "colabs"
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(HERE.glob("*.ipynb")):
        if len(sys.argv) > 1 and path.stem not in sys.argv[1:]:
            continue
        began, spent, book = time.time(), cpu_seconds(), nbformat.read(path, as_version=4)
        place = {"metadata": {"path": str(folder)}}
        NotebookClient(book, timeout=None, resources=place, coalesce_streams=True).execute()
        for cell in book.cells:
            cell.metadata.pop("execution", None)
            if cell.cell_type == "code":  # progress bars and warnings are no results
                cell.outputs = [x for x in cell.outputs if x.get("name") != "stderr"]
        nbformat.write(book, path)
        minutes, of_cpu = (time.time() - began) / 60, (cpu_seconds() - spent) / 60
        print(f"{path.name}: {minutes:.1f} minutes, {of_cpu:.1f} CPU minutes", flush=True)


def cpu_seconds() -> float:
    """Of the kernels that have ended, with their own processes."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
