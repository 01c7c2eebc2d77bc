//! Which Debian package holds a PHP extension.

use std::collections::BTreeSet;

use super::PHP;

/// In PHP itself, or in a package that every PHP needs.
const BUILT_IN: [&str; 36] = [
    "calendar",
    "core",
    "ctype",
    "date",
    "exif",
    "ffi",
    "fileinfo",
    "filter",
    "ftp",
    "gettext",
    "hash",
    "iconv",
    "json",
    "libxml",
    "openssl",
    "pcntl",
    "pcre",
    "pdo",
    "phar",
    "posix",
    "random",
    "reflection",
    "session",
    "shmop",
    "sockets",
    "sodium",
    "spl",
    "standard",
    "sysvmsg",
    "sysvsem",
    "sysvshm",
    "tokenizer",
    "zlib",
    "zend-opcache",
    "opcache",
    "mysqlnd",
];

/// Extensions whose package is called otherwise.
const ELSEWHERE: [(&str, &str); 14] = [
    ("dom", "xml"),
    ("simplexml", "xml"),
    ("xmlreader", "xml"),
    ("xmlwriter", "xml"),
    ("xsl", "xml"),
    ("mysqli", "mysql"),
    ("pdo_mysql", "mysql"),
    ("pdo_pgsql", "pgsql"),
    ("pdo_sqlite", "sqlite3"),
    ("pdo_odbc", "odbc"),
    ("pdo_dblib", "sybase"),
    ("pdo_firebird", "interbase"),
    ("libsodium", "common"),
    ("zend opcache", "opcache"),
];

/// Extensions with a package of their own name.
const OWN: [&str; 50] = [
    "amqp",
    "apcu",
    "ast",
    "bcmath",
    "bz2",
    "curl",
    "dba",
    "ds",
    "enchant",
    "excimer",
    "gd",
    "gearman",
    "gmp",
    "gnupg",
    "http",
    "igbinary",
    "imagick",
    "intl",
    "ldap",
    "mailparse",
    "mbstring",
    "mcrypt",
    "memcache",
    "memcached",
    "mongodb",
    "msgpack",
    "oauth",
    "odbc",
    "pcov",
    "pgsql",
    "pspell",
    "raphf",
    "readline",
    "redis",
    "smbclient",
    "snmp",
    "soap",
    "sqlite3",
    "ssh2",
    "stomp",
    "tidy",
    "uuid",
    "xdebug",
    "xml",
    "xmlrpc",
    "yac",
    "yaml",
    "zip",
    "zmq",
    "zstd",
];

/// What Heroku's PHP has without being asked.
const USUAL: [&str; 8] = ["curl", "mbstring", "mysql", "opcache", "pgsql", "sqlite3", "xml", "zip"];

/// Whether an extension can be had.
pub(super) fn is_known(name: &str) -> bool {
    BUILT_IN.contains(&name) || part(name).is_some()
}

/// The package's own part of its name.
fn part(name: &str) -> Option<&str> {
    let elsewhere = ELSEWHERE.iter().find(|(extension, _)| *extension == name).map(|(_, package)| *package);
    elsewhere.or_else(|| OWN.into_iter().find(|own| *own == name))
}

/// The packages of these extensions and of what is usual, without those that cannot be had.
pub(super) fn packages<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let parts: BTreeSet<&str> = USUAL.into_iter().chain(names.filter_map(part)).collect();
    parts.into_iter().map(|part| format!("{PHP}-{part}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_are_found_in_debians_packages() {
        let found = packages(["pdo_mysql", "gd", "ctype", "simplexml", "no-such"].into_iter());
        assert!(found.contains(&"php8.4-gd".to_owned()) && found.contains(&"php8.4-mysql".to_owned()));
        assert!(!found.iter().any(|package| package.contains("ctype") || package.contains("no-such")), "{found:?}");
        assert!(is_known("ctype") && is_known("redis") && !is_known("no-such"));
    }
}
