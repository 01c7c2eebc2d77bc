//! Tells routers which host shows which certificate. They get the keys over a socket that only root may use.

use std::collections::BTreeMap;

use model::AppId;
use model::certificate::{AppCertificates, Challenge, HostCertificate, PrivateKey};

use crate::errors::chain;
use crate::store::DomainCertificate;
use crate::{Controller, Error};

impl Controller {
    /// Tells routers of the certificates of all apps, before anything else is done.
    pub(crate) async fn publish_all_certificates(&self) -> Result<(), Error> {
        let _turn = self.live.certifying.lock().await;
        let mut of_apps: BTreeMap<AppId, Vec<DomainCertificate>> = BTreeMap::new();
        for shown in self.store.shown_certificates(None).await? {
            of_apps.entry(shown.app).or_default().push(shown);
        }
        let rows = of_apps.into_iter().map(|(app, shown)| (app, row(shown, Vec::new()))).collect();
        self.live.certificates.publish(&rows);
        Ok(())
    }

    /// Tells routers of the certificates of an app as they are in the store now.
    pub(crate) async fn publish_certificates(&self, app: AppId) -> Result<(), Error> {
        let _turn = self.live.certifying.lock().await;
        let challenges = self.live.challenges.lock().get(&app).cloned().unwrap_or_default();
        let row = row(self.store.shown_certificates(Some(app)).await?, challenges);
        self.live.certificates.set(&app, (row != AppCertificates::default()).then_some(row));
        Ok(())
    }

    /// Tells routers of a committed change of an app's certificates, which they show when this returns.
    pub(crate) async fn announce_certificates(&self, app: AppId) {
        let published = self.publish_certificates(app).await;
        self.live.staples_wanted.notify_one();
        match published {
            Ok(()) => {
                let certificates = &self.live.certificates;
                let patience = *self.live.router_patience.lock();
                certificates.served(certificates.version(), patience).await;
            }
            // The change is made all the same; the next controller tells of it when it starts.
            Err(error) => tracing::warn!(error = chain(&error), "Routers could not be told of a certificate"),
        }
    }
}

/// Each certificate once, with all that show it. One whose key cannot be opened is left out: that concerns only its own hosts.
fn row(shown: Vec<DomainCertificate>, challenges: Vec<Challenge>) -> AppCertificates {
    let mut certificates = BTreeMap::new();
    for DomainCertificate { endpoint, hostname, chain, key, staple, .. } in shown {
        match key {
            Ok(key) => {
                let new = || HostCertificate { hosts: Vec::new(), chain, key: PrivateKey(key), staple };
                certificates.entry(endpoint.to_string()).or_insert_with(new).hosts.push(hostname);
            }
            Err(error) => {
                let error = crate::errors::chain(&error);
                tracing::error!(domain.name = %hostname, error, "The key of a certificate cannot be opened");
            }
        }
    }
    AppCertificates { certificates: certificates.into_values().collect(), challenges }
}
