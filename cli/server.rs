//! Wiring: which processes make a platform on one machine, and what each is told. Besides the settings, the only file that names an engine.

use std::fs::File;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use builder::packages::{Machine, PackageAccess};
use builder::stack::{self, StackSettings};
use builder::{BuildLimits, Builder, Queue};
use controller::addons::Addons;
use controller::drains::Drains;
use controller::logins::LoginLimiter;
use controller::logs::{LogLimits, Sessions, Writer};
use controller::store::{BACKUPS, Migrated, Mode, Store};
use controller::{Changed, Controller, Live, Outbound, Sockets};
use engine::{Engine, LayerStore, Restart};
pub(crate) use engine_containerd::Subnet;
use engine_containerd::{HostClient, HostSettings};
use model::Clock;
use model::clock::{SystemClock, SystemRandom};
use nix::fcntl::{Flock, FlockArg};
use router::tls::{Authority, AuthorityError};
use router::{RouterSettings, SshEntrance, TcpEntrance, Timeouts, TlsEntrance, TracingSettings};

use crate::error::{CliError, Result};
use crate::settings::{Settings, SettingsError};
use crate::supervisor::{self, Role};

/// The processes of a platform, in the order in which they end: whoever needs another one ends first, and the controller before
/// the router, which would wait for streams of it that have no end, such as `logs --tail`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum RoleName {
    /// API, git, builds and rollouts.
    Controller,
    /// Takes every request.
    Router,
    /// Keeps instances alive.
    Host,
}

/// What a platform that uses its own containerd calls that process.
pub(crate) const CONTAINERD: &str = "containerd";

/// Routers that may run at once: one takes over from another while others before it still drain.
const ROUTERS: usize = 8;

impl RoleName {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Controller, Self::Router, Self::Host];

    /// As in the name of its pid file.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Controller => "controller",
            Self::Router => "router",
            Self::Host => "host",
        }
    }

    /// How long it may take to end: a router waits for the requests in flight.
    const fn stop_limit(self) -> Duration {
        match self {
            Self::Router => Duration::from_secs(35),
            Self::Controller | Self::Host => Duration::from_secs(10),
        }
    }
}

/// Where the processes of a platform find each other.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    /// Sockets and process ids.
    pub(crate) run: PathBuf,
    /// What the operator decided.
    pub(crate) settings: Settings,
}

impl Places {
    /// Those of the platform that the settings of this process describe.
    pub(crate) fn load() -> Result<Self> {
        Self::of(Settings::load())
    }

    /// Those of the platform that runs in the home of these settings, as it was started; if none runs, as it would be.
    pub(crate) fn load_running() -> Result<Self> {
        let places = Self::load()?;
        match supervisor::running(&places.run, "up") {
            Some(pid) => Self::of(Settings::of_process(pid)),
            None => Ok(places),
        }
    }

    fn of(settings: Result<Settings, SettingsError>) -> Result<Self> {
        let settings = settings.map_err(|error| {
            CliError::usage("The settings cannot be used").because(&error).hint("`docs/settings.md` lists them all.")
        })?;
        Ok(Self { run: settings.runtime_dir(), settings })
    }

    /// The controller's socket for root.
    pub(crate) fn control(&self) -> PathBuf {
        self.run.join("control.sock")
    }

    /// The configuration of our own containerd.
    fn containerd_config(&self) -> PathBuf {
        self.run.join("containerd.toml")
    }

    /// The socket of the containerd to use.
    pub(crate) fn containerd(&self) -> PathBuf {
        if self.has_own_containerd() {
            self.run.join("containerd.sock")
        } else {
            PathBuf::from(&self.settings.containerd_socket)
        }
    }

    /// Where one router takes over from another.
    fn takeover(&self) -> PathBuf {
        self.run.join("takeover.sock")
    }

    /// Whether the platform runs a containerd of its own.
    pub(crate) fn has_own_containerd(&self) -> bool {
        self.settings.containerd_socket.is_empty()
    }

    /// Whether there may be containers: some that run, or what a power cut left of them.
    pub(crate) fn has_containers(&self) -> bool {
        let instances = self.settings.home.join("host/instances");
        instances.read_dir().is_ok_and(|mut entries| entries.next().is_some())
    }

    /// A client of the host role.
    pub(crate) fn host(&self) -> HostClient {
        HostClient::new(&self.run.join("host.sock"))
    }

