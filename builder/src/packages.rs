//! The machine's package mirrors and CA certificates, on their way into stack and app builds.
//!
//! Behind a company's mirror every package manager is told about it once, on the machine: apt sources, `pip.conf`,
//! `.npmrc`, `GOPROXY`, a CA bundle. By default builds see the same ([`PackageSetting`]). What belongs to the machine only, a
//! folder of its own for instance, stays out. The files may hold passwords: copies for builds lie in a folder that only root
//! may enter, are mounted into builds and nowhere else, and never become part of an image.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs::{DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::trust_store;

/// Where a build finds the CA bundle: Debian's own place.
pub(crate) const CA_TARGET: &str = "/etc/ssl/certs/ca-certificates.crt";
/// Where Debian's Java looks; no variable tells it of another place.
pub(crate) const JAVA_CA_TARGET: &str = "/etc/ssl/certs/java/cacerts";
const PIP_TARGET: &str = "/etc/platform-packages/pip.conf";
const NPM_TARGET: &str = "/etc/platform-packages/npmrc";
/// cargo reads `.cargo/config.toml` of every parent folder of its working directory.
const CARGO_TARGET: &str = "/.cargo/config.toml";

/// Every program that must be told about the CA bundle, and how. They differ, so all are set.
const CA_VARIABLES: [&str; 9] = [
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "PIP_CERT",
    "NODE_EXTRA_CA_CERTS",
    "GIT_SSL_CAINFO",
    "CARGO_HTTP_CAINFO",
    "AWS_CA_BUNDLE",
    "NIX_SSL_CERT_FILE",
];

/// Variables that go into builds as they are, if the platform itself was started with them.
const PASSED_VARIABLES: [&str; 42] = [
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "all_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
    "PIP_INDEX_URL",
    "PIP_EXTRA_INDEX_URL",
    "PIP_TRUSTED_HOST",
    "PIP_DEFAULT_TIMEOUT",
    "PIP_RETRIES",
    "UV_DEFAULT_INDEX",
    "UV_INDEX",
    "UV_INDEX_URL",
    "UV_EXTRA_INDEX_URL",
    "UV_HTTP_TIMEOUT",
    "UV_INSECURE_HOST",
    "UV_PYTHON_INSTALL_MIRROR",
    "POETRY_PYPI_MIRROR_URL",
    "PIPENV_PYPI_MIRROR",
    "NPM_CONFIG_REGISTRY",
    "npm_config_registry",
    "YARN_NPM_REGISTRY_SERVER",
    "GOPROXY",
    "GOPRIVATE",
    "GONOPROXY",
    "GONOSUMDB",
    "GONOSUMCHECK",
    "GOSUMDB",
    "GOINSECURE",
    "GOFLAGS",
    "GOVCS",
    "GOAUTH",
    "BUNDLE_MIRROR__ALL",
    "COMPOSER_MIRROR",
    "HEX_BUILDS_URL",
    "HEX_MIRROR",
    "JDK_MIRROR",
    "MAVEN_SETTINGS_URL",
    "RUSTUP_DIST_SERVER",
];

/// How package managers that read neither `pip.conf` nor pip's variables are told about its index, and about further ones.
const PIP_INDEX: [&str; 3] = ["UV_DEFAULT_INDEX", "POETRY_PYPI_MIRROR_URL", "PIPENV_PYPI_MIRROR"];
const PIP_FURTHER_INDEX: [&str; 1] = ["UV_INDEX"];

/// Keys of an npmrc that say where packages come from and how to get there. The others (`prefix`, `nodedir`, `cache` …) are
/// about the machine that npm runs on.
const NPM_KEYS: [&str; 18] = [
    "registry",
    "ca",
    "strict-ssl",
    "proxy",
    "https-proxy",
    "http-proxy",
    "noproxy",
    "_auth",
    "_authToken",
    "_password",
    "username",
    "email",
    "always-auth",
    "fetch-retries",
    "fetch-timeout",
    "maxsockets",
    "replace-registry-host",
    "omit-lockfile-registry-resolved",
];

/// Tables of a cargo config that say where packages come from.
const CARGO_TABLES: [&str; 5] = ["source", "registries", "registry", "http", "net"];

/// The setting `packages`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "expected `host`, `none` or a table with `ca`, `pip`, `npm`, `cargo`, `apt` and `env`")]
pub enum PackageSetting {
    /// `"host"` or `"none"`.
    Named(NamedSetting),
    /// A table: exactly this, nothing from the machine.
    Given(GivenPackages),
}

