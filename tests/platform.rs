//! A running platform for the tests, and its users: a developer with git and the CLI, and visitors of the apps.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

use crate::registry::Authority;

/// A platform of its own: home, port and network are shared with no other.
pub(crate) struct Platform {
    home: PathBuf,
    port: u16,
    tls_port: u16,
    ssh_port: u16,
    /// For an app that wants one.
    tcp_port: u16,
    subnet: String,
    /// Stops the platform and removes its folders when its standard input closes: at the end of this process, however it ends.
    _janitor: Child,
}

/// What a program printed and how it ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) ok: bool,
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    /// Both streams, as a person sees them.
    pub(crate) text: String,
}

/// An answer to a visitor.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// The platform that tests share unless they break it.
pub(crate) fn shared() -> &'static Platform {
    static SHARED: OnceLock<Platform> = OnceLock::new();
    SHARED.get_or_init(|| {
        let (home, number) = new_home();
        std::fs::create_dir(&home).expect("a home");
        authority().write_bundle(&home.join(AUTHORITIES));
        // Tests play registries on this machine.
        Platform::start_in(home, number, &[("PLATFORM_OUTBOUND_NETWORKS", "127.0.0.0/8")])
    })
}

/// In a platform's home: what its machine trusts, if that is something of its own.
const AUTHORITIES: &str = "authorities.pem";

/// An authority that the machine of the shared platform trusts beside its own.
pub(crate) fn authority() -> &'static Authority {
    static AUTHORITY: OnceLock<Authority> = OnceLock::new();
    AUTHORITY.get_or_init(Authority::new)
}

impl Platform {
    /// Starts a platform on a new home, with a first user who is logged in. `settings` are environment variables.
    pub(crate) fn start(settings: &[(&str, &str)]) -> Self {
        let (home, number) = new_home();
        Self::start_in(home, number, settings)
    }

    /// One that nobody did anything with: not started, without a stack and without users.
    pub(crate) fn fresh() -> Self {
        let (home, number) = new_home();
        Self::prepare(home, number)
    }

    /// The same in a given, empty folder.
    pub(crate) fn start_in(home: PathBuf, number: u32, settings: &[(&str, &str)]) -> Self {
        let platform = Self::prepare(home, number);
        platform.up(settings);
        platform.welcome();
        platform
    }

    /// Gives a platform that is up what it lacks: a stack, and a first user who is logged in.
    pub(crate) fn welcome(&self) {
        self.cli(&["stack:update", "--if-missing"]).expect_ok();
        self.cli(&["users:create", "dev@localhost", "--login"]).expect_ok();
    }

    fn prepare(home: PathBuf, number: u32) -> Self {
        // None that the kernel gives to outgoing connections: one of those could take it while this platform is down.
        let first = u16::try_from(10_000 + (std::process::id() * 64 + number * 8) % 20_000).expect("a port");
        let mut free = (first..).filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
        let [port, tls_port, ssh_port, tcp_port] = [(); 4].map(|()| free.next().expect("a free port"));
        let subnet = format!("10.{}.{}.0/24", 212 + number % 32, number / 32 % 256);
        std::fs::create_dir_all(home.join("user")).expect("a home");
        let janitor = Command::new("sh")
            .args(["-c", "cat; \"$0\" down; rm -rf \"$PLATFORM_HOME\" \"$1\"", env!("CARGO_BIN_EXE_platform")])
            .arg(runtime_dir(&home))
            .env("PLATFORM_HOME", &home)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh");
        Self { home, port, tls_port, ssh_port, tcp_port, subnet, _janitor: janitor }
    }

    /// `platform up --detach`
    pub(crate) fn up(&self, settings: &[(&str, &str)]) {
        run(self.command(env!("CARGO_BIN_EXE_platform")).args(["up", "--detach"]).envs(settings.iter().copied()))
            .expect_ok();
    }

    /// Where the platform keeps its things.
    pub(crate) fn home(&self) -> &Path {
        &self.home
    }

    /// Where the platform keeps what a reboot may take.
    pub(crate) fn runtime_dir(&self) -> PathBuf {
        runtime_dir(&self.home)
    }

    /// The platform's own URL.
    pub(crate) fn url(&self) -> String {
        format!("http://localhost:{}", self.port)
    }

    /// Where git is served over SSH.
    pub(crate) fn ssh_port(&self) -> u16 {
        self.ssh_port
    }

