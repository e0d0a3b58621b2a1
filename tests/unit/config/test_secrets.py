"""Signatures: where they are read from, and that no message repeats them."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudcover.config.params import ParamsError, validate
from cloudcover.config.secrets import SecretError, redact, sas

ENCODED = "Dq%2F0aBLSI9t1nnx1sekyPaMgsqMiO9%2BBzjU8wDhfQ64%3D"


@pytest.mark.parametrize("key", ["url", "endpoint"])
def test_a_signature_in_the_parameters_is_refused_without_repeating_it(key):
    with pytest.raises(ParamsError, match=f"data.{key}: .*put it into CLOUDCOVER_SAS_URL or a file") as caught:
        validate({"data": {"source": "azure", key: f"https://host/c?sv=1&sig={ENCODED}"}})
    assert ENCODED[:10] not in str(caught.value)


def test_another_mistake_beside_a_signature_does_not_repeat_it_either():
    with pytest.raises(ParamsError, match="chip_size 33") as caught:
        validate({"data": {"chip_size": 33, "path": f"https://host/c?sv=1&sig={ENCODED}"}})
    assert ENCODED[:10] not in str(caught.value)


def test_the_sas_comes_from_the_environment_before_a_file(tmp_path, monkeypatch):
    for name in ("CLOUDCOVER_SAS_URL", "CLOUDCOVER_SAS_FILE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "sas.txt").write_text("\ufeff\n# western Europe\nhttps://a/c?sig=file\n")
    assert sas(None) == ("", "")
    assert sas(str(tmp_path / "sas.txt")) == ("https://a/c", "sig=file")
    monkeypatch.setenv("CLOUDCOVER_SAS_FILE", str(tmp_path / "sas.txt"))
    assert sas("absent") == ("https://a/c", "sig=file")
    monkeypatch.setenv("CLOUDCOVER_SAS_URL", "?sv=1&sig=variable")
    assert sas("absent") == ("", "sv=1&sig=variable")


@pytest.mark.parametrize(
    ("text", "message"), [(None, "cannot be read"), ("https://a/c", "holds no SAS"), ("", "holds no SAS")]
)
def test_a_file_without_a_sas_is_told(tmp_path, monkeypatch, text, message):
    monkeypatch.delenv("CLOUDCOVER_SAS_URL", raising=False)
    monkeypatch.delenv("CLOUDCOVER_SAS_FILE", raising=False)
    if text is not None:
        (tmp_path / "sas.txt").write_text(text)
    with pytest.raises(SecretError, match=message):
        sas(str(tmp_path / "sas.txt"))


@given(
    st.text(alphabet="abcXYZ019+/=%-_", min_size=8, max_size=50),
    st.sampled_from(["sig", "X-Amz-Signature", "Signature"]),
)
def test_redaction_removes_any_signature_and_keeps_the_rest(signature, name):
    url = f"https://host/c/file.tif?sv=2020&{name}={signature}&sp=rl"
    assert redact(f"GET {url} failed") == f"GET https://host/c/file.tif?sv=2020&{name}=***&sp=rl failed"
    assert redact(f"https://user:{signature.replace('/', '')}@host/c") == "https://***@host/c"
    assert parse_qs(urlsplit(redact(url)).query)[name] == ["***"]
