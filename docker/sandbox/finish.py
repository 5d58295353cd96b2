"""Finishes the sandbox's Python, the one that runs this: strips it, imports every package once, bakes its font cache.

Run once where the image or bubblewrap's environment is built, before anything hostile is there. May be run again.
"""

import importlib
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

PACKAGES = ["IPython", "matplotlib_inline", "numpy", "pandas", "scipy", "matplotlib", "seaborn", "sklearn", "PIL"]
PACKAGES += ["openpyxl", "xlrd", "docx", "pptx", "pypdf", "reportlab", "sympy", "networkx"]
MODULES = ["scipy.stats", "scipy.optimize", "sklearn.ensemble", "sklearn.linear_model", "matplotlib.pyplot"]

FAMILIES = ["DejaVu Sans", "WenQuanYi Zen Hei", "Noto Sans CJK JP", "Droid Sans Fallback", "Symbola"]
"""Fonts that figures take characters from, in this order, where they are installed: Latin, CJK, symbols and emoji."""

TEMPLATE = Path(sys.prefix, "share", "matplotlib")
"""What a session copies to its MPLCONFIGDIR: without it the first figure takes seconds, and warns on stderr."""


def strip(packages: Path) -> None:
    """Take out what running code does not need: pip, which has no network here, tests, sources, sample files."""
    for pattern in (
        "pip",
        "pip-*.dist-info",
        "setuptools",
        "setuptools-*.dist-info",
        "matplotlib/mpl-data/sample_data",
    ):
        for folder in packages.glob(pattern):
            shutil.rmtree(folder)
    for folder in [*packages.rglob("tests"), Path(sys.prefix, "bin", "__pycache__")]:
        shutil.rmtree(folder, ignore_errors=True)  # one may be inside of another, or not be there
    for file in packages.rglob("*"):
        if file.suffix in {".pyi", ".pxd", ".pyx", ".h", ".c", ".cpp", ".a"} and file.is_file():
            file.unlink()
    for script in Path(sys.prefix, "bin").iterdir():
        if not script.name.startswith("python"):  # they name the folder that this was built in
            script.unlink()


def bake_fonts() -> None:
    """Let matplotlib look through the fonts now, and prefer those that are there."""
    shutil.rmtree(TEMPLATE, ignore_errors=True)
    TEMPLATE.mkdir(parents=True)
    os.environ["MPLCONFIGDIR"] = str(TEMPLATE)
    from matplotlib import font_manager

    fonts = font_manager.fontManager.ttflist
    weights = {family: {font.weight for font in fonts if font.name == family} for family in FAMILIES}
    for font in list(fonts):
        if len(weights.get(font.name, ())) == 1:  # for any other weight than its only one there would be a warning
            fonts += [replace(font, weight=weight) for weight in {400, 700} - weights[font.name]]
    [cache] = TEMPLATE.glob("fontlist-*.json")
    font_manager.json_dump(font_manager.fontManager, cache)
    families = [family for family, known in weights.items() if known]
    if len(families) < 2:
        print("Figures lack CJK characters and emoji: install the fonts of fonts.txt, then have this built again.")
    (TEMPLATE / "matplotlibrc").write_text(f"font.family: {', '.join(families)}\n", "utf-8")


if __name__ == "__main__":
    [site_packages] = Path(sys.prefix, "lib").glob("python3.*/site-packages")
    strip(site_packages)
    bake_fonts()
    for module in PACKAGES + MODULES:
        importlib.import_module(module)