    /// Where the router listens.
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// A program in the developer's environment.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("PLATFORM_HOME", &self.home)
            .env("PLATFORM_LISTEN", format!("127.0.0.1:{}", self.port))
            .env("PLATFORM_TLS_LISTEN", format!("127.0.0.1:{}", self.tls_port))
            .env("PLATFORM_SSH_LISTEN", format!("127.0.0.1:{}", self.ssh_port))
            .env("PLATFORM_TCP_PORTS", self.tcp_port.to_string())
            .env("PLATFORM_SUBNET", &self.subnet)
            .env("PLATFORM_STACK_CACHE", stack_cache())
            // The disk of whoever develops is fuller than a server should be, and that is no fault.
            .env("PLATFORM_DISK_HIGH", "99")
            .env("PLATFORM_DISK_FULL", "100")
            .env("PLATFORM_API", self.url())
            .env("HOME", self.home.join("user"))
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            // `platform create` adds a remote to the repository that it is run in: not to ours.
            .current_dir(self.home.join("user"))
            .stdin(Stdio::null());
        let authorities = self.home.join(AUTHORITIES);
        if authorities.exists() {
            command.env("SSL_CERT_FILE", authorities);
        }
        command
    }

    /// Runs the CLI as the developer.
    pub(crate) fn cli(&self, args: &[&str]) -> Ran {
        run(self.command(env!("CARGO_BIN_EXE_platform")).args(args))
    }

    /// Runs the CLI in a shell that knows of this platform's settings only the home.
    pub(crate) fn cli_in_another_shell(&self, args: &[&str]) -> Ran {
        let mut command = self.command(env!("CARGO_BIN_EXE_platform"));
        run(command
            .args(args)
            .env_remove("PLATFORM_LISTEN")
            .env_remove("PLATFORM_TLS_LISTEN")
            .env_remove("PLATFORM_SUBNET"))
    }

    /// Runs the CLI with something on its standard input.
    pub(crate) fn cli_with_input(&self, args: &[&str], input: &[u8]) -> Ran {
        let mut command = self.command(env!("CARGO_BIN_EXE_platform"));
        let mut child = command
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("platform");
        child.stdin.take().expect("piped").write_all(input).expect("written");
        Ran::from(child.wait_with_output().expect("ended"))
    }

    /// What a reading command prints with `--json`.
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let ran = self.cli(&[args, &["--json"]].concat()).expect_ok();
        serde_json::from_str(&ran.stdout)
            .unwrap_or_else(|error| panic!("{args:?} printed no JSON ({error}): {}", ran.text))
    }

    /// An app with a name of its own, and a repository made from `tests/fixtures/<fixture>` with the app as its remote.
    pub(crate) fn app(&self, fixture: &str) -> App<'_> {
        let app = self.working_copy(fixture.trim_end_matches("-app"), fixture);
        self.cli(&["create", &app.name]).expect_ok();
        app
    }

    /// The repository of an app that is yet to be made, with a name of its own that begins like this.
    pub(crate) fn working_copy(&self, prefix: &str, fixture: &str) -> App<'_> {
        let name = format!("{prefix}-{}", COUNTER.fetch_add(1, Ordering::Relaxed));
        let folder = self.home.join("user").join(&name);
        copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(fixture), &folder);
        let app = App { platform: self, name, folder };
        app.git(&["init", "-q", "-b", "main"]).expect_ok();
        app.git(&["config", "user.email", "dev@localhost"]).expect_ok();
        app.git(&["config", "user.name", "Dev"]).expect_ok();
        app.git(&["remote", "add", "platform", &format!("{}/{}.git", self.url(), app.name)]).expect_ok();
        app.commit("first");
        app
    }

    /// Runs another program as the developer.
    pub(crate) fn run(&self, program: &str, prepare: impl FnOnce(&mut Command)) -> Ran {
        let mut command = self.command(program);
        prepare(&mut command);
        run(&mut command)
    }

    /// What a visitor of `host` gets.
    pub(crate) fn get(&self, host: &str, path: &str) -> Answer {
        self.try_get(host, path).unwrap_or_else(|error| panic!("GET {path} from {host}: {error}"))
    }

    /// What a visitor of `host` gets, or why there was no answer.
    pub(crate) fn try_get(&self, host: &str, path: &str) -> Result<Answer, ureq::Error> {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let mut answer = agent.get(format!("http://127.0.0.1:{}{path}", self.port)).header("Host", host).call()?;
        Ok(Answer { status: answer.status().as_u16(), body: answer.body_mut().read_to_string()? })
    }
}

