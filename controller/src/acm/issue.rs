//! One certificate for one host: the order, the challenges one after the other, the key, the chain.

use std::time::Duration;

use instant_acme::{
    AuthorizationStatus, CertificateIdentifier, ChallengeStatus, ChallengeType, Error as AcmeError, Identifier,
    NewOrder, Order, OrderStatus, RetryPolicy,
};
use model::certificate::{Challenge, ChallengeKind};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use tokio::time::{Instant, sleep};

use super::authority::{Authority, problem, sentence};
use super::hook;
use crate::Controller;
use crate::settings::Acme;
use crate::store::ManagedDomain;

/// How often an authority is asked how far it is, and for how long.
const POLLING: RetryPolicy =
    RetryPolicy::new().initial_delay(Duration::from_millis(500)).backoff(1.5).timeout(Duration::from_secs(120));

/// The same of a challenge, which an authority looks at from several places.
const FIRST_LOOK: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(120);

/// A chain and its key, in PEM.
pub(super) struct Issued {
    pub(super) chain: String,
    pub(super) key: String,
}

/// Why there is no certificate.
pub(super) enum Refusal {
    /// Of an authority that was asked, of which something is known.
    Acme(AcmeError),
    /// In a sentence.
    Because(String),
}

impl From<AcmeError> for Refusal {
    fn from(error: AcmeError) -> Self {
        Self::Acme(error)
    }
}

impl Refusal {
    pub(super) fn sentence(&self) -> String {
        match self {
            Self::Acme(error) => sentence(error),
            Self::Because(text) => text.clone(),
        }
    }
}

/// Gets certificates for domains.
pub(super) struct Issuer<'a> {
    pub(super) controller: &'a Controller,
    pub(super) acme: &'a Acme,
    pub(super) authority: &'a Authority,
}