/// The short forms of [`PackageSetting`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NamedSetting {
    /// Builds get the mirrors, proxies and certificates that this machine is configured with.
    Host,
    /// Builds get nothing: every package manager uses its own defaults.
    None,
}

/// The long form of [`PackageSetting`]: files to use in place of the machine's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GivenPackages {
    /// A bundle of CA certificates in PEM.
    pub ca: Option<PathBuf>,
    /// A `pip.conf`.
    pub pip: Option<PathBuf>,
    /// An `.npmrc`.
    pub npm: Option<PathBuf>,
    /// A cargo `config.toml`.
    pub cargo: Option<PathBuf>,
    /// Lines as in `/etc/apt/sources.list`, for the stack.
    pub apt: Vec<String>,
    /// Variables for every build: `https_proxy`, `GOPROXY`, …
    pub env: BTreeMap<String, String>,
}

impl Default for PackageSetting {
    fn default() -> Self {
        Self::Named(NamedSetting::Host)
    }
}

/// Why the machine's package settings could not be collected.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {path}, which the setting `packages` asks for")]
pub struct PackageError {
    /// `read`, `write`
    action: &'static str,
    /// Which file.
    path: PathBuf,
    /// What the system said.
    #[source]
    source: std::io::Error,
}

/// What builds get.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PackageAccess {
    /// Environment of every build; an app's config var of the same name wins.
    pub env: BTreeMap<String, String>,
    /// Files to mount read-only into builds: on this machine, and in the container. Every uid may read them.
    pub files: Vec<(PathBuf, PathBuf)>,
    /// For the stack.
    pub apt: AptAccess,
}

/// What the stack build tells apt.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AptAccess {
    /// Lines of a `sources.list`; empty means mmdebstrap's own default.
    pub sources: Vec<String>,
    /// Lines of an `apt.conf`.
    pub options: Vec<String>,
}

/// What the settings are read from.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Environment of the platform's own process.
    pub env: BTreeMap<String, String>,
    /// `/`, or a folder that stands for it in tests.
    pub root: PathBuf,
}

impl Machine {
    /// This one.
    pub fn here() -> Self {
        let env =
            std::env::vars_os().filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)));
        Self { env: env.collect(), root: PathBuf::from("/") }
    }

    fn path(&self, absolute: &str) -> PathBuf {
        self.root.join(absolute.trim_start_matches('/'))
    }

    fn home(&self) -> Option<PathBuf> {
        self.env.get("HOME").map(|home| self.path(home))
    }

    /// The first of these variables that names a file which exists.
    fn file_in(&self, variables: &[&str]) -> Option<PathBuf> {
        variables.iter().filter_map(|name| self.env.get(*name)).map(|path| self.path(path)).find(|path| path.is_file())
    }
}

impl PackageAccess {
    /// Collects what `setting` says, and writes the files for builds into `folder`, which must be the caller's own and survive
    /// as long as builds run; it is made again each time.
    pub fn collect(setting: &PackageSetting, machine: &Machine, folder: &Path) -> Result<Self, PackageError> {
        let found = match setting {
            PackageSetting::Named(NamedSetting::None) => Found::default(),
            PackageSetting::Named(NamedSetting::Host) => from_host(machine)?,
            PackageSetting::Given(given) => from_table(given)?,
        };
        found.write(folder)
    }
}

/// Contents, by the place where builds find them.
#[derive(Debug, Default)]
struct Found {
    env: BTreeMap<String, String>,
    files: BTreeMap<&'static str, Vec<u8>>,
    apt: AptAccess,
}

impl Found {
    fn new(env: BTreeMap<String, String>) -> Self {
        let mut found = Self { env, ..Self::default() };
        for (key, names) in [("PIP_INDEX_URL", PIP_INDEX.as_slice()), ("PIP_EXTRA_INDEX_URL", &PIP_FURTHER_INDEX)] {
            found.tell_others_of_pips(found.env.get(key).cloned().as_deref(), names);
        }
        found
    }

    fn add_ca(&mut self, bundle: String) {
        if let Some(store) = trust_store::from_pem(&bundle) {
            self.files.insert(JAVA_CA_TARGET, store);
        }
        self.files.insert(CA_TARGET, bundle.into_bytes());
        self.env.extend(CA_VARIABLES.iter().map(|name| ((*name).to_owned(), CA_TARGET.to_owned())));
    }

