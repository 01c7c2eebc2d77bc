//! A service that somebody else runs: only its URL is known.

use std::collections::BTreeMap;

use model::Random;
use url::Url;

use super::kind::{Credentials, Kind, Plan, credential, environment};
use crate::Error;

pub(super) struct External;

impl Kind for External {
    fn slug(&self) -> &'static str {
        "external"
    }

    fn human_name(&self) -> &'static str {
        "External service"
    }

    fn plans(&self) -> &'static [Plan] {
        &[Plan { name: "url", description: "A service outside of the platform", memory_mib: 0, cpu_millis: 0 }]
    }

    fn attachment(&self) -> &'static str {
        "EXTERNAL"
    }

    fn check(&self, config: &BTreeMap<String, String>) -> Result<(), Error> {
        url(config).map(drop)
    }

    fn credentials(&self, config: &BTreeMap<String, String>, _: &dyn Random) -> Result<Credentials, Error> {
        Ok(environment([("url", url(config)?)]))
    }

    fn vars(&self, _: &str, credentials: &Credentials) -> Vec<(&'static str, String)> {
        vec![("URL", credential(credentials, "url").to_owned())]
    }
}

fn url(config: &BTreeMap<String, String>) -> Result<&str, Error> {
    let url = config.get("url").ok_or_else(|| Error::Invalid("config must have the service's url".to_owned()))?;
    if url.contains('\0') || Url::parse(url).is_err() {
        return Err(Error::Invalid("url must be a URL such as mysql://user:password@host/database".to_owned()));
    }
    Ok(url)
}
