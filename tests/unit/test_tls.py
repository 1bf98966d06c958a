"""Certificates as they are read: which are taken, what they say, and why others are not."""

from __future__ import annotations

import shutil
import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from relay.config import effective
from relay.errors import ConfigError
from relay.policy.catalog import Trust
from relay.tls import MAX_FILE, read_ca, read_certificate, server_tls, toward_bots
from tests.helpers.config_file import ORGANIZATION, SMALLEST, ConfigFile
from tests.helpers.tls import FAR_OFF, LAST_YEAR, LATER, LONG_AGO, Authority

BIND = '[server]\nbind = "tls:127.0.0.1:8443"\n'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of each kind."""
    folder = tmp_path_factory.mktemp("certificates")
    authority = Authority(folder)
    good = authority.issue("good", "Voice.example", "*.voice.example", "127.0.0.1")
    for path in (good, authority.pem):
        path.write_text(f"# Főtanúsítvány\n{path.read_text()}")  # as in files of many authorities
    authority.issue("rsa", "rsa.example", rsa=True)
    authority.issue("old", since=LONG_AGO, until=LAST_YEAR)
    authority.issue("early", since=FAR_OFF, until=LATER)
    key = serialization.load_pem_private_key(good.with_suffix(".key").read_bytes(), None)
    locked = serialization.BestAvailableEncryption(b"secret")
    form = serialization.PrivateFormat.PKCS8
    encrypted = key.private_bytes(serialization.Encoding.PEM, form, locked)
    (folder / "locked.key").write_bytes(encrypted)
    (folder / "empty.pem").write_text("")
    (folder / "bytes.pem").write_bytes(bytes(range(256)) * 8)
    (folder / "long.pem").write_bytes(b"\n" * (MAX_FILE + 1))
    broken = "-----BEGIN {0}-----\nAAAA\n-----END {0}-----\n"
    (folder / "broken.pem").write_text(broken.format("CERTIFICATE"))
    (folder / "broken.key").write_text(broken.format("PRIVATE KEY"))
    lines = good.read_text().splitlines(keepends=True)
    (folder / "cut.pem").write_text("".join(lines[:-4]))
    return folder


def test_what_a_certificate_says(folder: Path) -> None:
    read = read_certificate(folder / "good.pem", folder / "good.key")
    assert read.names == ("voice.example", "*.voice.example", "127.0.0.1")
    assert read.expires > 4_000_000_000
    assert read == read_certificate(folder / "good.pem", folder / "good.key")
    assert read != read_certificate(folder / "rsa.pem", folder / "rsa.pem")


@pytest.mark.parametrize(
    ("certificate", "key", "said"),
    [
        ("good.pem", "rsa.key", "the key in rsa.key does not belong to the certificate"),
        ("old.pem", "old.key", "old.pem has expired on 2021-01-01 00:00 UTC"),
        ("early.pem", "early.key", "early.pem is not yet valid, but from 2101-01-01 00:00 UTC on"),
        ("none.pem", "good.key", "none.pem cannot be read (No such file or directory)"),
        ("good.pem", "none.key", "none.key cannot be read (No such file or directory)"),
        (".", "good.key", " cannot be read (Is a directory)"),
        ("empty.pem", "good.key", "expected a certificate in PEM form, found none in empty.pem"),
        ("bytes.pem", "good.key", "expected a certificate in PEM form, found none in bytes.pem"),
        ("good.key", "good.key", "expected a certificate in PEM form, found none in good.key"),
        ("good.pem", "authority.pem", "expected a private key in PEM form, found none in"),
        ("good.pem", "locked.key", "the key in locked.key is encrypted, expected one without a"),
        ("broken.pem", "good.key", "broken.pem with good.key can't be used: it is malformed"),
        ("good.pem", "broken.key", "good.pem with broken.key can't be used: it is malformed"),
        ("cut.pem", "good.key", "cut.pem with good.key can't be used: it is malformed"),
        ("long.pem", "good.key", f"long.pem is longer than {MAX_FILE} bytes, expected PEM"),
    ],
)
def test_what_cannot_be_used(folder: Path, certificate: str, key: str, said: str) -> None:
    with pytest.raises(ValueError) as caught:
        read_certificate(folder / certificate, folder / key)
    assert said in str(caught.value).replace(f"{folder}/", "")


def test_authorities(folder: Path) -> None:
    assert "BEGIN CERTIFICATE" in read_ca(folder / "authority.pem")
    for name in ("empty.pem", "bytes.pem", "broken.pem", "good.key"):
        with pytest.raises(ValueError, match="expected certificates in PEM form, found none in"):
            read_ca(folder / name)
    with pytest.raises(ValueError, match="cannot be read"):
        read_ca(folder / "none.pem")


def test_what_holds_for_every_context(folder: Path) -> None:
    read = read_certificate(folder / "good.pem", folder / "good.pem")
    for context in (server_tls([read], None, "required").context, toward_bots("")):
        assert context.minimum_version is ssl.TLSVersion.TLSv1_2
        assert context.options & ssl.OP_NO_RENEGOTIATION
        assert context.options & ssl.OP_NO_COMPRESSION
    assert toward_bots("").verify_mode is ssl.CERT_REQUIRED
    assert toward_bots("").check_hostname


# In the configuration file


def tls(*items: str, more: str = "") -> str:
    return f"{BIND}[tls]\ncertificates = [{', '.join(items)}]\n{more}{SMALLEST}"


def entry(path: Path, key: str = "") -> str:
    return f'{{ certificate = "{path}"{key and f", key = {key!r}"} }}'


def test_a_file_with_tls(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "good.pem", tmp_path)
    file = ConfigFile(tmp_path)
    ca = f'client_ca = "{folder}/authority.pem"\nclient_certificates = "optional"\n'
    items = entry(Path("good.pem")), entry(folder / "rsa.pem", f"{folder}/rsa.key")
    config = file.load(tls(*items, more=ca))
    assert config.public_url == "https://127.0.0.1:8443"
    assert str(config.binds[0]) == "tls:127.0.0.1:8443"
    assert config.tls is not None
    assert config.tls.clients == "optional"
    assert [each.names[0] for each in config.tls.certificates] == ["voice.example", "rsa.example"]
    # The same files give the same value, others do not.
    assert file.load(tls(*items, more=ca)).tls == config.tls
    shutil.copy(folder / "rsa.pem", tmp_path / "good.pem")
    assert file.load(tls(*items, more=ca)).tls != config.tls


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BIND + SMALLEST, "tls.certificates: none given, expected one at least since bind has"),
        ("[tls]\ncertificates = []\n" + SMALLEST, None),
        (
            '[tls]\ncertificates = [{ certificate = "good.pem" }]\n' + SMALLEST,
            'tls: no listener is for it, expected "tls:host:port" in bind',
        ),
        (tls("{}"), "tls.certificates[0].certificate: not given, expected a file in PEM form"),
        (tls('{ certificat = "x" }'), "tls.certificates[0].certificat: unknown key; did you mean"),
        (tls('{ certificate = "old.pem" }'), "tls.certificates[0]: "),
        (tls('{ certificate = "good.pem" }', more='client_ca = "x"\n'), "tls.client_ca: "),
        (
            tls('{ certificate = "good.pem" }', more='client_certificates = "maybe"\n'),
            'tls.client_certificates: found "maybe" (a string), expected "optional" or "required"',
        ),
        (
            tls('{ certificate = "good.pem" }', more='client_certificates = "optional"\n'),
            "tls.client_certificates: only with client_ca, which says from whom",
        ),
        (tls(*['{ certificate = "good.pem" }'] * 101), "tls.certificates: found 101, expected at"),
        ('[server]\nbind = "tls:unix:/x"\n' + SMALLEST, "server.bind: found "),
        ('[server]\nadmin_bind = "tls:127.0.0.1:1"\n' + SMALLEST, "server.admin_bind: found "),
        (
            '[server]\nbind = ["tls:127.0.0.1:1", "127.0.0.1:1"]\n' + SMALLEST,
            'server.bind[1]: found "127.0.0.1:1" twice, expected each listener once',
        ),
    ],
)
def test_settings_that_are_refused(folder: Path, text: str, said: str | None) -> None:
    (folder / "relay.toml").write_text(text)
    file = ConfigFile(folder)
    if said is None:
        said = "tls: no listener is for it"
    lines = file.problems(text)
    assert any(line.startswith(said) for line in lines), lines


AGENT = """
[agents.bot]
organization = "acme"
instances = [{}]
"""


@pytest.mark.parametrize(
    ("instances", "name"),
    [
        ("https://10.0.0.1", ""),
        ("dns+https://Bots.example:8443", "bots.example"),
        ("dns+srv+https://bots.example.", "bots.example"),
        ("dns+https://a:1', 'dns+https://a:2', 'http://10.0.0.1", "a"),
    ],
)
def test_who_bots_are_to_be(folder: Path, instances: str, name: str) -> None:
    text = ORGANIZATION + AGENT.format(f"'{instances}'")
    file = ConfigFile(folder)
    agent = file.load(text).catalog.agents["bot"]
    assert agent.secure
    assert agent.trust == Trust("", name)
    shown = f'"{name}"' if name else "# derived"
    assert f"bot_name = {shown}\n" in effective(file.load(text)) + "\n"
    given = file.load(text + 'bot_ca = "authority.pem"\nbot_name = "Other.example"\n')
    assert given.catalog.agents["bot"].trust.name == "other.example"
    assert "BEGIN CERTIFICATE" in given.catalog.agents["bot"].trust.ca
    assert "bot_ca = (1 certificates)" in effective(given)


@pytest.mark.parametrize(
    ("instances", "more", "said"),
    [
        ("http://h:1", 'bot_ca = "authority.pem"', "bot_ca: only for instances with https"),
        ("http://h:1", 'bot_name = "h"', "bot_name: only for instances with https"),
        ("https://h:1", 'bot_ca = "none.pem"', "bot_ca: "),
        ("https://h:1", 'bot_ca = "good.key"', "bot_ca: expected certificates in PEM form"),
        ("https://h:1", 'bot_name = "h:1"', "bot_name: found "),
        ("dns+https://a:1', 'dns+https://b:1", "", "bot_name: not given, expected the name in"),
        ("dns+https://a:1', 'https://b:1", "", "bot_name: not given, expected the name in"),
    ],
)
def test_bots_that_are_refused(folder: Path, instances: str, more: str, said: str) -> None:
    text = ORGANIZATION + AGENT.format(f"'{instances}'") + more
    (line,) = ConfigFile(folder).problems(text)
    assert line.startswith(f"agents.bot.{said}")


def test_a_problem_names_its_file_and_no_secret(folder: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        ConfigFile(folder).load(tls('{ certificate = "good.pem", key = "rsa.key" }'))
    assert "the key in" in str(caught.value)
    assert "PRIVATE" not in str(caught.value)