impl Issuer<'_> {
    /// Tries one challenge after the other. `replaces` is what it is to take the place of.
    pub(super) async fn issue(
        &self,
        domain: &ManagedDomain,
        (kinds, replaces): (Vec<ChallengeType>, Option<CertificateIdentifier<'_>>),
    ) -> Result<Issued, Refusal> {
        let mut reasons = Vec::new();
        for kind in kinds {
            match self.attempt(domain, &kind, replaces.clone()).await {
                Ok(issued) => return Ok(issued),
                // Asking another way would be too often, too.
                Err(Refusal::Acme(error)) if super::authority::says(&error, "rateLimited") => return Err(error.into()),
                Err(Refusal::Acme(error)) if super::authority::says(&error, "accountDoesNotExist") => {
                    return Err(error.into());
                }
                Err(refusal) => reasons.push(format!("{}: {}", word(&kind), refusal.sentence())),
            }
        }
        Err(Refusal::Because(reasons.join("; ")))
    }

    async fn attempt(
        &self,
        domain: &ManagedDomain,
        kind: &ChallengeType,
        replaces: Option<CertificateIdentifier<'_>>,
    ) -> Result<Issued, Refusal> {
        let names = [Identifier::Dns(domain.hostname.to_string())];
        let mut order = self.order(&names, replaces).await?;
        let mut proof = None;
        let proven = self.prove(domain, kind, (&mut order, &mut proof)).await;
        if let Some(proof) = proof {
            self.withdraw(domain, proof).await;
        }
        proven?;
        let (key, request) = key_and_request(domain)?;
        order.finalize_csr(&request).await?;
        Ok(Issued { chain: order.poll_certificate(&POLLING).await?, key })
    }

    /// An authority that does not take an order as a replacement (RFC 9773 section 5) is asked for a new one.
    async fn order(
        &self,
        names: &[Identifier],
        replaces: Option<CertificateIdentifier<'_>>,
    ) -> Result<Order, AcmeError> {
        let account = &self.authority.account;
        if let Some(replaces) = replaces {
            match account.new_order(&NewOrder::new(names).replaces(replaces)).await {
                Err(error) if !super::authority::says(&error, "rateLimited") => {
                    tracing::debug!(error = sentence(&error), "an order is not taken as a replacement");
                }
                result => return result,
            }
        }
        account.new_order(&NewOrder::new(names)).await
    }

    /// Shows the authority what it asks for, and waits for what it says.
    async fn prove(
        &self,
        domain: &ManagedDomain,
        kind: &ChallengeType,
        (order, proof): (&mut Order, &mut Option<Proof>),
    ) -> Result<(), Refusal> {
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization?;
            if authorization.status == AuthorizationStatus::Valid {
                continue;
            }
            let Some(mut challenge) = authorization.challenge(kind.clone()) else {
                return Err(Refusal::Because("the certificate authority does not offer it".to_owned()));
            };
            let answer = challenge.key_authorization();
            let token = challenge.token.clone();
            let shown = proof.insert(Self::proof(domain, kind, (&token, answer.as_str(), answer.dns_value())));
            self.show(domain, shown).await.map_err(Refusal::Because)?;
            challenge.set_ready().await?;
        }
        self.accepted(order, kind).await
    }

    /// Waits until the authority has seen it. Not all of them say of an order that it is lost when its challenge is.
    async fn accepted(&self, order: &mut Order, kind: &ChallengeType) -> Result<(), Refusal> {
        let (began, mut pause) = (Instant::now(), FIRST_LOOK);
        while began.elapsed() < PATIENCE {
            sleep(pause).await;
            pause = (pause * 3 / 2).min(LONGEST_PAUSE);
            let state = order.refresh().await?;
            let said = state.error.as_ref().map(problem);
            match state.status {
                OrderStatus::Ready | OrderStatus::Valid => return Ok(()),
                OrderStatus::Invalid => {
                    let why = self.refused(order, kind).await?.or(said);
                    return Err(Refusal::Because(why.unwrap_or_else(|| "the authority does not say why".to_owned())));
                }
                _ => {}
            }
            if let Some(why) = self.refused(order, kind).await? {
                return Err(Refusal::Because(why));
            }
        }
        Err(Refusal::Because(format!("the authority did not look within {} s", PATIENCE.as_secs())))
    }

    /// What the authority says of a challenge that it does not accept.
    async fn refused(&self, order: &mut Order, kind: &ChallengeType) -> Result<Option<String>, Refusal> {
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization?;
            let state = authorization.refresh().await?;
            let of_kind = state.challenges.iter().find(|challenge| challenge.r#type == *kind);
            let of_kind = of_kind.filter(|challenge| challenge.status == ChallengeStatus::Invalid);
            if let Some(challenge) = of_kind {
                let said = challenge.error.as_ref().map(problem);
                return Ok(Some(said.unwrap_or_else(|| "the authority does not say why".to_owned())));
            }
        }
        Ok(None)
    }

    fn proof(domain: &ManagedDomain, kind: &ChallengeType, (token, answer, record): (&str, &str, String)) -> Proof {
        let by_router = |kind| {
            let (host, token, answer) = (domain.hostname.clone(), token.to_owned(), answer.to_owned());
            Proof::Router(Challenge { host, kind, token, answer })
        };
        match kind {
            ChallengeType::Http01 => by_router(ChallengeKind::Http),
            ChallengeType::TlsAlpn01 => by_router(ChallengeKind::TlsAlpn),
            _ => {
                let host = domain.hostname.as_str();
                Proof::Record(format!("_acme-challenge.{}", host.strip_prefix("*.").unwrap_or(host)), record)
            }
        }
    }

    async fn show(&self, domain: &ManagedDomain, proof: &Proof) -> Result<(), String> {
        match (proof, &self.acme.dns_hook) {
            (Proof::Router(challenge), _) => {
                self.challenge(domain, |all| all.push(challenge.clone()));
                self.controller.announce_certificates(domain.app).await;
                Ok(())
            }
            (Proof::Record(name, value), Some(program)) => hook::call(program, "present", (name, value)).await,
            (Proof::Record(..), None) => Err("the setting acme_dns_hook names no program".to_owned()),
        }
    }

    fn challenge(&self, domain: &ManagedDomain, change: impl FnOnce(&mut Vec<Challenge>)) {
        let mut all = self.controller.live.challenges.lock();
        change(all.entry(domain.app).or_default());
        all.retain(|_, of_app| !of_app.is_empty());
    }

    async fn withdraw(&self, domain: &ManagedDomain, proof: Proof) {
        match (proof, &self.acme.dns_hook) {
            (Proof::Router(challenge), _) => {
                self.challenge(domain, |all| all.retain(|other| *other != challenge));
                self.controller.announce_certificates(domain.app).await;
            }
            (Proof::Record(name, value), Some(program)) => {
                if let Err(error) = hook::call(program, "cleanup", (&name, &value)).await {
                    tracing::warn!(error, "A record of a challenge could not be removed");
                }
            }
            (Proof::Record(..), None) => {}
        }
    }
}

/// What an authority is shown.
enum Proof {
    /// By routers.
    Router(Challenge),
    /// In DNS: a name and its TXT.
    Record(String, String),
}

/// A new key in PEM, and a request for a certificate with it.
fn key_and_request(domain: &ManagedDomain) -> Result<(String, Vec<u8>), Refusal> {
    let make = || {
        let mut params = CertificateParams::new([domain.hostname.to_string()])?;
        params.distinguished_name = DistinguishedName::new();
        let key = KeyPair::generate()?;
        let request = params.serialize_request(&key)?;
        Ok::<_, rcgen::Error>((key.serialize_pem(), request.der().to_vec()))
    };
    make().map_err(|error| Refusal::Because(format!("no key could be made: {error}")))
}

fn word(kind: &ChallengeType) -> &'static str {
    match kind {
        ChallengeType::Http01 => "HTTP-01",
        ChallengeType::TlsAlpn01 => "TLS-ALPN-01",
        _ => "DNS-01",
    }
}
