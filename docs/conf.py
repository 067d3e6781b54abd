"""The site's configuration: `make docs` builds it into build/docs, and a warning is an error."""

import re
import sys
import types

from docutils import nodes

import vae_fast
from tools.changed_lines import changed_lines

project = "vae_fast"
author = "the vae_fast developers"
copyright = "the vae_fast developers, MIT licence"
release = version = vae_fast.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx_copybutton",
]
# What stands in quotes is a value, as often as not.
smartquotes = False
html_theme = "furo"
html_title = f"vae_fast {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
exclude_patterns = ["results"]
# A page for each name of api.md, which the build writes into docs/api.
templates_path = ["_templates"]

myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3

# Those of users, not of the site.
autodoc_mock_imports = ["pythae", "scvi"]
# Pyro's is a base class, and a mocked one would put its own signature in the place of ours.
for name in ("pyro", "pyro.distributions", "pyro.distributions.torch_distribution"):
    sys.modules[name] = types.ModuleType(name)
sys.modules["pyro.distributions.torch_distribution"].TorchDistributionMixin = type("TorchDistributionMixin", (), {})
autodoc_typehints = "signature"
# Of a longer signature each parameter has a line.
maximum_signature_line_length = 80
autodoc_member_order = "bysource"
# A number of the signature is more than its default's type: as it stands in the source.
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_use_rtype = False
napoleon_custom_sections = ["Shapes", "Data", "Noise", "Source"]


def _plain(app, what, name, obj, options, lines):
    """Docstrings say |x| and [B, *latent], which are no substitutions and no emphasis."""
    in_math = False
    for k, line in enumerate(lines):
        if ".. math::" in line:
            in_math = True
            continue
        in_math = in_math and (not line.strip() or line.startswith("    "))
        if not in_math:
            parts = re.split(r"(``.*?``|:\w+:`.*?`)", line)
            parts[::2] = [re.sub(r"(?<![\w*])([*|])(?=\w)|\|", _escaped, part) for part in parts[::2]]
            lines[k] = "".join(parts)


def _escaped(found):
    rest = found.string[found.end() :]
    emphasis = found.group() == "*" and re.match(r"\w+\*", rest)
    return found.group() if emphasis else "\\" + found.group()


def _skipped(app, what, name, obj, skip, options):
    """A field of a tuple is said of the tuple, and has no text of its own."""
    return True if (getattr(obj, "__doc__", None) or "").startswith("Alias for field number") else None


def _highlighted(app, doctree):
    """What takes the place of a user's line is marked in each example."""
    for block in doctree.findall(nodes.literal_block):
        if block.get("language") == "python":
            block["highlight_args"] = {"hl_lines": changed_lines(block.astext())}


def setup(app):
    app.connect("autodoc-process-docstring", _plain, priority=100)
    app.connect("autodoc-skip-member", _skipped)
    app.connect("doctree-read", _highlighted)