    /// What `up --detach` and its roles say.
    pub(crate) fn log(&self) -> PathBuf {
        self.settings.home.join("platform.log")
    }

    /// What our own containerd and its shims say: too much to be read beside anything else.
    pub(crate) fn containerd_log(&self) -> PathBuf {
        self.settings.home.join("containerd.log")
    }

    /// What the supervisor keeps alive.
    pub(crate) fn roles(&self, program: &Path) -> Vec<Role> {
        let role = |name: RoleName| Role {
            name: name.as_str(),
            program: program.to_owned(),
            args: vec!["role".to_owned(), name.as_str().to_owned()],
            log: None,
            stop_limit: name.stop_limit(),
            takeover: (name == RoleName::Router).then(|| self.takeover()),
        };
        let containerd = self.has_own_containerd().then(|| Role {
            name: CONTAINERD,
            program: CONTAINERD.into(),
            args: vec!["--config".to_owned(), self.containerd_config().display().to_string()],
            log: Some(self.containerd_log()),
            stop_limit: Duration::from_secs(10),
            takeover: None,
        });
        RoleName::ALL.map(role).into_iter().chain(containerd).collect()
    }

    /// Makes folders and writes the files that the roles start from.
    pub(crate) fn prepare(&self) -> Result<()> {
        let home = &self.settings.home;
        for folder in [home, &self.run, &home.join("logs"), &home.join("cache")] {
            std::fs::create_dir_all(folder).map_err(cannot("make", folder))?;
        }
        self.renew_certificate()
            .map_err(|error| CliError::failed("Cannot make a certificate for the https entrance").because(&error))?;
        let buildpacks = home.join("buildpacks");
        buildpacks::install(&buildpacks).map_err(cannot("write", &buildpacks))?;
        let config = self.containerd_config();
        let text = engine_containerd::containerd_config(
            &home.join("containerd"),
            &self.run.join("containerd"),
            &self.containerd(),
        );
        std::fs::write(&config, text).map_err(cannot("write", &config))
    }

    /// Makes what the https entrance serves with, if there is nothing or if it ends soon.
    pub(crate) fn renew_certificate(&self) -> Result<(), AuthorityError> {
        self.authority().ensure(&self.settings.domain, SystemClock.now()).map(drop)
    }

    fn authority(&self) -> Authority {
        Authority::new(&self.settings.home.join("tls"))
    }

    fn layers(&self) -> Result<LayerStore> {
        let folder = self.settings.home.join("layers");
        LayerStore::open(&folder).map_err(|error| CliError::failed("Cannot use the layer store").because(&error))
    }

    fn logs(&self, writer: &str) -> Result<Arc<Writer>> {
        let folder = self.settings.home.join("logs");
        let limits = LogLimits { app_bytes: self.settings.log_limit.0 };
        Writer::open(&folder, writer, limits).map(Arc::new).map_err(cannot("use", &folder))
    }

    /// While one router takes over from another both write, and a name is of one writer. Kept where the logs are, not in the runtime directory, which
    /// a router that is there before anybody else does not find after a reboot.
    fn router_logs(&self) -> Result<Arc<Writer>> {
        for number in 1..=ROUTERS {
            let name = RoleName::Router.as_str();
            let name = if number == 1 { name.to_owned() } else { format!("{name}-{number}") };
            let path = self.settings.home.join(format!("{name}.lock"));
            let file = File::options().create(true).append(true).open(&path).map_err(cannot("open", &path))?;
            if let Ok(lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                // Until the process ends.
                Box::leak(Box::new(lock));
                return self.logs(&name);
            }
        }
        Err(CliError::failed(format!("{ROUTERS} routers of this platform run already"))
            .hint("Those that were replaced are gone within half a minute."))
    }

    fn packages(&self) -> Result<PackageAccess> {
        let folder = self.settings.home.join("packages");
        PackageAccess::collect(&self.settings.packages, &Machine::here(), &folder)
            .map_err(|error| CliError::failed("Cannot pass on this machine's package settings").because(&error))
    }

    /// What making a stack needs to know.
    pub(crate) fn stack(&self) -> Result<StackSettings> {
        Ok(StackSettings {
            home: self.settings.home.clone(),
            layers: self.layers()?,
            cache: self.settings.stack_cache(),
            packages: self.packages()?,
            digest: builder::diff_id,
        })
    }

