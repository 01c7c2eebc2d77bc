//! The machine's mirrors, proxies and certificates, for the steps of a Dockerfile: where they see them and the image never has them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::io;
use std::path::Path;

use crate::packages::{AptAccess, CA_TARGET, JAVA_CA_TARGET, PackageAccess};

/// Every step sees `/dev` of the container that it runs in, and no layer holds anything of that.
pub(super) const PLACE: &str = "/dev/platform";
const APT: &str = "apt.conf";
/// Options of apt that name files of the machine.
const OF_THE_MACHINE: [&str; 4] = ["CaInfo", "CaPath", "SslCert", "SslKey"];

/// Copies the files into `folder`, which steps see at [`PLACE`], and says what variables tell programs of them.
pub(super) fn lay_out(access: &PackageAccess, folder: &Path) -> io::Result<BTreeMap<String, String>> {
    let mut env = access.env.clone();
    for (source, target) in &access.files {
        let Some(name) = target.file_name() else { continue };
        fs::copy(source, folder.join(name))?;
        let place = Path::new(PLACE).join(name).display().to_string();
        for value in env.values_mut().filter(|value| Path::new(value.as_str()) == target) {
            value.clone_from(&place);
        }
        if target == Path::new(JAVA_CA_TARGET) {
            // Its own place is within the image.
            env.insert("JAVA_TOOL_OPTIONS".to_owned(), format!("-Djavax.net.ssl.trustStore={place}"));
        }
    }
    let has_ca = access.files.iter().any(|(_, target)| target == Path::new(CA_TARGET));
    let apt = apt(&access.apt, has_ca);
    if !apt.is_empty() {
        fs::write(folder.join(APT), apt)?;
        env.insert("APT_CONFIG".to_owned(), format!("{PLACE}/{APT}"));
    }
    Ok(env)
}

/// How to reach mirrors. Which ones there are is for the base image to say: it may be of any distribution.
fn apt(access: &AptAccess, has_ca: bool) -> String {
    let is_ours = |line: &&String| !OF_THE_MACHINE.iter().any(|name| line.contains(name));
    let mut text: String = access.options.iter().filter(is_ours).flat_map(|line| [line, "\n"]).collect();
    if has_ca {
        let name = Path::new(CA_TARGET).file_name().unwrap_or_default().display();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "Acquire::https::CaInfo \"{PLACE}/{name}\";");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::listing;

    #[test]
    fn every_program_is_told_of_the_copies_and_of_nothing_of_the_machine() {
        let dir = tempfile::tempdir().unwrap();
        let (machine, folder) = (dir.path().join("machine"), dir.path().join("folder"));
        fs::create_dir(&machine).unwrap();
        fs::create_dir(&folder).unwrap();
        let file = |name: &str, target: &str| {
            fs::write(machine.join(name), name).unwrap();
            (machine.join(name), target.into())
        };
        let options =
            ["Acquire::http::Proxy \"http://p:1\";", "Acquire::https::m.company::CaInfo \"/company/ca.pem\";"];
        let access = PackageAccess {
            env: [("SSL_CERT_FILE", CA_TARGET), ("PIP_CONFIG_FILE", "/etc/p/pip.conf"), ("https_proxy", "http://p:1")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            files: vec![file("ca", CA_TARGET), file("java", JAVA_CA_TARGET), file("pip", "/etc/p/pip.conf")],
            apt: AptAccess { sources: Vec::new(), options: options.map(str::to_owned).into() },
        };
        let env = lay_out(&access, &folder).unwrap();
        let text: Vec<_> = env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        insta::assert_snapshot!(text.join("\n"), @r"
        APT_CONFIG=/dev/platform/apt.conf
        JAVA_TOOL_OPTIONS=-Djavax.net.ssl.trustStore=/dev/platform/cacerts
        PIP_CONFIG_FILE=/dev/platform/pip.conf
        SSL_CERT_FILE=/dev/platform/ca-certificates.crt
        https_proxy=http://p:1
        ");
        insta::assert_snapshot!(listing(&folder), @r#"
        apt.conf Acquire::http::Proxy "http://p:1";
        Acquire::https::CaInfo "/dev/platform/ca-certificates.crt";

        ca-certificates.crt ca
        cacerts java
        pip.conf pip
        "#);

        let none = lay_out(&PackageAccess::default(), &folder).unwrap();
        assert!(none.is_empty(), "{none:?}");
    }
}
