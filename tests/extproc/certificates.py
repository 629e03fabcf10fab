"""Certificates for tests, and files that are renewed as something that renews certificates does it."""

import os
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from extproc.tls import TlsOptions

__all__ = ["NAME", "Files", "Issued"]

PEM = serialization.Encoding.PEM
NAME = "picker"


class Issued:
    """A certificate and its key, signed by itself or by another one."""

    def __init__(self, signer=None) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{NAME} {id(self)}")])
        now = datetime.now(UTC)
        by = signer or self
        made = (
            x509.CertificateBuilder(by.name, self.name, self.key.public_key(), x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
            .add_extension(x509.BasicConstraints(ca=signer is None, path_length=None), critical=True)
            .sign(by.key, hashes.SHA256())
        )
        self.certificate = made.public_bytes(PEM)
        self.private = self.key.private_bytes(
            PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


class Files:
    """The server's files, as something that renews certificates writes them."""

    def __init__(self, folder) -> None:
        self.folder = folder
        self._written = 0

    def write(self, issued, *, key=None) -> None:
        self._put("tls.crt", issued.certificate)
        self._put("tls.key", issued.private if key is None else key)

    def trust(self, authority) -> None:
        self._put("ca.crt", authority.certificate)

    def options(self, client_ca=None) -> TlsOptions:
        ca = None
        if client_ca is not None:
            self.trust(client_ca)
            ca = self.folder / "ca.crt"
        return TlsOptions("127.0.0.1:0", self.folder / "tls.crt", self.folder / "tls.key", ca)

    def _put(self, name, data) -> None:
        draft = self.folder / "draft"
        draft.write_bytes(data)
        self._written += 1
        os.utime(draft, ns=(self._written, self._written))  # a clock may not have moved between two writes
        draft.replace(self.folder / name)
