"""The signing identity: the user's own certificate, or one that is generated on first use.

C2PA requires a certificate with a separate issuer. A generated certificate therefore has its own issuer, whose key is
discarded at once. No trust list contains this issuer. Its signature proves that a file is unaltered and, on this
machine, that the file was signed here.
"""

import contextlib
import datetime
import os
import stat
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fsframework.core.errors import UserError
from fsframework.utils.files import data_folder, sync_folder

CERTIFICATE, KEY = "FSF_C2PA_CERT", "FSF_C2PA_KEY"  # environment variables: paths of the user's own PEM files
VALID_DAYS = 3650  # validity of a generated certificate
OPT_OUT = "or leave the manifest out: --no-provenance"

_PEM = serialization.Encoding.PEM
_CURVES = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}


@dataclass(frozen=True)
class Identity:
    """A signing identity: C2PA's algorithm name, the certificate chain (leaf first) and the private key, as PEM."""

    algorithm: str
    chain: bytes
    key: bytes


def identity() -> Identity:
    """Return the signing identity of the environment, or else the user's generated one, created if it is missing.

    Raises
    ------
    UserError
        The user's own files cannot be read, do not match or have expired, or no identity can be generated or read.
    """
    paths = os.environ.get(CERTIFICATE), os.environ.get(KEY)
    if paths[0] and paths[1]:
        return _load(Path(paths[0]).read_bytes, Path(paths[1]).read_bytes, f"{paths[0]}, {paths[1]}", "give others")
    if paths[0] or paths[1]:
        raise UserError(f"{CERTIFICATE}, {KEY}: only one of them is set; set both, or neither")
    file = made_file()
    if not file.exists():
        _make(file)
    _check_rights(file)
    return _load(file.read_bytes, file.read_bytes, str(file), f"remove it to generate another, {OPT_OUT}")


def made_file() -> Path:
    """Return the path of the generated identity: one PEM file, so that key and certificates stay together."""
    return data_folder() / "signing" / "certificate.pem"


def anchors() -> bytes | None:
    """Return the generated certificate's issuer as PEM, or None if it is missing or unreadable."""
    try:
        chain = x509.load_pem_x509_certificates(made_file().read_bytes())
    except (OSError, ValueError):
        return None
    return chain[-1].public_bytes(_PEM)


def _load(read_chain: Callable[[], bytes], read_key: Callable[[], bytes], name: str, advice: str) -> Identity:
    try:
        chain = x509.load_pem_x509_certificates(read_chain())
        key = serialization.load_pem_private_key(read_key(), password=None)
    except OSError as error:
        raise UserError(f"{name}: cannot be read: {error.strerror or error}; {advice}") from error
    except TypeError as error:  # raised for an encrypted key
        raise UserError(f"{name}: the key is encrypted; give one without a password") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UserError(f"{name}: holds no certificate and key in PEM; {advice}") from error
    if key.public_key() != chain[0].public_key():
        raise UserError(f"{name}: the key does not match the first certificate; {advice}")
    now = datetime.datetime.now(datetime.UTC)
    if not chain[0].not_valid_before_utc <= now <= chain[0].not_valid_after_utc:
        begin, end = chain[0].not_valid_before_utc.date(), chain[0].not_valid_after_utc.date()
        raise UserError(f"{name}: the certificate is valid from {begin} to {end}, not today; {advice}")
    algorithm = _algorithm(key)
    if algorithm is None:
        kinds = "ECDSA on P-256, P-384 or P-521, RSA, or Ed25519"
        raise UserError(f"{name}: C2PA does not support this type of key; use {kinds}")
    return Identity(algorithm, b"".join(certificate.public_bytes(_PEM) for certificate in chain), _key_text(key))


def _algorithm(key: PrivateKeyTypes) -> str | None:
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return _CURVES.get(key.curve.name)
    if isinstance(key, rsa.RSAPrivateKey):
        return "ps256"
    return "ed25519" if isinstance(key, ed25519.Ed25519PrivateKey) else None


def _check_rights(file: Path) -> None:
    """Raise UserError if users other than the owner may read the key, on POSIX systems."""
    try:
        mode = stat.S_IMODE(file.stat().st_mode)
    except OSError:
        return  # reading the file reports the error
    if os.name == "posix" and mode & 0o077:
        raise UserError(f"{file}: holds a private key that other users may read; run: chmod 600 {file}")


def _make(file: Path) -> None:
    """Generate the identity file, unless another process creates it first; both then use the same one."""
    folder = file.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        handle, name = tempfile.mkstemp(dir=folder, prefix=".making.")  # mkstemp creates it readable by the owner only
        try:
            with os.fdopen(handle, "wb") as temporary:
                temporary.write(_new())
                temporary.flush()
                os.fsync(temporary.fileno())
            with contextlib.suppress(FileExistsError):
                os.link(name, file)  # a link never replaces an existing file
        finally:
            Path(name).unlink()
        sync_folder(folder)
    except OSError as error:
        advice = f"set XDG_DATA_HOME to another folder, {OPT_OUT}"
        raise UserError(f"{file}: cannot be created: {error.strerror or error}; {advice}") from error


def _new() -> bytes:
    """Return a new key, its certificate and the issuer's certificate as PEM; the issuer's key is discarded."""
    key, issuing_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    name = _name("fsframework, self-made certificate")
    issuer = _name("fsframework, self-made issuer")
    issuing = (
        _builder(issuer, issuer, issuing_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage("key_cert_sign", "crl_sign"), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(issuing_key.public_key()), critical=False)
        .sign(issuing_key, hashes.SHA256())
    )
    certificate = (
        _builder(name, issuer, key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage("digital_signature"), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuing_key.public_key()), critical=False)
        .sign(issuing_key, hashes.SHA256())
    )
    return b"".join([_key_text(key), certificate.public_bytes(_PEM), issuing.public_bytes(_PEM)])


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return x509.CertificateBuilder(
        issuer_name=issuer,
        subject_name=subject,
        public_key=key,
        serial_number=x509.random_serial_number(),
        not_valid_before=now - datetime.timedelta(minutes=5),  # tolerates clock skew
        not_valid_after=now + datetime.timedelta(days=VALID_DAYS),
    )


def _name(text: str) -> x509.Name:
    """Return an X.509 name that identifies neither the user nor the machine."""
    attributes = [(NameOID.ORGANIZATION_NAME, "fsframework"), (NameOID.COMMON_NAME, text)]
    return x509.Name([x509.NameAttribute(kind, value) for kind, value in attributes])


def _usage(*allowed: str) -> x509.KeyUsage:
    uses = ["digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"]
    uses += ["key_cert_sign", "crl_sign", "encipher_only", "decipher_only"]
    return x509.KeyUsage(**{use: use in allowed for use in uses})


def _key_text(key: PrivateKeyTypes) -> bytes:
    return key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
