//! A PostgreSQL server for the tests of this process, and a database in it for each of them.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::{AnyConnection, Connection};

/// Ends with the process that holds its standard input, however that one ends, and leaves nothing behind.
const GUARDIAN: &str = r#"
set -e
cd "$1"
trap 'pg_ctl -s -D data -m immediate stop; cd /; rm -rf "$1"' EXIT
initdb -D data -U postgres --auth=trust --no-sync --locale=C -E UTF8 >log
pg_ctl -s -w -D data -l log -o "-k '$1' -c listen_addresses= -c fsync=off -c max_connections=500" start >&2
echo ready
cat
"#;

/// Unix users that may run it: PostgreSQL refuses root.
const USERS: [&str; 2] = ["postgres", "nobody"];

struct Server {
    folder: PathBuf,
    /// Has the pipe that keeps the server alive.
    _guardian: Child,
}

/// The URL of a new database, in a server that is started for the first who asks and ends with this process.
pub(crate) async fn database() -> String {
    static SERVER: OnceLock<Server> = OnceLock::new();
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let server = SERVER.get_or_init(start);
    let url = |database: &str| format!("postgres://postgres@localhost/{database}?host={}", server.folder.display());
    sqlx::any::install_default_drivers();
    let mut connection = AnyConnection::connect(&url("postgres")).await.expect("a connection");
    let name = format!("test_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    sqlx::query(&format!("CREATE DATABASE {name}")).execute(&mut connection).await.expect("a database");
    url(&name)
}

fn start() -> Server {
    let programs =
        programs().expect("PostgreSQL is not installed, and the store is tested on it: scripts/deps.sh test");
    let folder = tempfile::Builder::new().prefix("platform-postgresql-").tempdir().expect("a folder").keep();
    let mut guardian = Command::new("sh");
    guardian.args(["-euc", GUARDIAN, "guardian"]).arg(&folder);
    let path = std::env::var("PATH").unwrap_or_default();
    guardian.env("PATH", format!("{}:{path}", programs.display()));
    guardian.stdin(Stdio::piped()).stdout(Stdio::piped());
    // Ctrl-C in a terminal is for the tests; it hears of their end.
    guardian.process_group(0);
    if nix::unistd::geteuid().is_root() {
        let user = USERS.iter().find_map(|name| nix::unistd::User::from_name(name).expect("readable"));
        let user = user.expect("a user without rights");
        nix::unistd::chown(&folder, Some(user.uid), Some(user.gid)).expect("given away");
        guardian.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    }
    let mut guardian = guardian.spawn().expect("a shell");
    let mut line = String::new();
    let output = guardian.stdout.take().expect("a pipe");
    BufReader::new(output).read_line(&mut line).expect("readable");
    assert_eq!(line, "ready\n", "PostgreSQL says above why it does not start");
    Server { folder, _guardian: guardian }
}

/// Where the programs of the newest version are.
fn programs() -> Option<PathBuf> {
    let has_them = |folder: &PathBuf| ["initdb", "pg_ctl", "postgres"].iter().all(|name| folder.join(name).exists());
    let version = |path: &Path| path.file_name()?.to_str()?.parse::<u32>().ok();
    let debian = Path::new("/usr/lib/postgresql").read_dir().into_iter().flatten().flatten().map(|entry| entry.path());
    let newest = debian.filter(|path| has_them(&path.join("bin"))).max_by_key(|path| version(path));
    let path = std::env::var_os("PATH").unwrap_or_default();
    newest.map(|path| path.join("bin")).or_else(|| std::env::split_paths(&path).find(has_them))
}
