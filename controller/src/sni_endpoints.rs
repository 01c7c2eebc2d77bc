//! Certificates that users bring for their domains, with their keys.

use std::sync::Arc;

use model::{AppId, Hostname, SniEndpointId, Timestamp};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate, X509Name};

use crate::apps::choose_name;
use crate::store::{App, SniEndpoint};
use crate::{Actor, Controller, Error};

/// Most certificates of one app, and most in one chain.
const MAX_ENDPOINTS: usize = 100;
const MAX_CHAIN: usize = 10;
/// Longest PEM, of the chain and of the key.
const MAX_PEM: usize = 64 << 10;

/// What a certificate says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Host names that it is for; may have wildcards.
    pub domains: Vec<String>,
    /// Who signed it.
    pub issuer: String,
    /// Whom it is for.
    pub subject: String,
    /// From when it is good.
    pub starts_at: Timestamp,
    /// Until when it is good.
    pub expires_at: Timestamp,
    /// Whether nobody but its owner signed it.
    pub self_signed: bool,
    /// Whether this machine's certificate authorities vouch for it now.
    pub ca_signed: bool,
    /// Whether it is to be shown only with what its authority says of it by then (RFC 7633).
    pub must_staple: bool,
}

impl Controller {
    /// Adds a certificate, in PEM and the leaf first, with its key.
    pub async fn add_certificate(
        &self,
        app: &App,
        actor: &Actor,
        (chain, key): (&str, &str),
    ) -> Result<SniEndpoint, Error> {
        self.check_pair(chain, key)?;
        if self.store.sni_endpoints(app.id).await?.len() >= MAX_ENDPOINTS {
            return Err(Error::Invalid(format!("An app can have at most {MAX_ENDPOINTS} certificates")));
        }
        let (id, now) = (SniEndpointId::random(&*self.random), self.clock.now());
        let mut name = choose_name(&*self.random);
        name.truncate(30);
        let chain = chain.to_owned();
        let endpoint = SniEndpoint { id, app: app.id, name, chain, acm: false, created_at: now, updated_at: now };
        self.store.insert_sni_endpoint(&endpoint, key, &self.stamp(actor)).await?;
        self.note(app, actor, &format!("Add certificate {}", endpoint.name));
        self.let_domains_show(app, actor, &endpoint).await?;
        Ok(endpoint)
    }

    /// Puts another certificate and key in the place of one; its domains go with it.
    pub async fn update_certificate(
        &self,
        app: &App,
        actor: &Actor,
        (endpoint, chain, key): (&SniEndpoint, &str, &str),
    ) -> Result<SniEndpoint, Error> {
        self.check_pair(chain, key)?;
        self.store.update_sni_endpoint(endpoint, (chain, key), &self.stamp(actor)).await?;
        self.note(app, actor, &format!("Update certificate {}", endpoint.name));
        let endpoint = self.find_certificate(app, &endpoint.name).await?;
        self.let_domains_show(app, actor, &endpoint).await?;
        Ok(endpoint)
    }

    /// Lets the domains that a certificate is for show it, unless they show another one that somebody brought; and tells routers of it.
    async fn let_domains_show(&self, app: &App, actor: &Actor, endpoint: &SniEndpoint) -> Result<(), Error> {
        let names = self.read_certificate(&endpoint.chain)?.domains;
        let managed = self.store.sni_endpoints(app.id).await?.into_iter().filter(|it| it.acm).map(|it| it.id);
        let managed: Vec<SniEndpointId> = managed.collect();
        for domain in self.store.domains(app.id).await? {
            let shown = domain.sni_endpoint.as_ref().map(|(id, _)| *id);
            let is_free = shown.is_none_or(|id| id != endpoint.id && managed.contains(&id));
            if is_free && domain.place.path.is_none() && is_for(&names, &domain.place.host) {
                self.store.set_domain_certificate(&domain, Some(endpoint), &self.stamp(actor)).await?;
            }
        }
        self.announce_certificates(app.id).await;
        Ok(())
    }

