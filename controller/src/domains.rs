//! Host names of apps: the default one, which follows from the app's name, and custom ones.

use std::collections::HashMap;
use std::net::IpAddr;

use model::routes::Place;
use model::{AppName, DomainId, Hostname, NameError, PathPrefix, Role, SniEndpointId, Timestamp};

use crate::store::{AcmStatus, App, Domain, DomainOrder, Stamp, StapleStatus};
use crate::{Actor, Controller, Error};

/// Most custom domains of one app.
pub(crate) const MAX_DOMAINS: usize = 1000;

/// Why a domain that waits for a certificate of the platform's goes on waiting.
const NO_ACM: &str = "The platform's operator has not agreed to the terms of a certificate authority (setting \
     acme_terms_agreed). Bring a certificate: platform certs:add";

/// Why a host stays as long as there are paths of it.
const NO_HOST: &str = "a path has no certificate and no owner without its host";

/// A host name of an app.
#[derive(Debug, Clone)]
pub struct AppDomain {
    /// Its id; the default one has its app's.
    pub id: String,
    /// The name, or a path of it.
    pub place: Place,
    /// Whether somebody added it, or it follows from the app's name.
    pub custom: bool,
    /// The certificate of the user's that it shows: its id and its name.
    pub sni_endpoint: Option<(SniEndpointId, String)>,
    /// How far the platform is with a certificate for it, and why no further; none if it shall get none.
    pub acm: Option<(AcmStatus, Option<String>)>,
    /// When and why its authority revoked the certificate that it shows, if it did.
    pub revoked: Option<String>,
    /// Since when.
    pub created_at: Timestamp,
    /// Last change.
    pub updated_at: Timestamp,
}

impl Controller {
    /// All host names of an app, the default one first.
    pub async fn domains(&self, app: &App) -> Result<Vec<AppDomain>, Error> {
        let own = self.store.domains(app.id).await?;
        let managed: Vec<bool> = own.iter().map(|domain| app.acm || domain.on_demand).collect();
        let mut custom: Vec<_> = own.iter().map(AppDomain::from).collect();
        if managed.contains(&true) {
            let orders = self.store.domain_orders(app.id).await?;
            let endpoints = self.store.sni_endpoints(app.id).await?;
            let got: Vec<_> = endpoints.into_iter().filter(|it| it.acm).map(|it| it.id).collect();
            for (domain, _) in custom.iter_mut().zip(managed).filter(|(_, is_managed)| *is_managed) {
                domain.acm = self.acm_of(domain, &orders, &got);
            }
        }
        if custom.iter().any(|domain| domain.sni_endpoint.is_some()) {
            let staples = self.store.staples(app.id).await?;
            for domain in &mut custom {
                let staple = domain.sni_endpoint.as_ref().and_then(|(id, _)| staples.get(id));
                let revoked = staple.filter(|staple| staple.status == StapleStatus::Revoked);
                domain.revoked = revoked.map(|staple| staple.reason.clone().unwrap_or_default());
            }
        }
        Ok(std::iter::once(self.default_domain(app)?).chain(custom).collect())
    }

    /// Adds a custom domain: a host, or a path of a host that is a domain of the same owner's, which the app may not see (`strip`).
    pub async fn add_domain(
        &self,
        app: &App,
        actor: &Actor,
        (address, strip): (&str, bool),
    ) -> Result<AppDomain, Error> {
        let place = self.check_place(address, strip)?;
        if place.path.is_some() {
            self.check_host_of(app, actor, &place).await?;
        }
        if self.store.domains(app.id).await?.len() >= MAX_DOMAINS {
            return Err(Error::Invalid(format!("An app can have at most {MAX_DOMAINS} domains")));
        }
        let now = self.clock.now();
        let id = DomainId::random(&*self.random);
        let domain =
            Domain { id, app: app.id, place, sni_endpoint: None, on_demand: false, created_at: now, updated_at: now };
        self.store.insert_domain(&domain, &self.stamp(actor)).await?;
        self.note(app, actor, &format!("Add domain {}", domain.place));
        self.begin_domain(&domain, &self.stamp(actor)).await?;
        self.find_domain(app, &domain.id.to_string()).await
    }

    /// Lets visitors come by a new domain, with a certificate that somebody brought or one that is to be got.
    pub(crate) async fn begin_domain(&self, domain: &Domain, stamp: &Stamp) -> Result<(), Error> {
        let shown = self.certificate_for(domain.app, &domain.place.host).await?;
        if let Some(endpoint) = shown.as_ref().filter(|_| domain.place.path.is_none()) {
            self.store.set_domain_certificate(domain, Some(endpoint), stamp).await?;
        }
        self.announce(domain.app).await;
        self.live.certificates_wanted.notify_one();
        Ok(())
    }

    /// The domain of an app that `reference`, a host name or an id, means.
    pub async fn find_domain(&self, app: &App, reference: &str) -> Result<AppDomain, Error> {
        // Of paths it matters how they are written.
        let (host, path) = split(reference);
        let reference = format!("{}{path}", host.to_ascii_lowercase());
        let named = |domain: &AppDomain| domain.id == reference || domain.place.to_string() == reference;
        self.domains(app).await?.into_iter().find(named).ok_or(Error::NotFound("domain"))
    }