    /// Becomes a role. Returns only when it cannot go on, or was asked to end.
    pub(crate) fn serve(&self, role: RoleName) -> Result<()> {
        let failed = |error: &dyn std::error::Error| {
            CliError::failed(format!("The {} role cannot go on", role.as_str())).because(error)
        };
        match role {
            RoleName::Router => router::serve(self.router()?).map_err(|error| failed(&error)),
            RoleName::Controller => runtime()?.block_on(async {
                let controller = self.controller().await?;
                let console = web::routes(Arc::clone(&controller));
                controller::serve(controller, &self.sockets(), console).await.map_err(|error| failed(&error))
            }),
            RoleName::Host => {
                let settings = self.host_settings()?;
                runtime()?.block_on(engine_containerd::serve(settings)).map_err(|error| failed(&error))
            }
        }
    }

    fn sockets(&self) -> Sockets {
        Sockets {
            public: self.run.join("controller.sock"),
            names: self.run.join("names.sock"),
            certificates: self.run.join("certificates.sock"),
            on_demand: self.run.join("on-demand.sock"),
            ssh: self.run.join("ssh.sock"),
            control: self.control(),
        }
    }

    fn host_settings(&self) -> Result<HostSettings> {
        let settings = &self.settings;
        Ok(HostSettings {
            home: settings.home.clone(),
            run_dir: self.run.clone(),
            containerd_socket: self.containerd(),
            namespace: format!("platform-{}", settings.tag()),
            cni_bin_dirs: settings.cni_path.0.clone(),
            subnet: settings.subnet,
            link_port: settings.link_port.get(),
            outside_connections: settings.outside_connections.get(),
            runtime: settings.runtime.clone(),
            layers: self.layers()?,
            log: self.logs(RoleName::Host.as_str())?,
            clock: Arc::new(SystemClock),
            random: Arc::new(SystemRandom),
        })
    }

    fn router(&self) -> Result<RouterSettings> {
        let sockets = self.sockets();
        Ok(RouterSettings {
            listen: self.settings.listen.0.clone(),
            tls: self.settings.tls_port().map(|_| TlsEntrance {
                listen: self.settings.tls_listen(),
                certificate: self.authority().server(),
                tickets: self.run.join("tickets.json"),
            }),
            inner: Some((self.settings.subnet.gateway(), self.settings.link_port.get()).into()),
            tcp: self
                .settings
                .tcp_ports
                .0
                .ends()
                .map(|_| TcpEntrance { listen: self.settings.addresses(), ports: self.settings.tcp_ports.0.clone() }),
            ssh: (!self.settings.ssh_listen.0.is_empty())
                .then(|| SshEntrance { listen: self.settings.ssh_listen.0.clone(), socket: sockets.ssh }),
            domain: self.settings.domain.clone(),
            names_socket: sockets.names,
            addresses_socket: self.run.join("addresses.sock"),
            controller_socket: sockets.public,
            on_demand_socket: sockets.on_demand,
            snapshot: self.settings.home.join("routes.json"),
            certificates_socket: sockets.certificates,
            certificates: self.settings.home.join("certificates"),
            takeover: Some(self.takeover()),
            proxy_protocol: self.settings.proxy_protocol.0.clone(),
            trusted_proxies: self.settings.trusted_proxies.0.clone(),
            cache_limit: self.settings.router_cache.0,
            tracing: TracingSettings::from_environment(|name| std::env::var(name).ok())
                .map_err(|error| CliError::failed("Cannot make trace spans").because(&error))?,
            workers: self.settings.router_workers,
            timeouts: Timeouts::default(),
            log: self.router_logs()?,
            clock: Arc::new(SystemClock),
            random: Arc::new(SystemRandom),
        })
    }

