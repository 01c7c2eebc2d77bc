//! Host names of apps: the default one, which follows from the app's name, and custom ones.

use std::collections::HashMap;
use std::net::IpAddr;

use model::{DomainId, Hostname, NameError, SniEndpointId, Timestamp};

use crate::store::{AcmStatus, App, Domain, DomainOrder};
use crate::{Actor, Controller, Error};

/// Most custom domains of one app.
const MAX_DOMAINS: usize = 1000;

/// Why a domain that waits for a certificate of the platform's goes on waiting.
const NO_ACM: &str = "The platform's operator has not agreed to the terms of a certificate authority (setting \
     acme_terms_agreed). Bring a certificate: platform certs:add";

/// A host name of an app.
#[derive(Debug, Clone)]
pub struct AppDomain {
    /// Its id; the default one has its app's.
    pub id: String,
    /// The name.
    pub hostname: Hostname,
    /// Whether somebody added it, or it follows from the app's name.
    pub custom: bool,
    /// The certificate of the user's that it shows: its id and its name.
    pub sni_endpoint: Option<(SniEndpointId, String)>,
    /// How far the platform is with a certificate for it, and why no further; none if it shall get none.
    pub acm: Option<(AcmStatus, Option<String>)>,
    /// Since when.
    pub created_at: Timestamp,
    /// Last change.
    pub updated_at: Timestamp,
}

impl Controller {
    /// All host names of an app, the default one first.
    pub async fn domains(&self, app: &App) -> Result<Vec<AppDomain>, Error> {
        let mut custom: Vec<_> = self.store.domains(app.id).await?.iter().map(AppDomain::from).collect();
        if app.acm {
            let orders = self.store.domain_orders(app.id).await?;
            let endpoints = self.store.sni_endpoints(app.id).await?;
            let managed: Vec<_> = endpoints.into_iter().filter(|it| it.acm).map(|it| it.id).collect();
            for domain in &mut custom {
                domain.acm = Some(self.acm_of(domain, &orders, &managed));
            }
        }
        Ok(std::iter::once(self.default_domain(app)?).chain(custom).collect())
    }

    /// Adds a custom domain.
    pub async fn add_domain(&self, app: &App, actor: &Actor, hostname: &str) -> Result<AppDomain, Error> {
        let hostname = self.check_hostname(hostname)?;
        if self.store.domains(app.id).await?.len() >= MAX_DOMAINS {
            return Err(Error::Invalid(format!("An app can have at most {MAX_DOMAINS} domains")));
        }
        let now = self.clock.now();
        let id = DomainId::random(&*self.random);
        let domain = Domain { id, app: app.id, hostname, sni_endpoint: None, created_at: now, updated_at: now };
        self.store.insert_domain(&domain, &self.stamp(actor)).await?;
        self.note(app, actor, &format!("Add domain {}", domain.hostname));
        let shown = self.certificate_for(app.id, &domain.hostname).await?;
        if let Some(endpoint) = &shown {
            self.store.set_domain_certificate(&domain, Some(endpoint), &self.stamp(actor)).await?;
        }
        self.announce(app.id).await;
        self.live.certificates_wanted.notify_one();
        self.find_domain(app, &domain.id.to_string()).await
    }

    /// The domain of an app that `reference`, a host name or an id, means.
    pub async fn find_domain(&self, app: &App, reference: &str) -> Result<AppDomain, Error> {
        let reference = reference.to_ascii_lowercase();
        let named = |domain: &AppDomain| domain.id == reference || domain.hostname.as_str() == reference;
        self.domains(app).await?.into_iter().find(named).ok_or(Error::NotFound("domain"))
    }

    /// Takes a custom domain away.
    pub async fn remove_domain(&self, app: &App, actor: &Actor, domain: &AppDomain) -> Result<(), Error> {
        let id: Option<DomainId> = domain.id.parse().ok().filter(|_| domain.custom);
        let Some(id) = id else {
            return Err(Error::Invalid("The default domain follows the app's name and cannot be removed".to_owned()));
        };
        let own = self.store.domains(app.id).await?.into_iter().find(|own| own.id == id);
        self.store.delete_domain(&own.ok_or(Error::NotFound("domain"))?, &self.stamp(actor)).await?;
        self.note(app, actor, &format!("Remove domain {}", domain.hostname));
        self.announce(app.id).await;
        Ok(())
    }

    /// Lets a custom domain show a certificate of the app's, by name or id, or none of the user's.
    pub async fn set_certificate(
        &self,
        app: &App,
        actor: &Actor,
        (domain, certificate): (&AppDomain, Option<&str>),
    ) -> Result<AppDomain, Error> {
        let own = self.store.domains(app.id).await?.into_iter().find(|own| own.id.to_string() == domain.id);
        let Some(own) = own else {
            return Err(Error::Invalid("The default domain shows the platform's own certificate".to_owned()));
        };
        let endpoint = match certificate {
            Some(reference) => Some(self.find_certificate(app, reference).await?),
            None => None,
        };
        self.store.set_domain_certificate(&own, endpoint.as_ref(), &self.stamp(actor)).await?;
        self.note(app, actor, &format!("Update domain {}", domain.hostname));
        self.announce_certificates(app.id).await;
        self.find_domain(app, &domain.id).await
    }

    fn acm_of(
        &self,
        domain: &AppDomain,
        orders: &HashMap<DomainId, DomainOrder>,
        managed: &[SniEndpointId],
    ) -> (AcmStatus, Option<String>) {
        // Whoever brought one needs none.
        if domain.sni_endpoint.as_ref().is_some_and(|(id, _)| !managed.contains(id)) {
            return (AcmStatus::Issued, Some("It shows the certificate that was brought for it".to_owned()));
        }
        match domain.id.parse().ok().and_then(|id: DomainId| orders.get(&id)) {
            Some(order) => (order.status, order.reason.clone()),
            None => (AcmStatus::Pending, self.settings.acme.is_none().then(|| NO_ACM.to_owned())),
        }
    }

    fn default_domain(&self, app: &App) -> Result<AppDomain, Error> {
        Ok(AppDomain {
            id: app.id.to_string(),
            hostname: self.settings.default_host(&app.name).map_err(invalid)?,
            custom: false,
            sni_endpoint: None,
            acm: None,
            created_at: app.created_at,
            updated_at: app.updated_at,
        })
    }

    /// A host name that can be an app's own: not an address, and nothing under the platform's domain, where it could take
    /// over another app or the API.
    fn check_hostname(&self, hostname: &str) -> Result<Hostname, Error> {
        let lower = hostname.trim_end_matches('.').to_ascii_lowercase();
        let parsed: Hostname = lower.parse().map_err(invalid)?;
        if lower.parse::<IpAddr>().is_ok() || !lower.contains('.') {
            return Err(Error::Invalid(format!(
                "hostname {hostname:?} is not a full domain name like www.example.com"
            )));
        }
        let own = self.settings.domain.as_str();
        if lower.strip_suffix(own).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')) {
            return Err(Error::Invalid(format!("hostname {hostname:?} is under {own}, which belongs to the platform")));
        }
        Ok(parsed)
    }
}

impl From<&Domain> for AppDomain {
    fn from(domain: &Domain) -> Self {
        Self {
            id: domain.id.to_string(),
            hostname: domain.hostname.clone(),
            custom: true,
            sni_endpoint: domain.sni_endpoint.clone(),
            acm: None,
            created_at: domain.created_at,
            updated_at: domain.updated_at,
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "so that map_err can name it")]
fn invalid(rule: NameError) -> Error {
    Error::Invalid(format!("hostname is not valid: {rule}"))
}
