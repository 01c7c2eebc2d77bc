//! Gets certificates and renews them, for as long as the process lives. It looks at what the store says is due and knows nothing else: a
//! controller that was killed goes on where it was, with a new order.

use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use instant_acme::{CertificateIdentifier, Error as AcmeError};
use model::{SniEndpointId, Timestamp};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::sync::Mutex;
use tokio::time::sleep;

use super::ask::Said;
use super::authority::{Authority, says};
use super::issue::{Issued, Issuer, Refusal};
use super::plan;
use crate::apps::choose_name;
use crate::errors::chain;
use crate::settings::Acme;
use crate::sni_endpoints::Certificate;
use crate::store::{AcmStatus, DomainOrder, ManagedDomain, SniEndpoint};
use crate::{Controller, Error};

/// Longest time between two looks: a clock may be set.
const LOOK: Duration = Duration::from_secs(60 * 60);
/// Between two looks at what is overdue, for instance because the authority is away.
const AGAIN: Duration = Duration::from_secs(60);
/// Orders at one time: authorities allow few.
const AT_ONCE: usize = 4;
/// Domains that are read at one time.
const MOST: i64 = 100;

/// Does it.
pub(crate) async fn work(controller: Arc<Controller>) {
    let Some(acme) = controller.settings.acme.clone() else { return };
    let worker = Worker { controller, acme, authority: Mutex::default() };
    loop {
        let pause = match worker.look().await {
            Ok(pause) => pause,
            Err(error) => {
                tracing::warn!(error = chain(&error), "Certificates cannot be ordered just now");
                AGAIN
            }
        };
        tokio::select! {
            () = worker.controller.live.certificates_wanted.notified() => {}
            () = sleep(pause) => {}
        }
    }
}

pub(super) struct Worker {
    pub(super) controller: Arc<Controller>,
    pub(super) acme: Acme,
    pub(super) authority: Mutex<Option<Arc<Authority>>>,
}

impl Worker {
    /// Looks at everything that is due, and says when to look again.
    pub(super) async fn look(&self) -> Result<Duration, Error> {
        let controller = &self.controller;
        controller.store.forget_managed(None).await?;
        loop {
            let due = controller.store.due_certificates(controller.clock.now(), MOST).await?;
            if due.is_empty() {
                break;
            }
            let authority = self.authority().await?;
            let mut works = Vec::new();
            for domain in &due {
                works.push(self.attend(&authority, domain).boxed());
            }
            let results: Vec<_> = futures::stream::iter(works).buffer_unordered(AT_ONCE).collect().await;
            results.into_iter().collect::<Result<(), _>>()?;
        }
        let next = controller.store.next_certificate().await?;
        let until = next.map(|next| next.since(controller.clock.now()));
        Ok(until.unwrap_or(LOOK).clamp(Duration::from_secs(1), LOOK))
    }

    async fn authority(&self) -> Result<Arc<Authority>, Error> {
        let mut known = self.authority.lock().await;
        if let Some(authority) = known.as_ref() {
            return Ok(Arc::clone(authority));
        }
        let opened = Arc::new(Authority::open(&self.controller, &self.acme).await?);
        *known = Some(Arc::clone(&opened));
        Ok(opened)
    }

