"""Renders the conda recipe for each platform and Python, and prints what a build of each would be of.

Argument: the recipe's folder.
"""

import sys
from pathlib import Path

import rattler_build as rattler

folder = Path(sys.argv[1])
recipe = rattler.Stage0Recipe.from_file(folder / "recipe.yaml")
variants = rattler.VariantConfig.from_file(folder / "variants.yaml")
for name in ("linux-64", "linux-aarch64"):
    platform = rattler.PlatformConfig(target_platform=name)
    rendered = recipe.render(variants, rattler.RenderConfig(platform=platform))
    assert len(rendered) == len(variants["python"]), name
    for variant in rendered:
        made = variant.recipe.to_dict()
        needs = ", ".join(made["requirements"]["build"] + made["requirements"]["host"])
        print(f"{name}: {made['package']['name']}-{made['package']['version']}-{made['build']['string']}", end="")
        print(f" for Python {variant.variant['python']}, of {needs}")