    /// pip reads this file after all others.
    fn add_pip(&mut self, config: &str) {
        for (key, names) in [("index-url", PIP_INDEX.as_slice()), ("extra-index-url", &PIP_FURTHER_INDEX)] {
            self.tell_others_of_pips(ini_value(config, key).as_deref(), names);
        }
        self.files.insert(PIP_TARGET, config.as_bytes().to_owned());
        self.env.insert("PIP_CONFIG_FILE".to_owned(), PIP_TARGET.to_owned());
    }

    fn tell_others_of_pips(&mut self, index: Option<&str>, names: &[&str]) {
        let Some(index) = index else { return };
        for name in names {
            self.env.entry((*name).to_owned()).or_insert_with(|| index.to_owned());
        }
    }

    fn add_npm(&mut self, config: &str) {
        self.files.insert(NPM_TARGET, config.as_bytes().to_owned());
        // The least of npm's files, so that an app's own .npmrc wins.
        self.env.insert("NPM_CONFIG_GLOBALCONFIG".to_owned(), NPM_TARGET.to_owned());
    }

    fn write(self, folder: &Path) -> Result<PackageAccess, PackageError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| PackageError { action: "write", path, source }
        };
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed(folder))?;
        std::fs::set_permissions(folder, Permissions::from_mode(0o700)).map_err(failed(folder))?;
        let mut files = Vec::new();
        for (target, content) in self.files {
            let source = folder.join(target.trim_start_matches('/').replace('/', "_"));
            // Beside and renamed: a build that runs has the old one mounted.
            let fresh = source.with_extension("new");
            std::fs::write(&fresh, content).map_err(failed(&fresh))?;
            std::fs::set_permissions(&fresh, Permissions::from_mode(0o444)).map_err(failed(&fresh))?;
            std::fs::rename(&fresh, &source).map_err(failed(&source))?;
            files.push((source, PathBuf::from(target)));
        }
        Ok(PackageAccess { env: self.env, files, apt: self.apt })
    }
}

fn from_host(machine: &Machine) -> Result<Found, PackageError> {
    let passed = PASSED_VARIABLES.iter().filter_map(|name| machine.env.get_key_value(*name));
    let mut found = Found::new(passed.map(|(key, value)| (key.clone(), value.clone())).collect());
    let system_bundle = [CA_TARGET, "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem"];
    let mut bundles = system_bundle.iter().map(|path| machine.path(path));
    if let Some(bundle) = machine.file_in(&CA_VARIABLES).or_else(|| bundles.find(|path| path.is_file())) {
        found.add_ca(read(&bundle)?);
    }
    let mut pip = vec![machine.path("/etc/xdg/pip/pip.conf"), machine.path("/etc/pip.conf")];
    let mut npm = vec![machine.path("/etc/npmrc"), machine.path("/usr/etc/npmrc")];
    let mut cargo = Vec::new();
    let mut go = Vec::new();
    if let Some(home) = machine.home() {
        pip.extend([home.join(".pip/pip.conf"), home.join(".config/pip/pip.conf")]);
        npm.push(home.join(".npmrc"));
        cargo.push(home.join(".cargo/config.toml"));
        go.push(home.join(".config/go/env"));
    }
    pip.extend(machine.file_in(&["PIP_CONFIG_FILE"]));
    npm.extend(machine.file_in(&["NPM_CONFIG_USERCONFIG", "npm_config_userconfig"]));
    let pip = read_all(&pip)?;
    if !pip.is_empty() {
        found.add_pip(&pip_config(&pip));
    }
    let npm = npm_config(&read_all(&npm)?);
    if !npm.is_empty() {
        found.add_npm(&npm);
    }
    if let Some(cargo) = cargo_config(&read_all(&cargo)?) {
        found.files.insert(CARGO_TARGET, cargo.into_bytes());
    }
    for (key, value) in read_all(&go)?.lines().filter_map(|line| line.split_once('=')) {
        if PASSED_VARIABLES.contains(&key) {
            found.env.entry(key.to_owned()).or_insert_with(|| value.to_owned());
        }
    }
    found.apt = crate::apt::from_host(machine);
    Ok(found)
}

fn from_table(given: &GivenPackages) -> Result<Found, PackageError> {
    let mut found = Found::new(given.env.clone());
    if let Some(path) = &given.ca {
        found.add_ca(read(path)?);
    }
    if let Some(path) = &given.pip {
        found.add_pip(&read(path)?);
    }
    if let Some(path) = &given.npm {
        found.add_npm(&read(path)?);
    }
    if let Some(path) = &given.cargo {
        found.files.insert(CARGO_TARGET, read(path)?.into_bytes());
    }
    found.apt.sources.clone_from(&given.apt);
    Ok(found)
}

