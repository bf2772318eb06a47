"""The browser and the Chinese font that tests of the pages need, and their installation:  python -m tests.pages.packages

Debian's own Chromium, as root, once: some 100 MB to fetch. The font is 2 MB; the pages themselves name what a reader has.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from tests.debian import NotCovered, exit_code, install

# The same name on Debian and derivatives; Ubuntu's package of this name is a snap and is not meant.
BROWSER, FONT = "chromium", "fonts-droid-fallback"
FONTS = Path("/usr/share/fonts")
CHINESE = ("DroidSansFallback*", "NotoSansCJK*", "wqy-*", "uming*", "ukai*")
WORDS = "tests/pages: not covered here: the pages in a real browser"


def missing() -> list[str]:
    """Returns the packages that are not installed."""
    found = [] if shutil.which(BROWSER) else [BROWSER]
    if not any(path for pattern in CHINESE for path in FONTS.rglob(pattern)):
        found.append(FONT)
    return found


def ensure() -> None:
    """Installs what is missing.

    Raises:
        NotCovered: not root, no apt-get, or it failed.
    """
    packages = missing()
    if not packages:
        return
    if os.geteuid() != 0:
        raise NotCovered(f"{WORDS}. As root: make pages; or: apt-get install {' '.join(packages)}")
    install(packages, WORDS)
    if missing():
        raise NotCovered(f"{WORDS}: still missing after apt-get: {' '.join(missing())}")


def main() -> int:
    """Installs; returns the exit code."""
    return exit_code(ensure)


if __name__ == "__main__":
    sys.exit(main())
