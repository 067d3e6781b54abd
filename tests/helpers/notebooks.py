"""A notebook of docs/notebooks, run from top to bottom in a kernel of its own."""

import nbclient
import nbformat

from helpers import pages

FOLDER = pages.ROOT / "docs" / "notebooks"


def read(name):
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    return notebook


def run(name, folder, monkeypatch):
    """The outputs of its cells. One thread; nothing of the user's settings is read or written."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for variable in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(variable, str(folder / variable.lower()))
    client = nbclient.NotebookClient(read(name), timeout=240, resources={"metadata": {"path": folder}})
    return [output for cell in client.execute().cells for output in cell.get("outputs", ())]


def pictures(outputs):
    return sum("image/png" in output.get("data", ()) for output in outputs)