    /// Does for one domain what is to be done now, and notes when it is looked at again.
    async fn attend(&self, authority: &Authority, domain: &ManagedDomain) -> Result<(), Error> {
        let (controller, now) = (&self.controller, self.controller.clock.now());
        let old = domain.shown.as_ref().and_then(|(_, chain)| Some((chain, controller.read_certificate(chain).ok()?)));
        let leaf = old.as_ref().and_then(|(chain, _)| CertificateDer::from_pem_slice(chain.as_bytes()).ok());
        let replaced = leaf.as_ref().and_then(|leaf| CertificateIdentifier::try_from(leaf).ok());
        let mut is_told = false;
        if let Some((_, certificate)) = &old {
            let suggested = match &replaced {
                Some(id) => suggestion(authority, id).await,
                None => None,
            };
            is_told = suggested.is_some();
            let life = (certificate.starts_at, certificate.expires_at);
            let renewal = domain.revoked.map_or_else(|| plan::renewal(domain.id, life, suggested), plan::replacement);
            // Asked again by somebody, a certificate that is good is as good as a new one.
            if now < renewal {
                let due_at = plan::next_look(renewal, now, is_told);
                return self.note(domain, AcmStatus::Issued, (None, 0, due_at)).await;
            }
        }
        if !self.is_wanted(domain).await? {
            return Ok(());
        }
        let (has_tls, has_hook) = (controller.settings.tls_port.is_some(), self.acme.dns_hook.is_some());
        let kinds = plan::challenges(&domain.hostname, has_tls, has_hook);
        if kinds.is_empty() {
            let why = "A wildcard needs DNS-01: the platform's operator must set acme_dns_hook".to_owned();
            return self.fail(domain, why, None).await;
        }
        let issuer = Issuer { controller, acme: &self.acme, authority };
        match issuer.issue(domain, (kinds, replaced.filter(|_| is_told))).await {
            Ok(got) => self.keep(domain, &got).await,
            Err(refusal) => {
                if let Refusal::Acme(error) = &refusal
                    && says(error, "accountDoesNotExist")
                {
                    return self.forget_account(error).await;
                }
                self.fail(domain, refusal.sentence(), authority.asked()).await
            }
        }
    }

    /// Whether the app of a domain that came with a visitor still says that it is its own; if not, the domain is gone, or waits for an
    /// answer. Of one that nothing was tried for yet, the app has just said so; an app that wants no more names keeps those that it has.
    async fn is_wanted(&self, domain: &ManagedDomain) -> Result<bool, Error> {
        let is_new = domain.shown.is_none() && domain.order.is_none();
        let asker = self.controller.asker(domain.app).filter(|_| domain.on_demand && !is_new);
        let Some(asker) = asker else { return Ok(true) };
        match self.controller.ask_app(&asker, &domain.hostname).await {
            Said::Yes => Ok(true),
            Said::No => self.let_go(domain, "the app says that it is not its own").await.map(|()| false),
            Said::Nothing(why) => {
                let why = format!("Nobody says whether the app still wants it: {why}");
                self.fail(domain, why, None).await.map(|()| false)
            }
        }
    }

    /// Takes a domain away that came with a visitor.
    async fn let_go(&self, domain: &ManagedDomain, why: &str) -> Result<(), Error> {
        let controller = &self.controller;
        if let Some(own) = controller.store.domain_of_host(&domain.hostname).await?.filter(|own| own.id == domain.id) {
            if !controller.store.paths_of_host(own.id).await?.is_empty() {
                let why = format!("{why}, but apps answer paths of it: remove those, and it goes");
                let failures = domain.order.as_ref().map_or(0, |order| order.failures);
                let due_at = controller.clock.now().after(plan::pause(u32::MAX, None));
                return self.note(domain, AcmStatus::Failed, (Some(why), failures, due_at)).await;
            }
            controller.store.delete_domain(&own, &controller.own_stamp()).await?;
            self.log(domain, &format!("Remove domain {}: {why}", domain.hostname));
        }
        controller.store.forget_managed(None).await?;
        controller.announce(domain.app).await;
        controller.live.on_demand.settled.notify_waiters();
        Ok(())
    }

    /// Lets the domain show it.
    async fn keep(&self, domain: &ManagedDomain, issued: &Issued) -> Result<(), Error> {
        let controller = &self.controller;
        let checked = controller.check_pair(&issued.chain, &issued.key);
        let certificate = match checked.and_then(|()| controller.read_certificate(&issued.chain)) {
            Ok(certificate) => certificate,
            Err(error) => {
                let why = format!("The certificate authority sent what is no certificate: {error}");
                return self.fail(domain, why, None).await;
            }
        };
        let (now, random) = (controller.clock.now(), &*controller.random);
        let id = domain.shown.as_ref().map_or_else(|| SniEndpointId::random(random), |(id, _)| *id);
        let mut name = choose_name(random);
        name.truncate(30);
        let chain = issued.chain.clone();
        let endpoint = SniEndpoint { id, app: domain.app, name, chain, acm: true, created_at: now, updated_at: now };
        let order = issued_order(domain, &certificate, now);
        let stamp = controller.own_stamp();
        controller.store.save_managed(domain, (&endpoint, &issued.key, &order), &stamp).await?;
        controller.announce_certificates(domain.app).await;
        controller.live.on_demand.settled.notify_waiters();
        let until = certificate.expires_at;
        self.log(domain, &format!("Certificate for {} is there, good until {until}", domain.hostname));
        Ok(())
    }

