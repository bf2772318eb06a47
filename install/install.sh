#!/bin/sh
# Installs aisc-finetune from this folder, without internet.   ./install.sh [FOLDER]
# FOLDER: the virtual environment to make, ~/aisc without it.   PYTHON=python3.11 chooses the interpreter.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
target=${1:-$HOME/aisc}
python=${PYTHON:-python3}

fail() { echo "error: $*" >&2; exit 2; }

# The folder's name says which Python its wheels are for.
wanted=$(basename "$here" | sed -n 's/.*-py\([0-9.]*\)-.*/\1/p')
found=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])') || fail "$python: no such Python; PYTHON=... names another"
[ -z "$wanted" ] || [ "$found" = "$wanted" ] || fail "$python is $found, these wheels are for $wanted; PYTHON=python$wanted $0"
[ ! -e "$target" ] || fail "$target exists already; give another folder: $0 FOLDER"

echo "verifying"
cd "$here"
sha256sum --check --strict --quiet SHA256SUMS || fail "files differ from SHA256SUMS; copy the folder again. Nothing was installed"
for file in wheels/*; do
  grep -qF "  $file" SHA256SUMS || fail "$file is not in SHA256SUMS; somebody has put it there. Nothing was installed"
done

echo "installing into $target"
"$python" -m venv "$target" || fail "$python -m venv failed; on Debian the package python3-venv is missing"
# No configuration file of this machine may add an index or a constraint; every wheel is checked once more by its hash.
PIP_CONFIG_FILE=/dev/null "$target/bin/python" -m pip install --isolated --quiet --disable-pip-version-check --no-index \
  --find-links wheels --require-hashes --requirement requirements.txt || { rm -rf "$target"; fail "pip could not install; $target was removed"; }

echo "installed $("$target/bin/aisc" --version)   $target/bin/aisc"
echo "next:  $target/bin/aisc doctor"