    /// The newest certificate of an app that is for a host and good now.
    pub(crate) async fn certificate_for(&self, app: AppId, host: &Hostname) -> Result<Option<SniEndpoint>, Error> {
        let now = self.clock.now();
        let is_good = |endpoint: &SniEndpoint| {
            let read = self.read_certificate(&endpoint.chain);
            !endpoint.acm
                && read.is_ok_and(|certificate| is_for(&certificate.domains, host) && now < certificate.expires_at)
        };
        Ok(self.store.sni_endpoints(app).await?.into_iter().rev().find(is_good))
    }

    /// The certificate of an app that `reference`, a name or an id, means.
    pub async fn find_certificate(&self, app: &App, reference: &str) -> Result<SniEndpoint, Error> {
        let is_meant = |endpoint: &SniEndpoint| endpoint.name == reference || endpoint.id.to_string() == reference;
        self.store.sni_endpoints(app.id).await?.into_iter().find(is_meant).ok_or(Error::NotFound("sni endpoint"))
    }

    /// Removes a certificate and its key.
    pub async fn remove_certificate(&self, app: &App, actor: &Actor, endpoint: &SniEndpoint) -> Result<(), Error> {
        self.store.delete_sni_endpoint(endpoint, &self.stamp(actor)).await?;
        self.note(app, actor, &format!("Remove certificate {}", endpoint.name));
        self.announce_certificates(app.id).await;
        Ok(())
    }

    /// Says whether the platform shall get certificates for an app's domains. Those that it got go with that; asked again, it tries again at once
    /// what failed.
    pub async fn set_acm(&self, app: &App, actor: &Actor, acm: bool) -> Result<(), Error> {
        self.store.set_acm(app, acm, &self.stamp(actor)).await?;
        self.note(app, actor, if acm { "Enable automatic certificates" } else { "Disable automatic certificates" });
        if acm {
            self.store.retry_orders(app.id, self.clock.now()).await?;
        } else {
            self.store.forget_managed(Some(app.id)).await?;
            self.announce_certificates(app.id).await;
        }
        self.live.certificates_wanted.notify_one();
        Ok(())
    }

    /// What a certificate, in PEM, says of itself.
    pub fn read_certificate(&self, chain: &str) -> Result<Certificate, Error> {
        let chain = parse_chain(chain)?;
        let (leaf, rest) = chain.split_first().ok_or_else(|| invalid("certificate_chain has no certificate"))?;
        let parsed = parse(leaf)?;
        let domains = domains(&parsed);
        let ca_signed = self.is_vouched_for((leaf, rest), &domains);
        let time = |seconds: i64| Timestamp::from_millis(seconds.saturating_mul(1000));
        Ok(Certificate {
            issuer: slashed(parsed.issuer()),
            subject: slashed(parsed.subject()),
            starts_at: time(parsed.validity().not_before.timestamp()),
            expires_at: time(parsed.validity().not_after.timestamp()),
            self_signed: parsed.issuer() == parsed.subject(),
            ca_signed,
            must_staple: must_staple(&parsed),
            domains,
        })
    }

