//! `certs` and its kin: certificates for the domains of an app.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::client::{self, Client, Domain};
use crate::context::{self, AppArg, Context};
use crate::error::{CliError, Result};
use crate::output;

/// A certificate, as far as it is printed.
#[derive(Debug, Deserialize)]
struct Endpoint {
    name: String,
    domains: Vec<String>,
    ssl_cert: Certificate,
    ocsp: Ocsp,
    created_at: String,
}

/// What its authority says of a certificate by now.
#[derive(Debug, Deserialize)]
struct Ocsp {
    status: String,
    reason: Option<String>,
    expires_at: Option<String>,
    must_staple: bool,
}

impl std::fmt::Display for Ocsp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.status)?;
        if let Some(until) = &self.expires_at {
            write!(f, ", shown until {until}")?;
        }
        self.reason.as_ref().map_or(Ok(()), |reason| write!(f, ": {reason}"))
    }
}

/// What a certificate says of itself.
#[derive(Debug, Deserialize)]
struct Certificate {
    cert_domains: Vec<String>,
    issuer: String,
    subject: String,
    starts_at: String,
    expires_at: String,
}

/// List the certificates of an app
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform certs
  $ platform certs -a my-app --json")]
pub(crate) struct List {
    #[command(flatten)]
    app: AppArg,
}

impl List {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let endpoints = client.list(&["apps", &name, "sni-endpoints"])?;
        cx.show_list(&endpoints, |out, endpoints: Vec<Endpoint>| {
            let row = |endpoint: Endpoint| {
                let certificate = endpoint.ssl_cert;
                let domains = certificate.cert_domains.join(", ");
                let uses = endpoint.domains.len().to_string();
                vec![endpoint.name.into(), domains.into(), certificate.expires_at.into(), uses.into()]
            };
            let empty = format!("{name} has no certificates. Bring one with `platform certs:add CERT KEY`.");
            out.table(
                &["Certificate", "For", "Expires", "Domains that show it"],
                endpoints.into_iter().map(row).collect(),
                &empty,
            )
        })
    }
}

/// Bring a certificate for domains of an app
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform certs:add fullchain.pem privkey.pem -a my-app")]
pub(crate) struct Add {
    #[command(flatten)]
    files: Pem,
    #[command(flatten)]
    app: AppArg,
}

/// A certificate and its key.
#[derive(Debug, Args)]
pub(crate) struct Pem {
    /// The certificate in PEM, followed by those of its issuers
    certificate: PathBuf,
    /// Its private key in PEM, without a passphrase
    key: PathBuf,
}

impl Pem {
    fn read(&self) -> Result<Value> {
        let read = |path: &Path| {
            std::fs::read_to_string(path)
                .map_err(|error| CliError::usage(format!("Cannot read {}", path.display())).because(&error))
        };
        Ok(json!({ "certificate_chain": read(&self.certificate)?, "private_key": read(&self.key)? }))
    }
}

impl Add {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let content = self.files.read()?;
        let (client, name) = cx.app(&self.app)?;
        let add = || client.post(&["apps", &name, "sni-endpoints"], &content);
        let made = cx.out.step(&format!("Adding a certificate to {name}"), add)?;
        show(cx, &client, &name, &made)
    }
}

/// Replace a certificate, for instance before it expires
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform certs:update fullchain.pem privkey.pem -a my-app
  $ platform certs:update fullchain.pem privkey.pem --name tyrannosaurus-12345")]
pub(crate) struct Update {
    #[command(flatten)]
    files: Pem,
    /// Which; needed if there are several
    #[arg(long, visible_alias = "endpoint")]
    name: Option<String>,
    #[command(flatten)]
    app: AppArg,
}

impl Update {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let content = self.files.read()?;
        let (client, app) = cx.app(&self.app)?;
        let endpoint = one(&client, &app, self.name)?;
        let update = || client.patch(&["apps", &app, "sni-endpoints", &endpoint], &content);
        let changed = cx.out.step(&format!("Replacing {endpoint} of {app}"), update)?;
        show(cx, &client, &app, &changed)
    }
}

