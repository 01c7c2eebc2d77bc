"""A certificate authority for tests: acme2certifier over https, and the DNS that it asks.

usage: acme-server.py FOLDER ADDRESS

Whatever name it looks up has ADDRESS, except those with "nowhere.", of which there is nothing; TXT records are what FOLDER/records has, one
"NAME VALUE" a line. It asks port 80 and 443 there. FOLDER/ca.pem signs everything; FOLDER/url has the directory's URL once it is
ready. "refuse" in FOLDER/mood makes it answer every new order as authorities do that are asked too often.
"""

import datetime
import os
import pathlib
import socketserver
import ssl
import sys
import threading
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import dns.message
import dns.rdatatype
import dns.rrset
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

folder, address = pathlib.Path(sys.argv[1]), sys.argv[2]
DAY = datetime.timedelta(days=1)


def name(text):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def pem(key):
    no = serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, no)


def certificate(subject, key, issuer, signer, extensions):
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number(), now - DAY, now + 30 * DAY)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def make_certificates():
    authority, server = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    identifier = (x509.SubjectKeyIdentifier.from_public_key(authority.public_key()), False)
    usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
    signs = [(x509.BasicConstraints(True, None), True), (usage, True), identifier]
    ca = certificate(name("ACME test"), authority, name("ACME test"), authority, signs)
    names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
    own = certificate(name("localhost"), server, name("ACME test"), authority, [(names, False)])
    now = datetime.datetime.now(datetime.timezone.utc)
    nothing_revoked = x509.CertificateRevocationListBuilder(name("ACME test"), now - DAY, now + 30 * DAY)
    revoked = nothing_revoked.sign(authority, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    (folder / "ca.crl").write_bytes(revoked)
    (folder / "ca.pem").write_bytes(ca)
    (folder / "ca.key").write_bytes(pem(authority))
    (folder / "server.pem").write_bytes(pem(server) + own)


class Names(socketserver.BaseRequestHandler):
    def handle(self):
        data, socket = self.request
        query = dns.message.from_wire(data)
        answer = dns.message.make_response(query)
        question = query.question[0]
        asked = question.name.to_text().rstrip(".").lower()
        is_known = "nowhere." not in asked
        if question.rdtype == dns.rdatatype.A and is_known:
            answer.answer.append(dns.rrset.from_text(question.name, 0, "IN", "A", address))
        if question.rdtype == dns.rdatatype.TXT and is_known and (folder / "records").exists():
            lines = [line.split() for line in (folder / "records").read_text().splitlines()]
            values = [f'"{value}"' for record, value in lines if record == asked]
            if values:
                answer.answer.append(dns.rrset.from_text(question.name, 0, "IN", "TXT", *values))
        socket.sendto(answer.to_wire(), self.client_address)


CONFIG = f"""
[DEFAULT]
debug: False
dns_server_list: ["{address}"]

[Nonce]
nonce_check_disable: False

[CAhandler]
handler_module: acme2certifier.cahandlers.openssl_ca_handler
issuing_ca_key: {folder}/ca.key
issuing_ca_cert: {folder}/ca.pem
issuing_ca_crl: {folder}/ca.crl
cert_validity_days: 30
cert_save_path: {folder}/certs
save_cert_as_hex: True

[DBhandler]
handler: wsgi
dbfile: {folder}/acme.db

[Certificate]
revocation_reason_check_disable: False

[Challenge]
challenge_validation_timeout: 5
dns_server_list: ["{address}"]

[Order]
tnauthlist_support: False
"""


class Quiet(WSGIRequestHandler):
    def log_message(self, *_):
        pass


class Threads(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True


def moody(application):
    def answer(environ, start_response):
        mood = folder / "mood"
        if "neworder" in environ["PATH_INFO"] and mood.exists() and mood.read_text().strip() == "refuse":
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start_response("429 Too Many Requests", [("Content-Type", "application/problem+json"), ("Retry-After", "7200")])
            return [b'{"type":"urn:ietf:params:acme:error:rateLimited","detail":"too many certificates already issued"}']
        return application(environ, start_response)

    return answer


def main():
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "certs").mkdir(exist_ok=True)
    make_certificates()
    (folder / "acme_srv.cfg").write_text(CONFIG)
    os.environ["ACME_SRV_CONFIGFILE"] = str(folder / "acme_srv.cfg")
    names = socketserver.ThreadingUDPServer((address, 53), Names)
    names.daemon_threads = True
    threading.Thread(target=names.serve_forever, daemon=True).start()
    from acme2certifier.share.acme2certifier_wsgi import application

    server = make_server("127.0.0.1", 0, moody(application), Threads, Quiet)
    server.base_environ["HTTPS"] = "on"
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "server.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    draft = folder / "url.new"
    draft.write_text(f"https://localhost:{server.server_port}/directory")
    draft.rename(folder / "url")
    server.serve_forever()


main()