    /// Takes a custom domain away.
    pub async fn remove_domain(&self, app: &App, actor: &Actor, domain: &AppDomain) -> Result<(), Error> {
        let id: Option<DomainId> = domain.id.parse().ok().filter(|_| domain.custom);
        let Some(id) = id else {
            return Err(Error::Invalid("The default domain follows the app's name and cannot be removed".to_owned()));
        };
        refuse(&self.store.paths_of_host(id).await?, NO_HOST)?;
        self.check_has_no_port(app, &domain.place).await?;
        let own = self.store.domains(app.id).await?.into_iter().find(|own| own.id == id);
        self.store.delete_domain(&own.ok_or(Error::NotFound("domain"))?, &self.stamp(actor)).await?;
        self.note(app, actor, &format!("Remove domain {}", domain.place));
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
        if own.place.path.is_some() {
            let (place, host) = (&own.place, &own.place.host);
            return Err(Error::Invalid(format!("{place} shows the certificate of the domain {host}: set it there")));
        }
        let endpoint = match certificate {
            Some(reference) => Some(self.find_certificate(app, reference).await?),
            None => None,
        };
        self.store.set_domain_certificate(&own, endpoint.as_ref(), &self.stamp(actor)).await?;
        self.note(app, actor, &format!("Update domain {}", domain.place));
        self.announce_certificates(app.id).await;
        self.find_domain(app, &domain.id).await
    }

    fn acm_of(
        &self,
        domain: &AppDomain,
        orders: &HashMap<DomainId, DomainOrder>,
        managed: &[SniEndpointId],
    ) -> Option<(AcmStatus, Option<String>)> {
        if domain.place.path.is_some() {
            return None;
        }
        // Whoever brought one needs none.
        if domain.sni_endpoint.as_ref().is_some_and(|(id, _)| !managed.contains(id)) {
            return Some((AcmStatus::Issued, Some("It shows the certificate that was brought for it".to_owned())));
        }
        Some(match domain.id.parse().ok().and_then(|id: DomainId| orders.get(&id)) {
            Some(order) => (order.status, order.reason.clone()),
            None => (AcmStatus::Pending, self.settings.acme.is_none().then(|| NO_ACM.to_owned())),
        })
    }

    fn default_domain(&self, app: &App) -> Result<AppDomain, Error> {
        Ok(AppDomain {
            id: app.id.to_string(),
            place: self.settings.default_host(&app.name).map_err(invalid)?.into(),
            custom: false,
            sni_endpoint: None,
            acm: None,
            revoked: None,
            created_at: app.created_at,
            updated_at: app.updated_at,
        })
    }

    /// A domain as somebody writes it. A path of a slash alone is none.
    fn check_place(&self, address: &str, strip: bool) -> Result<Place, Error> {
        let (host, path) = split(address);
        let host = self.check_hostname(host)?;
        let path: Option<PathPrefix> = match path.trim_end_matches('/') {
            "" => None,
            path => Some(path.parse().map_err(invalid)?),
        };
        if strip && path.is_none() {
            return Err(Error::Invalid(format!("strip takes a path off, and hostname {address:?} has none")));
        }
        Ok(Place { host, path, strip })
    }

    /// Whether an app may have a path of a host: whoever adds it may do with the host's app what they may do with this one, and both have one
    /// owner.
    async fn check_host_of(&self, app: &App, actor: &Actor, place: &Place) -> Result<(), Error> {
        let host = &place.host;
        let Some(domain) = self.store.domain_of_host(host).await? else {
            return Err(Error::Invalid(format!(
                "hostname {place} is a path of {host}, which is no domain yet: add that first, to the app that answers what is not below a \
                 path: platform domains:add {host}"
            )));
        };
        let other = self.store.app(domain.app).await?.ok_or(Error::NotFound("app"))?;
        match self.check_role(actor, &other, Role::Operate).await {
            Ok(_) if app.team == other.team && (app.team.is_some() || app.owner.id == other.owner.id) => Ok(()),
            Ok(_) => Err(Error::Invalid(format!(
                "hostname {place} is a path of {host}, the domain of {}, which belongs to {}: apps that share a host have one owner",
                other.name,
                other.owner_name()
            ))),
            Err(Error::Forbidden(why)) => Err(Error::Forbidden(why)),
            Err(Error::NotFound(_)) => Err(Error::Invalid(format!(
                "hostname {place} is a path of {host}, which is the domain of somebody else's app: apps that share a host have one owner"
            ))),
            Err(error) => Err(error),
        }
    }

    /// Refuses to take away hosts of which other apps answer paths.
    pub(crate) async fn check_hosts_are_free(&self, app: &App) -> Result<(), Error> {
        refuse(&self.store.paths_of_others(app.id).await?, NO_HOST)
    }

    /// Refuses that an app gets another owner while it shares a host.
    pub(crate) async fn check_shares_no_host(&self, app: &App) -> Result<(), Error> {
        refuse(&self.store.shared_paths(app.id).await?, "apps that share a host have one owner")
    }

    /// A host name that can be an app's own: not an address, and nothing under the platform's domain, where it could take
    /// over another app or the API.
    pub(crate) fn check_hostname(&self, hostname: &str) -> Result<Hostname, Error> {
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
            place: domain.place.clone(),
            custom: true,
            sni_endpoint: domain.sni_endpoint.clone(),
            acm: None,
            revoked: None,
            created_at: domain.created_at,
            updated_at: domain.updated_at,
        }
    }
}

/// Refuses what cannot be while there are these paths.
fn refuse(paths: &[(Place, AppName)], why: &str) -> Result<(), Error> {
    let Some((place, app)) = paths.first() else { return Ok(()) };
    let more = if paths.len() > 1 { format!(", one of {}", paths.len()) } else { String::new() };
    Err(Error::Conflict(format!(
        "{place} is a domain of {app}{more}, and {why}: remove it first (platform domains:remove {place} -a {app})"
    )))
}

/// The host and the path of an address.
fn split(address: &str) -> (&str, &str) {
    address.split_at(address.find('/').unwrap_or(address.len()))
}

#[expect(clippy::needless_pass_by_value, reason = "so that map_err can name it")]
fn invalid(rule: NameError) -> Error {
    Error::Invalid(format!("hostname is not valid: {rule}"))
}