    async fn controller(&self) -> Result<Arc<Controller>> {
        let settings = &self.settings;
        let home = &settings.home;
        let random = Arc::new(SystemRandom);
        let store = Store::open(&self.database(), &home.join("secrets.key"), random.clone())
            .await
            .map_err(|error| CliError::failed("Cannot use the database").because(&error))?;
        let program =
            std::env::current_exe().map_err(|error| CliError::failed("Cannot find this program").because(&error))?;
        let engine: Arc<dyn Engine> = Arc::new(self.host());
        let stack = self.stack()?;
        let images = stack.clone();
        let debian = Arc::new(stack.clone());
        let at_once = match settings.builds {
            0 => std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
            builds => builds,
        };
        let builder = Builder {
            engine: Arc::clone(&engine),
            layers: stack.layers.clone(),
            packages: stack.packages.clone(),
            stack: Arc::new(move || stack::open(&stack)),
            debian,
            buildpacks: home.join("buildpacks"),
            other_distros: settings.other_distros,
            program: program.clone(),
            cache: home.join("cache/builds"),
            limits: BuildLimits {
                memory_bytes: settings.build_memory.0,
                time: settings.build_time.0,
                disk_bytes: settings.build_disk.0,
                free_disk_bytes: settings.min_free_disk.0,
                full_disk_percent: settings.disk_full.0,
            },
            queue: Arc::new(Queue::new(at_once)),
        };
        Ok(Arc::new(Controller {
            store,
            engine,
            builder: Arc::new(builder),
            logs: self.logs(RoleName::Controller.as_str())?,
            clock: Arc::new(SystemClock),
            random,
            settings: self.controller_settings(program),
            changed: Changed::default(),
            addons: Addons::new(Arc::new(move |image, said| image.make(&images, said))),
            outbound: Outbound::new(settings.outbound_networks.0.clone()),
            drains: Drains::default(),
            logins: LoginLimiter::default(),
            log_sessions: Sessions::default(),
            live: Live::default(),
        }))
    }

    /// URL of the database.
    fn database(&self) -> String {
        match self.settings.database.0.as_str() {
            "" => format!("sqlite://{}", self.settings.home.join("platform.db").display()),
            url => url.to_owned(),
        }
    }

    /// Brings the database up to date, or tries to.
    pub(crate) fn migrate(&self, mode: Mode) -> Result<Migrated> {
        std::fs::create_dir_all(&self.settings.home).map_err(cannot("make", &self.settings.home))?;
        let backups = self.settings.home.join(BACKUPS);
        let migrated = runtime()?.block_on(controller::store::migrate(&self.database(), &backups, mode));
        migrated.map_err(|error| CliError::failed("The database cannot be used").because(&error))
    }

    fn controller_settings(&self, program: PathBuf) -> controller::Settings {
        let settings = &self.settings;
        controller::Settings {
            home: settings.home.clone(),
            domain: settings.domain.clone(),
            port: settings.port(),
            tls_port: settings.tls_port(),
            entrance: settings.listen.0.first().copied(),
            tls_entrance: settings.tls_port().and_then(|_| settings.tls_listen().first().copied()),
            authority: self.authority().certificate(),
            acme: acme(settings),
            ssh_listen: settings.ssh_listen.0.clone(),
            tcp_ports: settings.tcp_ports.0.clone(),
            gateway: settings.subnet.gateway(),
            stack: stack::NAME.to_owned(),
            program,
            control_socket: self.control(),
            push_limit: settings.push_limit.0,
            requests_per_hour: settings.requests_per_hour,
            boot_timeout: settings.boot_timeout.0,
            stop_grace: settings.stop_grace.0,
            memory_overcommit: settings.memory_overcommit,
            reserved_memory: settings.reserved_memory.0,
            disk_overcommit: settings.disk_overcommit,
            restart: restart(settings),
            event_retention: settings.event_retention.0,
            disk_high: settings.disk_high.0,
            kept_images: settings.kept_images,
            jobs_at_once: settings.jobs_at_once,
        }
    }
}

/// Whom certificates are got from; nobody before the operator has agreed to the terms.
fn acme(settings: &Settings) -> Option<controller::Acme> {
    let path = |text: &str| (!text.is_empty()).then(|| PathBuf::from(text));
    settings.acme_terms_agreed.then(|| controller::Acme {
        directory: settings.acme_directory.clone(),
        email: Some(settings.acme_email.clone()).filter(|email| !email.is_empty()),
        ca: path(&settings.acme_ca),
        dns_hook: path(&settings.acme_dns_hook),
    })
}

/// When instances of apps are started again.
fn restart(settings: &Settings) -> Restart {
    Restart {
        at_once: settings.restarts_at_once,
        first: settings.restart_pause.0,
        longest: settings.restart_longest_pause.0,
        give_up: Some(settings.restart_limit).filter(|limit| *limit > 0),
        ..Restart::default()
    }
}

/// Where asynchronous code of this program runs.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Runtime::new().map_err(|error| CliError::failed("Cannot start").because(&error))
}

/// What a file operation that failed is told as.
pub(crate) fn cannot(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> CliError {
    move |error| CliError::failed(format!("Cannot {action} {}", path.display())).because(&error)
}
