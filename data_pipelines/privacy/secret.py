"""The secret of the surrogates: from $AISC_PRIVACY_KEY or a file that only its owner can read; it is written nowhere."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from configs.errors import DataError

VARIABLE = "AISC_PRIVACY_KEY"
LEAST_BYTES = 32
# A secret of fewer different characters is a word repeated, not a random one.
_LEAST_DIFFERENT = 10
_ADVICE = "make one with `(umask 077; openssl rand -hex 32 > privacy.key)`"


def read_secret(path: str | None) -> bytes:
    """Returns the secret.

    Args:
        path: data.privacy_key; None takes the environment variable.

    Raises:
        DataError: there is none, others can read its file, or it is too short to keep anything apart.
    """
    if path is None:
        value = os.environ.get(VARIABLE, "").encode()
        if not value:
            raise DataError(f"data.privacy=mask: no secret; {_ADVICE} and give data.privacy_key=privacy.key or ${VARIABLE}")
        return _checked(value, f"${VARIABLE}")
    file = Path(path).expanduser()
    try:
        mode = file.stat().st_mode
        value = file.read_bytes()
    except OSError as error:
        raise DataError(f"data.privacy_key={path}: cannot be read ({error.strerror}); {_ADVICE}") from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise DataError(f"data.privacy_key={path}: others can read it (mode {stat.S_IMODE(mode):04o}); chmod 600 {path}")
    return _checked(value, f"data.privacy_key={path}")


def _checked(value: bytes, name: str) -> bytes:
    secret = value.strip()
    if len(secret) < LEAST_BYTES or len(set(secret)) < _LEAST_DIFFERENT:
        raise DataError(f"{name}: {len(secret)} bytes, expected {LEAST_BYTES} random ones or more; {_ADVICE}")
    return secret
