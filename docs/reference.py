"""Write the API reference, as HTML, from the docstrings of the public modules. Every warning is an error.

    python docs/reference.py [FOLDER]

FOLDER is "site" unless another one is given; open FOLDER/index.html in a browser. The tool is pdoc, which the extra
"docs" installs.
"""

import importlib
import sys
import warnings
from pathlib import Path

import pdoc

PUBLIC = (
    "guard_plugin",
    "guard_plugin.attacks",
    "guard_plugin.comparison",
    "guard_plugin.datasets",
    "guard_plugin.diagnostics",
    "guard_plugin.distilled",
    "guard_plugin.errors",
    "guard_plugin.evaluation",
    "guard_plugin.hookspecs",
    "guard_plugin.hosts",
    "guard_plugin.injection",
    "guard_plugin.penalties",
    "guard_plugin.plugins",
    "guard_plugin.robustbench_bridge",
    "guard_plugin.spaces",
    "guard_adapters.cda",
    "guard_adapters.dc",
    "guard_adapters.mtt",
    "guard_adapters.sre2l",
    "guard_adapters.tesla",
)


def write_reference(folder: Path) -> None:
    """Write one page for each public module, and an index of all pages, into ``folder``."""
    for name in PUBLIC:
        module = importlib.import_module(name)
        # pdoc looks names up in the module's namespace: load those that the module only loads when it is asked for.
        vars(module).update({member: getattr(module, member) for member in module.__all__})
    pdoc.render.configure(docformat="google", show_source=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # A dataclass's annotations are texts, which pdoc looks up in the module of a class that inherits its __init__.
        warnings.filterwarnings("ignore", r"Error parsing type annotation .* for \S+\.__init__")
        pdoc.pdoc(*PUBLIC, output_directory=folder)


if __name__ == "__main__":
    write_reference(Path(sys.argv[1] if len(sys.argv) > 1 else "site"))