    /// Notes that there is none, and why.
    async fn fail(&self, domain: &ManagedDomain, why: String, asked: Option<Duration>) -> Result<(), Error> {
        let failures = domain.order.as_ref().map_or(0, |order| order.failures).saturating_add(1);
        let pause = plan::pause(failures, asked);
        let now = self.controller.clock.now();
        tracing::warn!(domain.name = %domain.hostname, error = why, failures, "A certificate was refused");
        // One that came with a visitor comes with the next one.
        if domain.on_demand && plan::status(failures) == AcmStatus::Failed && !self.shows_good(domain, now) {
            return self.let_go(domain, &format!("no certificate for it: {why}")).await;
        }
        let minutes = pause.as_secs() / 60;
        self.log(domain, &format!("No certificate for {}: {why}. Next attempt in {minutes} min", domain.hostname));
        let noted = self.note(domain, plan::status(failures), (Some(why), failures, now.after(pause))).await;
        self.controller.live.on_demand.settled.notify_waiters();
        noted
    }

    /// Whether a domain shows a certificate that has not expired.
    fn shows_good(&self, domain: &ManagedDomain, now: Timestamp) -> bool {
        let shown = domain.shown.as_ref().and_then(|(_, chain)| self.controller.read_certificate(chain).ok());
        shown.is_some_and(|certificate| now < certificate.expires_at)
    }

    async fn note(
        &self,
        domain: &ManagedDomain,
        status: AcmStatus,
        (reason, failures, due_at): (Option<String>, u32, Timestamp),
    ) -> Result<(), Error> {
        let updated_at = self.controller.clock.now();
        let order = DomainOrder { status, reason, failures, due_at, updated_at };
        Ok(self.controller.store.save_order(domain, &order, &self.controller.own_stamp()).await?)
    }

    /// The authority knows nothing of the account: the next look makes another one.
    async fn forget_account(&self, error: &AcmeError) -> Result<(), Error> {
        *self.authority.lock().await = None;
        self.controller.store.forget_acme_account(&self.acme.directory).await?;
        let source = std::io::Error::other(super::authority::sentence(error)).into();
        Err(Error::System { action: "use the ACME account", source })
    }

    fn log(&self, domain: &ManagedDomain, line: &str) {
        let controller = &self.controller;
        controller.logs.write(domain.app, controller.clock.now(), &model::LogSource::app("api"), line);
    }
}

fn issued_order(domain: &ManagedDomain, certificate: &Certificate, now: Timestamp) -> DomainOrder {
    let renewal = plan::renewal(domain.id, (certificate.starts_at, certificate.expires_at), None);
    // Whether the authority has suggestions, the next look tells.
    let due_at = plan::next_look(renewal, now, true);
    DomainOrder { status: AcmStatus::Issued, reason: None, failures: 0, due_at, updated_at: now }
}

/// When the authority wants a certificate to be renewed, if it says so (RFC 9773).
async fn suggestion(authority: &Authority, id: &CertificateIdentifier<'_>) -> Option<(Timestamp, Timestamp)> {
    match authority.account.renewal_info(id).await {
        Ok((info, _)) => {
            let time = |time: time::OffsetDateTime| Timestamp::from_millis(time.unix_timestamp().saturating_mul(1000));
            Some((time(info.suggested_window.start), time(info.suggested_window.end)))
        }
        Err(AcmeError::Unsupported(_)) => None,
        Err(error) => {
            tracing::debug!(error = super::authority::sentence(&error), "no renewal information");
            None
        }
    }
}
