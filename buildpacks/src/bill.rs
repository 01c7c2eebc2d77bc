//! Bills of materials: what was installed, by name and version, as `CycloneDX` documents (Buildpack spec,
//! "Software-Bill-of-Materials").
//!
//! A bill says what is there, not what a lock file would allow: packages of other systems and of development are not in it. A layer
//! that the next build keeps keeps its bill, too, so an unchanged app is not looked through again. Nothing in a bill is of the
//! moment (no time, no serial number): the same commit always has the same.

use std::collections::BTreeSet;

use libcnb::data::sbom::SbomFormat;
use libcnb::sbom::Sbom;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

/// What stands for itself in an address of a package (purl spec, "Character encoding").
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'.').remove(b'-').remove(b'_').remove(b'~');

/// What a layer, or the app's own folder, has in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Bill(BTreeSet<Component>);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Component {
    name: String,
    version: String,
    registry: Registry,
}

/// Where a package is from, as its address says it (purl spec, "Known types").
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Registry {
    Cargo,
    Composer,
    Gem,
    Golang,
    Hex,
    Jsr,
    Maven,
    Npm,
    Pypi,
    /// None: what runs the app.
    Runtime,
}

impl Registry {
    fn purl_type(self) -> &'static str {
        match self {
            Self::Cargo => "cargo",
            Self::Composer => "composer",
            Self::Gem => "gem",
            Self::Golang => "golang",
            Self::Hex => "hex",
            Self::Jsr => "jsr",
            Self::Maven => "maven",
            Self::Npm => "npm",
            Self::Pypi => "pypi",
            Self::Runtime => "generic",
        }
    }
}

impl Bill {
    /// Packages of one registry, as pairs of name and version.
    pub(crate) fn of(registry: Registry, packages: impl IntoIterator<Item = (String, String)>) -> Self {
        Self(packages.into_iter().map(|(name, version)| Component { name, version, registry }).collect())
    }

    /// Adds what runs the app.
    pub(crate) fn with_runtime(self, name: &str, version: &str) -> Self {
        self.with(Self::of(Registry::Runtime, [(name.to_owned(), version.to_owned())]))
    }

    /// Adds all of another bill.
    pub(crate) fn with(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The document.
    pub(crate) fn to_sbom(&self) -> Sbom {
        let components: Vec<Value> = self.0.iter().map(Component::to_json).collect();
        let document =
            json!({ "bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1, "components": components });
        Sbom::from_bytes(SbomFormat::CycloneDxJson, document.to_string())
    }
}

impl Component {
    fn to_json(&self) -> Value {
        let Self { name, version, registry } = self;
        let kind = if *registry == Registry::Runtime { "platform" } else { "library" };
        let path: Vec<String> = name.split('/').map(encoded).collect();
        let purl = format!("pkg:{}/{}@{}", registry.purl_type(), path.join("/"), encoded(version));
        json!({ "type": kind, "name": name, "version": version, "purl": purl })
    }
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, PLAIN).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bill_is_in_the_same_order_however_it_was_found_and_names_every_package_by_its_address() {
        let pair = |name: &str, version: &str| (name.to_owned(), version.to_owned());
        let found = [pair("left-pad", "1.3.0"), pair("@scope/a", "2.0.0-rc.1+b"), pair("left-pad", "1.3.0")];
        let bill = Bill::of(Registry::Npm, found.clone()).with_runtime("node", "24.1.0");
        let document = String::from_utf8(bill.to_sbom().data).unwrap();
        insta::assert_snapshot!(document, @r#"{"bomFormat":"CycloneDX","components":[{"name":"@scope/a","purl":"pkg:npm/%40scope/a@2.0.0-rc.1%2Bb","type":"library","version":"2.0.0-rc.1+b"},{"name":"left-pad","purl":"pkg:npm/left-pad@1.3.0","type":"library","version":"1.3.0"},{"name":"node","purl":"pkg:generic/node@24.1.0","type":"platform","version":"24.1.0"}],"specVersion":"1.5","version":1}"#);
        let reversed =
            Bill::default().with_runtime("node", "24.1.0").with(Bill::of(Registry::Npm, found.into_iter().rev()));
        assert_eq!(reversed, bill);
        assert!(Bill::default().is_empty() && !bill.is_empty());
    }
}
