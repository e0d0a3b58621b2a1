"""Download secrets: where they come from, and how they are kept out of all output.

A shared access signature (SAS) is a password: anyone who has it can read the container. It comes from an environment
variable or a file, and it leaves this process only as part of a request.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

SAS_URL = "CLOUDCOVER_SAS_URL"
"""Environment variable with the SAS URL of a container, or only its token."""

SAS_FILE = "CLOUDCOVER_SAS_FILE"
"""Environment variable with the path of a file that holds the SAS URL, such as the challenge's `sas_westeurope.txt`."""

_NAMES = r"sig|signature|x-amz-signature|x-amz-credential|x-amz-security-token|awsaccesskeyid|access_token|token"
_VALUE = re.compile(rf"(?i)(?<![a-z0-9_-])({_NAMES})(=|%3d)[^&\s\"'<>]+")
_PASSWORD = re.compile(r"(?<=://)[^/\s@]+@")


class SecretError(ValueError):
    """A secret that is missing or in the wrong place; the message never contains it."""


def redact(text: str) -> str:
    """Replace signatures, tokens and passwords of URLs in a text by `***`."""
    return _PASSWORD.sub("***@", _VALUE.sub(r"\1\2***", text))


def refuse_secrets(value: str) -> str:
    """Reject a parameter that contains a secret.

    Raises:
        ValueError: The value contains a secret; the message says where secrets belong.
    """
    if redact(value) != value:
        raise ValueError(
            f"the parameters must not contain a signature or password; put it into {SAS_URL} or a file, {SAS_FILE}"
        )
    return value


def sas(sas_file: str | None) -> tuple[str, str]:
    """Return the container's address and the SAS token of this run, each empty if it is not given.

    Args:
        sas_file: Value of `data.sas_file`; the environment variables take precedence.

    Raises:
        SecretError: The file is missing, or its content is not a SAS.
    """
    if text := os.environ.get(SAS_URL):
        return _checked(text.strip(), f"the environment variable {SAS_URL}")
    name = os.environ.get(SAS_FILE) or sas_file
    if not name:
        return "", ""
    try:
        lines = Path(name).expanduser().read_text(encoding="utf-8-sig").split()
    except OSError as error:
        raise SecretError(f"the file with the SAS, {name}, cannot be read: {error.strerror}") from None
    return _checked(next((line for line in lines if "sig=" in line), ""), name)


def _checked(text: str, origin: str) -> tuple[str, str]:
    address, _, token = text.rpartition("?")
    if not re.search(r"(^|&)sig=", token):
        raise SecretError(
            f"{origin} holds no SAS: expected https://ACCOUNT.blob.core.windows.net/CONTAINER?sv=...&sig=..."
        )
    return address, token
