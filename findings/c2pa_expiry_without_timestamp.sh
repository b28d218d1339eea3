#!/usr/bin/env bash
# Guess: a C2PA manifest stays valid as long as its certificate was valid when it signed, as with signed PDFs or code.
# Seen with c2pa-python 0.38.1: without a time stamp of an authority (no `ta_url`) the claim holds no time that the
# reader trusts. The reader compares the certificate with its own clock, so the same untouched bytes go from
# "Trusted" to "Invalid" with signingCredential.expired when the certificate ends. `signature_info.time` is null before
# and after. A file that is to be verified for years needs a time stamp, or a certificate that lasts as long.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet c2pa-python==0.38.1 cryptography==45.0.7 pillow==12.0.0
cd "$folder"
cat >probe.py <<'PYTHON'
import datetime, io, json, time

import c2pa
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from PIL import Image

SECONDS = 8


def name(text):
    return x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, text), x509.NameAttribute(NameOID.COMMON_NAME, text)])


now = datetime.datetime.now(datetime.UTC)
root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
flags = dict.fromkeys(["content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "key_cert_sign",
                       "crl_sign", "encipher_only", "decipher_only"], False)
root = (x509.CertificateBuilder().subject_name(name("Root")).issuer_name(name("Root")).public_key(root_key.public_key())
        .serial_number(1).not_valid_before(now - datetime.timedelta(days=2)).not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(digital_signature=False, **{**flags, "key_cert_sign": True, "crl_sign": True}), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(root_key.public_key()), critical=False)
        .sign(root_key, hashes.SHA256()))
leaf = (x509.CertificateBuilder().subject_name(name("Signer")).issuer_name(name("Root")).public_key(key.public_key())
        .serial_number(2).not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(seconds=SECONDS))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(digital_signature=True, **flags), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), critical=False)
        .sign(root_key, hashes.SHA256()))
pem = serialization.Encoding.PEM
chain = (leaf.public_bytes(pem) + root.public_bytes(pem)).decode()
private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())

picture = io.BytesIO()
Image.new("RGB", (64, 64), (90, 120, 150)).save(picture, "JPEG")
picture.seek(0)


def sign(data):
    signature = key.sign(data, ec.ECDSA(hashes.SHA256()))
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
    r, s = decode_dss_signature(signature)
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


signed = io.BytesIO()
context = c2pa.Context.from_dict({"trust": {"trust_anchors": root.public_bytes(pem).decode()},
                                  "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False}})
manifest = {"claim_generator_info": [{"name": "probe"}], "assertions": []}
with c2pa.Signer.from_callback(sign, c2pa.C2paSigningAlg.ES256, chain, None) as signer:
    with c2pa.Builder(manifest, context) as builder:
        builder.add_action({"action": "c2pa.created", "digitalSourceType": "http://c2pa.org/digitalsourcetype/empty"})
        builder.sign(signer, "image/jpeg", picture, signed)


def read():
    signed.seek(0)
    with c2pa.Reader("image/jpeg", signed, context=context) as reader:
        report = json.loads(reader.json())
    state = report["validation_state"]
    codes = [entry["code"] for entry in report["validation_results"]["activeManifest"].get("failure", [])]
    time_ = report["manifests"][report["active_manifest"]]["signature_info"].get("time")
    return state, codes, time_


print("version", c2pa.__version__ if hasattr(c2pa, "__version__") else "?")
before = read()
print("while the certificate is valid:", *before)
time.sleep(max(0.0, (leaf.not_valid_after_utc - datetime.datetime.now(datetime.UTC)).total_seconds()) + 1.5)
after = read()
print("a second after its end:        ", *after)
assert before[0] in ("Valid", "Trusted") and "signingCredential.expired" not in before[1], before
assert after[0] == "Invalid" and "signingCredential.expired" in after[1], after
assert before[2] is None and after[2] is None
print("as described")
PYTHON
venv/bin/python probe.py