/// One pip.conf of several: a later line wins, as with pip's own order of files. Its `cert` is a path of this machine; builds
/// have `PIP_CERT`, and a folder of packages is not there in a build.
fn pip_config(all: &str) -> String {
    let is_path = |line: &str| {
        line.split_once(['=', ':']).is_some_and(|(key, value)| match key.trim().replace('_', "-").as_str() {
            "cert" | "client-cert" | "cache-dir" | "log" | "target" | "prefix" => true,
            "find-links" => value.trim().starts_with('/'),
            _ => false,
        })
    };
    let mut sections: BTreeMap<&str, BTreeMap<String, String>> = BTreeMap::new();
    let (mut section, mut last_key) = ("[global]", None);
    for line in all.lines().filter(|line| !line.trim_start().starts_with(['#', ';']) && !is_path(line)) {
        if line.starts_with('[') {
            (section, last_key) = (line.trim(), None);
        } else if line.starts_with(char::is_whitespace) {
            // More of the value above.
            if let Some(value) = last_key.as_ref().and_then(|key| sections.get_mut(section)?.get_mut(key)) {
                let _ = write!(value, "\n {}", line.trim());
            }
        } else if let Some((key, value)) = line.split_once(['=', ':']) {
            let key = key.trim().replace('_', "-");
            sections.entry(section).or_default().insert(key.clone(), value.trim().to_owned());
            last_key = Some(key);
        }
    }
    let mut text = String::new();
    for (section, values) in sections {
        let _ = writeln!(text, "{section}");
        for (key, value) in values {
            let _ = writeln!(text, "{key} = {value}");
        }
    }
    text
}

fn ini_value(config: &str, wanted: &str) -> Option<String> {
    let lines = config.lines().filter_map(|line| line.split_once('='));
    lines.filter(|(key, _)| key.trim() == wanted).map(|(_, value)| value.trim().to_owned()).next_back()
}

/// The lines of npmrc files that are of use in a build. npm takes the last of several, so the order of files is kept.
fn npm_config(all: &str) -> String {
    let mut text = String::new();
    for line in all.lines() {
        let Some((key, _)) = line.split_once('=') else { continue };
        let key = key.trim();
        if key.starts_with("//") || key.starts_with('@') || NPM_KEYS.contains(&key.trim_end_matches("[]")) {
            let _ = writeln!(text, "{}", line.trim());
        }
    }
    text
}

fn cargo_config(text: &str) -> Option<String> {
    let mut table: toml::Table = text.parse().ok()?;
    table.retain(|key, _| CARGO_TABLES.contains(&key));
    if let Some(http) = table.get_mut("http").and_then(toml::Value::as_table_mut) {
        // A path of this machine; builds have CARGO_HTTP_CAINFO.
        http.remove("cainfo");
    }
    if table.is_empty() { None } else { Some(table.to_string()) }
}

fn read(path: &Path) -> Result<String, PackageError> {
    std::fs::read_to_string(path).map_err(|source| PackageError { action: "read", path: path.to_owned(), source })
}