/// Show one certificate of an app
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform certs:info
  $ platform certs:info --name tyrannosaurus-12345 -a my-app")]
pub(crate) struct Info {
    /// Which; needed if there are several
    #[arg(long, visible_alias = "endpoint")]
    name: Option<String>,
    #[command(flatten)]
    app: AppArg,
}

impl Info {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, app) = cx.app(&self.app)?;
        let endpoint = one(&client, &app, self.name)?;
        show(cx, &client, &app, &client.get(&["apps", &app, "sni-endpoints", &endpoint])?)
    }
}

/// Remove a certificate from an app
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform certs:remove -a my-app
  $ platform certs:remove --name tyrannosaurus-12345 -a my-app --confirm my-app")]
pub(crate) struct Remove {
    /// Which; needed if there are several
    #[arg(long, visible_alias = "endpoint")]
    name: Option<String>,
    /// The app's name again, instead of being asked for it
    #[arg(long, short, value_name = "APP")]
    confirm: Option<String>,
    #[command(flatten)]
    app: AppArg,
}

impl Remove {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, app) = cx.app(&self.app)?;
        let endpoint = one(&client, &app, self.name)?;
        let what = format!("This removes the certificate {endpoint}; browsers then warn of its domains.");
        let command = format!("platform certs:remove --name {endpoint} -a {app} --confirm {app}");
        context::confirm(&app, self.confirm, (&what, &command))?;
        let remove = || client.delete(&["apps", &app, "sni-endpoints", &endpoint]);
        cx.done(&cx.out.step(&format!("Removing {endpoint} from {app}"), remove)?)
    }
}

/// The name of the certificate that is meant.
fn one(client: &Client, app: &str, name: Option<String>) -> Result<String> {
    if let Some(name) = name {
        return Ok(name);
    }
    let mut there: Vec<Endpoint> = client::typed(&client.list(&["apps", app, "sni-endpoints"])?)?;
    match (there.pop(), there.is_empty()) {
        (Some(only), true) => Ok(only.name),
        (None, _) => Err(CliError::failed(format!("{app} has no certificates"))),
        (Some(_), false) => Err(CliError::usage(format!("{app} has more than one certificate"))
            .hint("Name one with --name; `platform certs` lists them.")),
    }
}

fn show(cx: &Context, client: &Client, app: &str, value: &Value) -> Result<()> {
    cx.show(value, |out| {
        let endpoint: Endpoint = client::typed(value)?;
        let domains: Vec<Domain> = client::typed(&client.list(&["apps", app, "domains"])?)?;
        let certificate = endpoint.ssl_cert;
        out.heading(&endpoint.name)?;
        out.pairs([
            ("For", certificate.cert_domains.join(", ").into()),
            ("Subject", certificate.subject.into()),
            ("Issuer", certificate.issuer.into()),
            ("Starts", certificate.starts_at.into()),
            ("Expires", certificate.expires_at.into()),
            ("OCSP", endpoint.ocsp.to_string().into()),
            ("Added", output::when(&endpoint.created_at, context::now()).into()),
        ])?;
        let covered = endpoint.domains.len();
        if covered == 0 && domains.iter().any(|domain| domain.kind == "custom") {
            out.note("No domain of the app shows it: the names in it are not among `platform domains`.");
        }
        if endpoint.ocsp.must_staple && endpoint.ocsp.expires_at.is_none() && endpoint.ocsp.status != "pending" {
            out.note("It must be shown with an OCSP answer of its authority (must-staple), and there is none: browsers may refuse it.");
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_authority_says_is_one_line() {
        let said = |text| serde_json::from_str::<Ocsp>(text).expect("readable").to_string();
        let until = "2026-11-23T10:00:00Z";
        let good = format!(r#"{{"status":"good","reason":null,"expires_at":"{until}","must_staple":false}}"#);
        assert_eq!(said(&good), format!("good, shown until {until}"));
        let revoked = r#"{"status":"revoked","reason":"revoked since then","expires_at":null,"must_staple":true}"#;
        assert_eq!(said(revoked), "revoked: revoked since then");
    }
}