/// An app of the developer, with its working copy.
pub(crate) struct App<'a> {
    pub(crate) platform: &'a Platform,
    pub(crate) name: String,
    pub(crate) folder: PathBuf,
}

impl App<'_> {
    /// Runs git in the working copy.
    pub(crate) fn git(&self, args: &[&str]) -> Ran {
        run(self.platform.command("git").arg("-C").arg(&self.folder).args(args))
    }

    /// Starts git in the working copy and leaves it running.
    pub(crate) fn start_git(&self, args: &[&str]) -> Child {
        let mut command = self.platform.command("git");
        command
            .arg("-C")
            .arg(&self.folder)
            .args(args)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group_of_its_own();
        command.spawn().expect("git")
    }

    /// Writes a file of the working copy.
    pub(crate) fn write(&self, file: &str, text: &str) {
        std::fs::write(self.folder.join(file), text).expect("written");
    }

    /// Replaces text in a file of the working copy.
    pub(crate) fn edit(&self, file: &str, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.folder.join(file)).expect("readable");
        assert!(text.contains(from), "{file} has no {from}");
        self.write(file, &text.replace(from, to));
    }

    /// Commits everything.
    pub(crate) fn commit(&self, message: &str) {
        self.git(&["add", "-A"]).expect_ok();
        self.git(&["commit", "-q", "-m", message]).expect_ok();
    }

    /// `git push platform main`
    pub(crate) fn push(&self) -> Ran {
        self.git(&["push", "platform", "main"])
    }

    /// Runs the CLI on this app.
    pub(crate) fn cli(&self, args: &[&str]) -> Ran {
        self.platform.cli(&[args, &["--app", &self.name]].concat())
    }

    /// Reads by the CLI on this app.
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        self.platform.json(&[args, &["--app", &self.name]].concat())
    }

    /// The app's host name.
    pub(crate) fn host(&self) -> String {
        format!("{}.localhost", self.name)
    }

    /// What a visitor gets.
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.platform.get(&self.host(), path)
    }
}

impl Ran {
    /// This, if the program succeeded; else the test fails and shows what it printed.
    pub(crate) fn expect_ok(self) -> Self {
        assert!(self.ok, "failed with {:?}:\n{}", self.code, self.text);
        self
    }

    /// This, if the program failed and printed every one of `parts`.
    pub(crate) fn expect_refused(self, parts: &[&str]) -> Self {
        assert!(!self.ok, "succeeded:\n{}", self.text);
        self.expect_text(parts)
    }

    /// This, if every one of `parts` was printed.
    pub(crate) fn expect_text(self, parts: &[&str]) -> Self {
        for part in parts {
            assert!(self.text.contains(part), "`{part}` was not printed:\n{}", self.text);
        }
        self
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        let text = stdout.clone() + &String::from_utf8_lossy(&output.stderr);
        Self { ok: output.status.success(), code: output.status.code(), stdout, text }
    }
}

trait OwnGroup {
    fn process_group_of_its_own(&mut self) -> &mut Self;
}

impl OwnGroup for Command {
    fn process_group_of_its_own(&mut self) -> &mut Self {
        std::os::unix::process::CommandExt::process_group(self, 0)
    }
}

/// A folder that does not exist yet, and a number that no other platform has.
fn new_home() -> (PathBuf, u32) {
    let number = std::process::id() * 16 + COUNTER.fetch_add(1, Ordering::Relaxed);
    (std::env::temp_dir().join(format!("platform-test-{number}")), number)
}

fn run(command: &mut Command) -> Ran {
    Ran::from(command.output().unwrap_or_else(|error| panic!("{command:?}: {error}")))
}

fn runtime_dir(home: &Path) -> PathBuf {
    use sha2::Digest;
    let tag = hex::encode(&sha2::Sha256::digest(home.as_os_str().as_encoded_bytes())[..4]);
    PathBuf::from(format!("/run/platform-{tag}"))
}

/// Made once a machine, outside every checkout and every platform.
fn stack_cache() -> PathBuf {
    let cache = std::env::var_os("PLATFORM_TEST_CACHE").map(PathBuf::from);
    cache.unwrap_or_else(|| PathBuf::from("/var/cache/platform-tests")).join("stack")
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a fixture").flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copied");
        }
    }
}