/// Those of the files that exist, one after the other.
fn read_all(paths: &[PathBuf]) -> Result<String, PackageError> {
    let mut all = String::new();
    for path in paths.iter().filter(|path| path.is_file()) {
        all.push_str(&read(path)?);
        all.push('\n');
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine whose file system is `folder`, with these files.
    fn machine(folder: &Path, files: &[(&str, &str)], env: &[(&str, &str)]) -> Machine {
        for (path, content) in files {
            let path = folder.join(path.trim_start_matches('/'));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        let env = env.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Machine { env, root: folder.to_owned() }
    }

    fn content<'a>(access: &'a PackageAccess, target: &str) -> Option<String> {
        let is_wanted = |file: &&'a (PathBuf, PathBuf)| file.1 == Path::new(target);
        access.files.iter().find(is_wanted).map(|(source, _)| std::fs::read_to_string(source).unwrap())
    }

    #[test]
    fn the_machines_mirrors_reach_builds() {
        let folder = tempfile::tempdir().unwrap();
        let machine = machine(
            &folder.path().join("root"),
            &[
                ("/company/ca.pem", "CERTIFICATES"),
                ("/etc/pip.conf", "[global]\nindex-url = https://old/simple\ncert = /company/ca.pem\ntimeout = 60\n"),
                ("/root/.config/pip/pip.conf", "# mine\n[global]\nindex_url = https://pip.company/simple\n"),
                (
                    "/root/.npmrc",
                    "registry=https://npm.company/\n//npm.company/:_authToken=s3cret\nnodedir=/usr\nprefix=/x\n@us:registry=https://us/\n",
                ),
                ("/root/.cargo/config.toml", "[source.crates-io]\nreplace-with = \"company\"\n[build]\njobs = 1\n"),
                ("/root/.config/go/env", "GOPROXY=https://go.company\nGOBIN=/root/bin\n"),
            ],
            &[
                ("HOME", "/root"),
                ("SSL_CERT_FILE", "/company/ca.pem"),
                ("https_proxy", "http://proxy:3128"),
                ("SECRET", "x"),
            ],
        );
        let access =
            PackageAccess::collect(&PackageSetting::default(), &machine, &folder.path().join("packages")).unwrap();

        assert_eq!(content(&access, CA_TARGET).unwrap(), "CERTIFICATES");
        assert_eq!(access.env["NODE_EXTRA_CA_CERTS"], CA_TARGET);
        assert_eq!(
            content(&access, PIP_TARGET).unwrap(),
            "[global]\nindex-url = https://pip.company/simple\ntimeout = 60\n"
        );
        for name in PIP_INDEX {
            assert_eq!(access.env[name], "https://pip.company/simple");
        }
        let npm = "registry=https://npm.company/\n//npm.company/:_authToken=s3cret\n@us:registry=https://us/\n";
        assert_eq!(content(&access, NPM_TARGET).unwrap(), npm);
        assert_eq!(content(&access, CARGO_TARGET).unwrap(), "[source.crates-io]\nreplace-with = \"company\"\n");
        assert_eq!(access.env["GOPROXY"], "https://go.company");
        assert_eq!(access.env["https_proxy"], "http://proxy:3128");
        assert!(!access.env.contains_key("SECRET") && !access.env.contains_key("GOBIN"));
    }

    #[test]
    fn only_root_can_reach_the_copies_on_the_machine_but_every_uid_can_read_them_in_a_build() {
        let folder = tempfile::tempdir().unwrap();
        let machine =
            machine(&folder.path().join("root"), &[("/root/.npmrc", "_authToken=s3cret\n")], &[("HOME", "/root")]);
        let packages = folder.path().join("packages");
        let access = PackageAccess::collect(&PackageSetting::default(), &machine, &packages).unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&packages), 0o700);
        assert_eq!(mode(&access.files[0].0), 0o444);
    }

    #[test]
    fn none_gives_nothing_and_a_table_exactly_what_it_says() {
        let folder = tempfile::tempdir().unwrap();
        let machine = machine(
            &folder.path().join("root"),
            &[("/etc/pip.conf", "[global]\ntimeout = 1\n"), ("/given.pem", "GIVEN")],
            &[("GOPROXY", "https://go.company")],
        );
        let collect = |setting| PackageAccess::collect(&setting, &machine, &folder.path().join("packages")).unwrap();
        let none = collect(PackageSetting::Named(NamedSetting::None));
        assert_eq!(none, PackageAccess::default());
        let given = GivenPackages { ca: Some(machine.path("/given.pem")), ..GivenPackages::default() };
        let given = collect(PackageSetting::Given(given));
        assert_eq!(content(&given, CA_TARGET).unwrap(), "GIVEN");
        assert_eq!(given.files.len(), 1);
        let index =
            [("PIP_INDEX_URL", "https://pip.company/simple"), ("UV_DEFAULT_INDEX", "https://uv.company/simple")];
        let env = index.map(|(name, url)| (name.to_owned(), url.to_owned())).into();
        let given = collect(PackageSetting::Given(GivenPackages { env, ..GivenPackages::default() }));
        assert_eq!(given.env["POETRY_PYPI_MIRROR_URL"], "https://pip.company/simple");
        assert_eq!(given.env["UV_DEFAULT_INDEX"], "https://uv.company/simple");
    }

    #[test]
    fn a_file_that_the_setting_names_and_nobody_can_read_is_an_error_that_says_so() {
        let given = GivenPackages { ca: Some("/nowhere/ca.pem".into()), ..GivenPackages::default() };
        let folder = tempfile::tempdir().unwrap();
        let machine = machine(folder.path(), &[], &[]);
        let error = PackageAccess::collect(&PackageSetting::Given(given), &machine, folder.path()).unwrap_err();
        assert_eq!(error.to_string(), "cannot read /nowhere/ca.pem, which the setting `packages` asks for");
    }
}