    /// A chain of which each signed the one before, good now, and the key of its first.
    pub(crate) fn check_pair(&self, chain: &str, key: &str) -> Result<(), Error> {
        if chain.len() > MAX_PEM || key.len() > MAX_PEM {
            return Err(Error::Invalid(format!("certificate_chain and private_key can have {MAX_PEM} bytes each")));
        }
        let certificate = self.read_certificate(chain)?;
        let chain = parse_chain(chain)?;
        for pair in chain.windows(2) {
            if parse(&pair[0])?.issuer() != parse(&pair[1])?.subject() {
                return Err(invalid(
                    "certificate_chain must begin with the domain's own, each followed by its issuer's",
                ));
            }
        }
        if certificate.domains.is_empty() {
            return Err(invalid("certificate_chain begins with a certificate that is for no domain"));
        }
        if certificate.expires_at <= self.clock.now() {
            return Err(invalid("certificate_chain begins with a certificate that has expired"));
        }
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
            .map_err(|_| invalid("private_key must be a key in PEM, without a passphrase"))?;
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        CertifiedKey::from_der(chain, key, &provider).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => invalid("private_key does not belong to the certificate"),
            _ => invalid("private_key must be an RSA key, or one of ECDSA or Ed25519"),
        })?;
        Ok(())
    }

    fn is_vouched_for(&self, (leaf, rest): (&CertificateDer<'_>, &[CertificateDer<'_>]), domains: &[String]) -> bool {
        let Ok(verifier) = WebPkiServerVerifier::builder(Arc::clone(self.outbound.roots())).build() else {
            return false;
        };
        let name = domains.first().map(|domain| domain.replacen('*', "any", 1));
        let Some(name) = name.and_then(|name| ServerName::try_from(name).ok()) else { return false };
        let millis = u64::try_from(self.clock.now().as_millis()).unwrap_or_default();
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_millis(millis));
        verifier.verify_server_cert(leaf, rest, &name, &[], now).is_ok()
    }
}

/// Whether a certificate for `names` is for `host`: a `*` stands for one label (RFC 9525, section 6.3).
pub(crate) fn is_for(names: &[String], host: &Hostname) -> bool {
    let host = host.as_str();
    let parent = host.split_once('.').map(|(_, parent)| parent);
    names.iter().any(|name| {
        let name = name.to_ascii_lowercase();
        name == host || name.strip_prefix("*.").is_some_and(|rest| Some(rest) == parent)
    })
}

fn parse_chain(pem: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let must = || invalid("certificate_chain must be certificates in PEM");
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().map_err(|_| must())?;
    if chain.is_empty() || chain.len() > MAX_CHAIN {
        return Err(must());
    }
    Ok(chain)
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, Error> {
    let parsed = X509Certificate::from_der(der).map_err(|_| invalid("certificate_chain has a damaged certificate"))?;
    Ok(parsed.1)
}

/// Those that it names as such or, without any, its subject's common name.
fn domains(certificate: &X509Certificate<'_>) -> Vec<String> {
    let names = certificate.subject_alternative_name().ok().flatten();
    let names = names.iter().flat_map(|names| &names.value.general_names);
    let listed: Vec<String> = names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            _ => None,
        })
        .collect();
    if !listed.is_empty() {
        return listed;
    }
    let common = certificate.subject().iter_common_name().next();
    common.and_then(|name| name.as_str().ok()).map(str::to_owned).into_iter().collect()
}

/// Whether it has the extension `tlsfeature` with `status_request` among its numbers (RFC 7633, section 4.2.3).
fn must_staple(certificate: &X509Certificate<'_>) -> bool {
    const STATUS_REQUEST: &[u8] = &[0x02, 0x01, 0x05];
    let feature = certificate.extensions().iter().find(|it| it.oid.to_id_string() == "1.3.6.1.5.5.7.1.24");
    feature.is_some_and(|it| it.value.get(2..).is_some_and(|list| list.chunks(3).any(|one| one == STATUS_REQUEST)))
}

/// `/C=US/O=Example/CN=example.com`, as Heroku writes it.
fn slashed(name: &X509Name<'_>) -> String {
    let part = |attribute: &x509_parser::prelude::AttributeTypeAndValue<'_>| {
        let short = x509_parser::objects::oid2abbrev(attribute.attr_type(), x509_parser::objects::oid_registry());
        let value = attribute.as_str().unwrap_or_default();
        short.map(|short| format!("/{short}={value}")).unwrap_or_default()
    };
    name.iter_attributes().map(part).collect()
}

