"""Who signs: a certificate of one's own, or one that is made when it is first needed.

C2PA wants a certificate that somebody else issued, so a made one comes with its issuer, whose key is forgotten at once.
No authority knows it: it shows that a file is as it was signed, and, on this machine, that it was signed here.
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

CERTIFICATE, KEY = "FSF_C2PA_CERT", "FSF_C2PA_KEY"  # environment: the files of the user's own
DAYS = 3650  # that a made certificate counts
WITHOUT = "or leave the manifest out: --no-provenance"

_PEM = serialization.Encoding.PEM
_CURVES = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}


@dataclass(frozen=True)
class Identity:
    """What signs: the algorithm as C2PA names it, the certificates from the signer's upwards, and the key, as PEM."""

    algorithm: str
    chain: bytes
    key: bytes


def identity() -> Identity:
    """The certificate of the environment, or else that of this user, which is made if there is none.

    Raises
    ------
    UserError
        One's own cannot be read, do not belong together or have expired; or none can be made or read.
    """
    own = os.environ.get(CERTIFICATE), os.environ.get(KEY)
    if own[0] and own[1]:
        return _load(Path(own[0]).read_bytes, Path(own[1]).read_bytes, f"{own[0]}, {own[1]}", "give others")
    if own[0] or own[1]:
        raise UserError(f"{CERTIFICATE}, {KEY}: only one of them is set; set both, or neither")
    file = made_file()
    if not file.exists():
        _make(file)
    _check_rights(file)
    return _load(file.read_bytes, file.read_bytes, str(file), f"remove it, so that another is made, {WITHOUT}")


def made_file() -> Path:
    """Where the certificate that was made lies, with its key: one file, so that both are there or none."""
    return data_folder() / "signing" / "certificate.pem"


def anchors() -> bytes | None:
    """The issuer of the certificate that was made here, as PEM; None if none was made, or it cannot be read."""
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
    except TypeError as error:  # it is encrypted
        raise UserError(f"{name}: the key asks for a password; give one without") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UserError(f"{name}: is no certificate and key in PEM; {advice}") from error
    if key.public_key() != chain[0].public_key():
        raise UserError(f"{name}: the key is not that of the first certificate; {advice}")
    now = datetime.datetime.now(datetime.UTC)
    if not chain[0].not_valid_before_utc <= now <= chain[0].not_valid_after_utc:
        begin, end = chain[0].not_valid_before_utc.date(), chain[0].not_valid_after_utc.date()
        raise UserError(f"{name}: the certificate counts from {begin} to {end}, not today; {advice}")
    algorithm = _algorithm(key)
    if algorithm is None:
        kinds = "ECDSA on P-256, P-384 or P-521, RSA, or Ed25519"
        raise UserError(f"{name}: C2PA cannot sign with a key of this kind; use {kinds}")
    return Identity(algorithm, b"".join(each.public_bytes(_PEM) for each in chain), _key_text(key))


def _algorithm(key: PrivateKeyTypes) -> str | None:
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return _CURVES.get(key.curve.name)
    if isinstance(key, rsa.RSAPrivateKey):
        return "ps256"
    return "ed25519" if isinstance(key, ed25519.Ed25519PrivateKey) else None


def _check_rights(file: Path) -> None:
    """Raise UserError if others than the owner may read the key, where the system knows such rights."""
    try:
        mode = stat.S_IMODE(file.stat().st_mode)
    except OSError:
        return  # reading says more
    if os.name == "posix" and mode & 0o077:
        raise UserError(f"{file}: holds a private key, and others may read it; do: chmod 600 {file}")


def _make(file: Path) -> None:
    """Make the certificate, unless another process is quicker; both then use the same."""
    folder = file.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        handle, name = tempfile.mkstemp(dir=folder, prefix=".making.")  # readable by the owner only
        try:
            with os.fdopen(handle, "wb") as temporary:
                temporary.write(_new())
                temporary.flush()
                os.fsync(temporary.fileno())
            with contextlib.suppress(FileExistsError):
                os.link(name, file)  # which replaces nothing
        finally:
            Path(name).unlink()
        sync_folder(folder)
    except OSError as error:
        advice = f"choose another folder by XDG_DATA_HOME, {WITHOUT}"
        raise UserError(f"{file}: cannot be made: {error.strerror or error}; {advice}") from error


def _new() -> bytes:
    """A key, its certificate, and that of the issuer, as PEM. The issuer's key is not kept."""
    key, issuing_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    name = _name("fsframework, self-made certificate")
    issuer = _name("fsframework, self-made issuer")
    issuing = (
        _begun(issuer, issuer, issuing_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage("key_cert_sign", "crl_sign"), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(issuing_key.public_key()), critical=False)
        .sign(issuing_key, hashes.SHA256())
    )
    certificate = (
        _begun(name, issuer, key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage("digital_signature"), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuing_key.public_key()), critical=False)
        .sign(issuing_key, hashes.SHA256())
    )
    return b"".join([_key_text(key), certificate.public_bytes(_PEM), issuing.public_bytes(_PEM)])


def _begun(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return x509.CertificateBuilder(
        issuer_name=issuer,
        subject_name=subject,
        public_key=key,
        serial_number=x509.random_serial_number(),
        not_valid_before=now - datetime.timedelta(minutes=5),  # clocks differ
        not_valid_after=now + datetime.timedelta(days=DAYS),
    )


def _name(text: str) -> x509.Name:
    """A name that says nothing of the user or the machine."""
    attributes = [(NameOID.ORGANIZATION_NAME, "fsframework"), (NameOID.COMMON_NAME, text)]
    return x509.Name([x509.NameAttribute(kind, value) for kind, value in attributes])


def _usage(*allowed: str) -> x509.KeyUsage:
    uses = ["digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"]
    uses += ["key_cert_sign", "crl_sign", "encipher_only", "decipher_only"]
    return x509.KeyUsage(**{use: use in allowed for use in uses})


def _key_text(key: PrivateKeyTypes) -> bytes:
    return key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
