"""The browser and the Chinese font that tests of the pages need, and their installation:  python -m tests.pages.packages

Debian's own Chromium, as root, once: some 100 MB to fetch. The font is 2 MB; the pages themselves name what a reader has.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

# The same name on Debian and derivatives; Ubuntu's package of this name is a snap and is not meant.
BROWSER, FONT = "chromium", "fonts-droid-fallback"
FONTS = Path("/usr/share/fonts")
CHINESE = ("DroidSansFallback*", "NotoSansCJK*", "wqy-*", "uming*", "ukai*")


class NotCovered(RuntimeError):
    """The pages cannot be opened here; the message says what is missing."""


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
    words = f"tests/pages: not covered here: the pages in a real browser. Missing: {' '.join(packages)}"
    if os.geteuid() != 0:
        raise NotCovered(f"{words}. As root: make pages; or: apt-get install {' '.join(packages)}")
    if shutil.which("apt-get") is None:
        raise NotCovered(f"{words}, and no apt-get to install it")
    for arguments in (("update",), ("install", "--yes", "--no-install-recommends", *packages)):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        command = ["apt-get", "--quiet=2", *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
        if done.returncode:
            raise NotCovered(f"{words}. apt-get {' '.join(arguments)} failed:\n{done.stderr[-2000:]}")
    if missing():
        raise NotCovered(f"{words}, also after apt-get")


def main() -> int:
    """Installs; where it cannot it says what is not covered, and only in CI ($CI) this is a failure. 3: not covered."""
    try:
        ensure()
    except NotCovered as reason:
        print(reason, file=sys.stderr)
        return 1 if os.environ.get("CI") else 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