fn invalid(what: &str) -> Error {
    Error::Invalid(what.to_owned())
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
    use serde_json::{Value, json};

    use crate::testing::TestController;
    use crate::testing::http::Server;

    /// An authority, a chain for `*.example.com` and its key.
    fn signed() -> (CertifiedIssuer<'static, KeyPair>, String, String) {
        let mut params = CertificateParams::new([]).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "Test Authority");
        let authority =
            CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority");
        let mut params = CertificateParams::new(["*.example.com".to_owned()]).expect("parameters");
        params.distinguished_name.push(DnType::CommonName, "*.example.com");
        let key = KeyPair::generate().expect("a key");
        let leaf = params.signed_by(&key, &authority).expect("signed");
        (authority, leaf.pem(), key.serialize_pem())
    }

    #[tokio::test]
    async fn a_certificate_is_checked_kept_shown_by_domains_and_removed() {
        let (authority, leaf, key) = signed();
        let chain = format!("{leaf}{}", authority.pem());
        let test = TestController::trusting(vec![authority.der().clone()]).await;
        let routes = crate::api::routes(test.controller.clone());
        let server = Server::serve(test, routes).await;
        let ada = server.user_with_app("ada@example.com", "shop").await;
        let wish = json!({"certificate_chain": chain, "private_key": key});
        let made = ada.send("POST", "/apps/shop/sni-endpoints", &[], wish.clone()).await;
        assert_eq!(made.status, 201, "{}", made.text);
        assert!(!made.text.contains("PRIVATE KEY"));
        let cert = &made.body["ssl_cert"];
        assert_eq!((&cert["cert_domains"], &cert["ca_signed?"]), (&json!(["*.example.com"]), &json!(true)));
        assert_eq!((&cert["self_signed?"], &cert["issuer"]), (&json!(false), &json!("/CN=Test Authority")));
        let name = made.body["name"].as_str().expect("a name");

        let domain = json!({"hostname": "www.example.com", "sni_endpoint": name});
        let domain = ada.send("POST", "/apps/shop/domains", &[], domain).await.body;
        assert_eq!(domain["sni_endpoint"]["name"], name);
        assert_eq!((&domain["cname"], &domain["acm_status"]), (&json!("shop.localhost"), &Value::Null));
        let endpoint = format!("/apps/shop/sni-endpoints/{name}");
        assert_eq!(ada.get(&endpoint).await.body["domains"], json!([domain["id"]]));
        let replaced = ada.send("PATCH", &endpoint, &[], wish).await;
        assert_eq!((replaced.status, &replaced.body["domains"]), (200, &json!([domain["id"]])));
        let none = json!({"sni_endpoint": null});
        let domain = ada.send("PATCH", "/apps/shop/domains/www.example.com", &[], none).await.body;
        assert_eq!(domain["sni_endpoint"], Value::Null);
        assert_eq!(ada.send("DELETE", &endpoint, &[], Value::Null).await.status, 200);
        assert_eq!(ada.get("/apps/shop/sni-endpoints").await.body, json!([]));
    }

    #[tokio::test]
    async fn domains_show_what_is_for_them_and_routers_are_told() {
        let (authority, leaf, key) = signed();
        let test = TestController::trusting(vec![authority.der().clone()]).await;
        let controller = test.controller.clone();
        let routes = crate::api::routes(controller.clone());
        let server = Server::serve(test, routes).await;
        let ada = server.user_with_app("ada@example.com", "shop").await;
        let add = async |hostname: &str| {
            ada.send("POST", "/apps/shop/domains", &[], json!({ "hostname": hostname })).await.body
        };
        assert_eq!(add("www.example.com").await["sni_endpoint"], Value::Null);
        add("www.example.org").await;
        let told = || {
            let rows = controller.live.certificates.keys();
            let row = rows.first().and_then(|app| controller.live.certificates.row(app)).unwrap_or_default();
            let of = |certificate: &model::certificate::HostCertificate| {
                assert_eq!((certificate.chain.as_str(), certificate.key.0.as_str()), (leaf.as_str(), key.as_str()));
                certificate.hosts.iter().map(ToString::to_string).collect::<Vec<_>>()
            };
            row.certificates.iter().flat_map(of).collect::<Vec<_>>()
        };
        assert_eq!(told(), [""; 0]);
        let wish = json!({"certificate_chain": leaf, "private_key": key});
        let made = ada.send("POST", "/apps/shop/sni-endpoints", &[], wish).await.body;
        assert_eq!(told(), ["www.example.com"], "of the domains that there are, the one that it is for");
        assert_eq!(add("api.example.com").await["sni_endpoint"]["name"], made["name"], "and those that are added");
        for other in ["example.com", "a.b.example.com"] {
            assert_eq!(add(other).await["sni_endpoint"], Value::Null, "a `*` is one label");
        }
        assert_eq!(told(), ["api.example.com", "www.example.com"]);
        let none = json!({"sni_endpoint": null});
        ada.send("PATCH", "/apps/shop/domains/api.example.com", &[], none).await;
        assert_eq!(told(), ["www.example.com"]);

        // Another life tells the same before it does anything else.
        let next = server.test.next_life().await;
        next.controller.publish_all_certificates().await.expect("told");
        assert_eq!(next.controller.live.certificates.keys().len(), 1);
        let endpoint = format!("/apps/shop/sni-endpoints/{}", made["name"].as_str().expect("a name"));
        ada.send("DELETE", &endpoint, &[], Value::Null).await;
        assert_eq!(told(), [""; 0]);
    }

    #[tokio::test]
    async fn what_is_no_certificate_with_its_key_is_refused() {
        let (authority, leaf, key) = signed();
        let (other, _, other_key) = signed();
        let server = Server::start().await;
        let ada = server.user_with_app("ada@example.com", "shop").await;
        let untrusted = json!({"certificate_chain": leaf, "private_key": key});
        let made = ada.send("POST", "/apps/shop/sni-endpoints", &[], untrusted).await;
        assert_eq!((made.status, &made.body["ssl_cert"]["ca_signed?"]), (201, &json!(false)));
        let wrong_order = format!("{}{leaf}", authority.pem());
        let wrong_issuer = format!("{leaf}{}{}", other.pem(), leaf);
        let cases = [
            ("", key.as_str(), "certificate_chain must be certificates in PEM"),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----", &key, "a damaged certificate"),
            (&leaf, "", "private_key must be a key in PEM"),
            (&leaf, &other_key, "private_key does not belong to the certificate"),
            (&wrong_order, &key, "must begin with the domain's own"),
            (&wrong_issuer, &key, "must begin with the domain's own"),
        ];
        for (chain, key, why) in cases {
            let wish = json!({"certificate_chain": chain, "private_key": key});
            let refused = ada.send("POST", "/apps/shop/sni-endpoints", &[], wish).await;
            assert!(refused.status == 422 && refused.text.contains(why), "{why}: {}", refused.text);
        }
    }

    #[tokio::test]
    async fn managed_certificates_wait_for_an_operator_who_agrees_to_terms() {
        let server = Server::start().await;
        let ada = server.user_with_app("ada@example.com", "shop").await;
        ada.send("POST", "/apps/shop/domains", &[], json!({"hostname": "www.example.com"})).await;
        let enabled = ada.send("POST", "/apps/shop/acm", &[], Value::Null).await;
        assert_eq!((enabled.status, &enabled.body["acm"]), (201, &json!(true)));
        let domain = ada.get("/apps/shop/domains/www.example.com").await.body;
        assert_eq!(domain["acm_status"], "pending");
        assert!(domain["acm_status_reason"].as_str().is_some_and(|reason| reason.contains("acme_terms_agreed")));
        assert_eq!(ada.send("DELETE", "/apps/shop/acm", &[], Value::Null).await.body["acm"], json!(false));
    }
}
