//! The OCI runtime spec of a container: what it sees, what it may do, how much it gets.
//!
//! Instances run as their app's own uid with no capability and no way to gain one, in a user namespace in which everybody else, root
//! too, is nobody outside ([`crate::users`]). The runtime makes their network namespace in it, so that nothing in there belongs to the
//! machine's root. A nested container, which makes an image, is root inside, with what that needs to lay layers over each other and to
//! change its root.

use std::path::{Path, PathBuf};

use engine::{Container, Limits, Mount, TtySize};
use nix::sys::resource::{Resource, getrlimit};
use oci_spec::runtime::{
    BoxBuilder, Capability, Linux, LinuxBuilder, LinuxCapabilities, LinuxCpuBuilder, LinuxDeviceCgroupBuilder,
    LinuxMemoryBuilder, LinuxNamespaceBuilder, LinuxNamespaceType, LinuxPidsBuilder, LinuxResources,
    LinuxResourcesBuilder, LinuxSeccomp, LinuxSeccompAction, LinuxSyscallBuilder, MountBuilder, PosixRlimit,
    PosixRlimitBuilder, PosixRlimitType, Process, ProcessBuilder, RootBuilder, Spec, SpecBuilder, UserBuilder,
};
use oci_spec::{OciSpecError, runtime as oci};

use crate::cgroup::Version;
use crate::error::Fault;
use crate::overlays;
use crate::users::Users;
use crate::volumes::Volumes;

/// Allows what servers and builds use; above all no new namespaces, no `io_uring`, no `bpf`, no `keyctl`, and of the
/// socket families only those below `AF_ALG`.
const SECCOMP: &str = include_str!("seccomp.json");

/// What a nested container may besides: make namespaces of its own, mount in them, and change its root.
const NESTED_CALLS: [&str; 10] =
    ["clone", "unshare", "setns", "mount", "umount", "umount2", "pivot_root", "chroot", "sethostname", "setdomainname"];

/// What root of a nested container is in its own namespace. Devices and the kernel's settings are in none.
const NESTED_CAPABILITIES: [Capability; 12] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::NetBindService,
    Capability::Setfcap,
    Capability::Setgid,
    Capability::Setpcap,
    Capability::Setuid,
    Capability::SysAdmin,
    Capability::SysChroot,
];

/// What one process may have open unless its limits say otherwise: enough for a server of many connections, and no reason for old programs to walk through a billion of them.
const OPEN_FILES: u64 = 65_536;

/// The annotation by which containers share one shim.
const GROUP: &str = "io.containerd.runc.v2.group";

/// What a spec is made of.
pub(crate) struct Blueprint<'a> {
    pub(crate) container: &'a Container,
    /// Containers of one group share a shim.
    pub(crate) group: String,
    pub(crate) hostname: &'a str,
    pub(crate) users: Users,
    /// Where its overlays lie.
    pub(crate) folder: &'a Path,
    /// From the hierarchy's root: `/platform/<id>`.
    pub(crate) cgroup: PathBuf,
    pub(crate) cgroups: Version,
    pub(crate) tty: Option<TtySize>,
    pub(crate) volumes: &'a Volumes,
}

/// Describes a container to the runtime.
pub(crate) fn spec(blueprint: &Blueprint<'_>) -> Result<Spec, Fault> {
    build(blueprint).map_err(|error| Fault::Refused(format!("the container cannot be described: {error}")))
}

fn build(blueprint: &Blueprint<'_>) -> Result<Spec, OciSpecError> {
    SpecBuilder::default()
        .version("1.0.2")
        .hostname(blueprint.hostname)
        .root(RootBuilder::default().path("rootfs").readonly(false).build()?)
        .annotations([(GROUP.to_owned(), blueprint.group.clone())])
        .process(describe(blueprint.container, blueprint.hostname, blueprint.tty)?)
        .mounts(mounts(blueprint)?)
        .linux(linux(blueprint)?)
        .build()
}

/// Describes one more process to a container that runs.
pub(crate) fn process(container: &Container, hostname: &str, tty: Option<TtySize>) -> Result<Process, Fault> {
    describe(container, hostname, tty)
        .map_err(|error| Fault::Refused(format!("the process cannot be described: {error}")))
}

fn describe(container: &Container, hostname: &str, tty: Option<TtySize>) -> Result<Process, OciSpecError> {
    let mut env: Vec<String> = container.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    if !container.env.contains_key("HOSTNAME") {
        env.push(format!("HOSTNAME={hostname}"));
    }
    if tty.is_some() && !container.env.contains_key("TERM") {
        env.push("TERM=xterm-256color".to_owned());
    }
    let uid = if container.nested { 0 } else { container.uid };
    let mut process = ProcessBuilder::default()
        .user(UserBuilder::default().uid(uid).gid(uid).build()?)
        .args(container.args.clone())
        .env(env)
        .cwd(container.working_dir.as_str())
        .capabilities(capabilities(container))
        .no_new_privileges(true)
        .build()?;
    process.set_rlimits(Some(rlimits(&container.limits)?));
    process.set_terminal(Some(tty.is_some()));
    if let Some(size) = tty {
        let size = BoxBuilder::default().height(u64::from(size.rows)).width(u64::from(size.columns)).build()?;
        process.set_console_size(Some(size));
    }
    Ok(process)
}

fn capabilities(container: &Container) -> LinuxCapabilities {
    let all = container.nested.then(|| std::collections::HashSet::from(NESTED_CAPABILITIES));
    let mut capabilities = LinuxCapabilities::default();
    capabilities.set_bounding(all.clone()).set_effective(all.clone()).set_permitted(all);
    capabilities.set_inheritable(None).set_ambient(None);
    capabilities
}

/// Without these an instance would have whatever limits containerd was started with.
fn rlimits(limits: &Limits) -> Result<Vec<PosixRlimit>, OciSpecError> {
    // Nobody may raise a hard limit where this role may not, so more than our own would fail.
    let files = limits.open_files.unwrap_or(OPEN_FILES);
    let (_, ours) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((files, files));
    let limit = |kind, limit: u64| PosixRlimitBuilder::default().typ(kind).soft(limit).hard(limit).build();
    Ok(vec![
        limit(PosixRlimitType::RlimitNofile, files.min(ours))?,
        // A core dump holds an app's secrets, and belongs to nobody here.
        limit(PosixRlimitType::RlimitCore, 0)?,
    ])
}

fn mounts(blueprint: &Blueprint<'_>) -> Result<Vec<oci::Mount>, OciSpecError> {
    let container = blueprint.container;
    // A database shares much memory between its processes. It counts as the container's.
    let shared = format!("size={}", container.limits.memory_bytes / 2);
    let base: [(&str, &str, &[&str]); 7] = [
        ("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        ("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        ("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]),
        ("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", &shared]),
        ("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        ("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        // Language runtimes read their memory and CPU limits here.
        ("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
    ];
    let base = base.into_iter().map(|(target, kind, options)| {
        let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
        MountBuilder::default().destination(target).typ(kind).source(kind).options(options).build()
    });
    base.chain(container.mounts.iter().enumerate().map(|(index, mount)| own_mount(mount, index, blueprint))).collect()
}

fn own_mount(mount: &Mount, index: usize, blueprint: &Blueprint<'_>) -> Result<oci::Mount, OciSpecError> {
    match mount {
        Mount::Bind { source, target, read_only } => bind(source, target, *read_only),
        Mount::Volume { name, target } => bind(&blueprint.volumes.path(name), target, false),
        Mount::Overlay { target, .. } => bind(&overlays::place(blueprint.folder, index), target, false),
    }
}

fn bind(source: &Path, target: &Path, read_only: bool) -> Result<oci::Mount, OciSpecError> {
    let access = if read_only { "ro" } else { "rw" };
    let options = ["bind", access, "nosuid", "nodev", "rprivate"].map(str::to_owned);
    MountBuilder::default().destination(target).typ("bind").source(source).options(options).build()
}

/// Options of an overlay mount; `lower` has the uppermost directory first.
pub(crate) fn overlay_options(lower: &[PathBuf], upper: &Path, work: &Path) -> Vec<String> {
    let lower: Vec<String> = lower.iter().map(|path| path.display().to_string()).collect();
    vec![
        format!("lowerdir={}", lower.join(":")),
        format!("upperdir={}", upper.display()),
        format!("workdir={}", work.display()),
    ]
}

fn linux(blueprint: &Blueprint<'_>) -> Result<Linux, OciSpecError> {
    let own = [
        LinuxNamespaceType::Pid,
        LinuxNamespaceType::Mount,
        LinuxNamespaceType::Ipc,
        LinuxNamespaceType::Uts,
        LinuxNamespaceType::Cgroup,
        LinuxNamespaceType::Network,
        LinuxNamespaceType::User,
    ];
    let mut namespaces = Vec::new();
    for kind in own {
        namespaces.push(LinuxNamespaceBuilder::default().typ(kind).build()?);
    }
    let mut seccomp: LinuxSeccomp = serde_json::from_str(SECCOMP)?;
    if blueprint.container.nested {
        let more = LinuxSyscallBuilder::default()
            .names(NESTED_CALLS.map(str::to_owned))
            .action(LinuxSeccompAction::ScmpActAllow)
            .build()?;
        seccomp.set_syscalls(Some(seccomp.syscalls().iter().flatten().cloned().chain([more]).collect()));
    }
    let mappings = blueprint.users.mappings()?;
    LinuxBuilder::default()
        .namespaces(namespaces)
        .uid_mappings(mappings.clone())
        .gid_mappings(mappings)
        .resources(resources(&blueprint.container.limits, blueprint.cgroups)?)
        .cgroups_path(blueprint.cgroup.as_path())
        .seccomp(seccomp)
        .masked_paths(
            [
                "/proc/acpi",
                "/proc/asound",
                "/proc/interrupts",
                "/proc/kcore",
                "/proc/keys",
                "/proc/latency_stats",
                "/proc/sched_debug",
                "/proc/scsi",
                "/proc/timer_list",
                "/proc/timer_stats",
                "/sys/devices/virtual/powercap",
                "/sys/firmware",
            ]
            .map(str::to_owned),
        )
        .readonly_paths(["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"].map(str::to_owned))
        .build()
}

fn resources(limits: &Limits, cgroups: Version) -> Result<LinuxResources, OciSpecError> {
    const PERIOD_MICROS: u64 = 100_000;
    let bytes = i64::try_from(limits.memory_bytes).unwrap_or(i64::MAX);
    let mut memory = LinuxMemoryBuilder::default().limit(bytes);
    if cgroups != (Version::V1 { limits_swap: false }) {
        memory = memory.swap(bytes);
    }
    let quota = i64::from(limits.cpu_millis) * i64::try_from(PERIOD_MICROS / 1000).unwrap_or(100);
    let mut cpu = LinuxCpuBuilder::default().period(PERIOD_MICROS).quota(quota);
    let mut resources = LinuxResourcesBuilder::default()
        .devices(vec![LinuxDeviceCgroupBuilder::default().allow(false).access("rwm").build()?])
        .memory(memory.build()?)
        .pids(LinuxPidsBuilder::default().limit(i64::from(limits.pids)).build()?);
    match cgroups {
        // A weight of 100 is the default of version 2, 1024 shares are that of version 1.
        Version::V1 { .. } => cpu = cpu.shares((u64::from(limits.cpu_weight) * 1024 / 100).max(2)),
        Version::V2 => {
            resources = resources.unified([("cpu.weight".to_owned(), limits.cpu_weight.to_string())]);
        }
    }
    resources.cpu(cpu.build()?).build()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use engine::RootFs;
    use serde_json::{Value, json};

    use super::*;

    fn json_of(cgroups: Version) -> Value {
        json_with(cgroups, false)
    }

    fn json_with(cgroups: Version, nested: bool) -> Value {
        let container = Container {
            rootfs: RootFs::Layers(Vec::new()),
            args: vec!["a \"b\"".to_owned()],
            env: BTreeMap::from([("A".to_owned(), "x\ny".to_owned())]),
            working_dir: "/app".to_owned(),
            uid: 100_001,
            nested,
            limits: Limits { cpu_weight: 50, open_files: Some(100), ..Limits::new(512 << 20, 1500, 256) },
            mounts: Vec::new(),
        };
        let home = tempfile::tempdir().expect("a folder");
        let volumes = Volumes::open(home.path().to_owned()).expect("volumes");
        let blueprint = Blueprint {
            container: &container,
            group: "app".to_owned(),
            hostname: "web.1",
            users: Users::of(&container, 3),
            folder: home.path(),
            cgroup: PathBuf::from("/platform/i"),
            cgroups,
            tty: None,
            volumes: &volumes,
        };
        serde_json::to_value(spec(&blueprint).expect("a spec")).expect("JSON")
    }

    #[test]
    fn a_container_has_no_privilege_and_its_limits() {
        let spec = json_of(Version::V2);
        let process = &spec["process"];
        assert_eq!(process["user"]["uid"], 100_001);
        assert_eq!(process["noNewPrivileges"], true);
        assert_eq!(process["capabilities"], json!({}));
        assert_eq!(process["rlimits"][0], json!({ "type": "RLIMIT_NOFILE", "soft": 100, "hard": 100 }));
        assert_eq!(process["rlimits"][1], json!({ "type": "RLIMIT_CORE", "soft": 0, "hard": 0 }));
        assert!(process.get("oomScoreAdj").is_none());
        assert_eq!(process["env"], json!(["A=x\ny", "HOSTNAME=web.1"]));
        let resources = &spec["linux"]["resources"];
        assert_eq!(resources["memory"], json!({ "limit": 512 << 20, "swap": 512 << 20 }));
        assert_eq!(resources["cpu"], json!({ "period": 100_000, "quota": 150_000 }));
        assert_eq!(resources["unified"], json!({ "cpu.weight": "50" }));
        assert_eq!(resources["pids"], json!({ "limit": 256 }));
        assert_eq!(resources["devices"], json!([{ "allow": false, "access": "rwm" }]));
        let shared = spec["mounts"].as_array().and_then(|all| all.iter().find(|one| one["destination"] == "/dev/shm"));
        assert_eq!(shared.expect("shared memory")["options"][4], format!("size={}", 256 << 20));
        let linux = &spec["linux"];
        assert_eq!(linux["cgroupsPath"], "/platform/i");
        assert_eq!(linux["seccomp"]["defaultAction"], "SCMP_ACT_ERRNO");
        let has = |list: &str, path: &str| linux[list].as_array().is_some_and(|paths| paths.contains(&json!(path)));
        assert!(has("maskedPaths", "/proc/kcore") && has("readonlyPaths", "/proc/sys"));
        let kinds = linux["namespaces"].as_array().expect("namespaces").iter().map(|kind| &kind["type"]);
        assert_eq!(kinds.collect::<Vec<_>>(), ["pid", "mount", "ipc", "uts", "cgroup", "network", "user"]);
        let root = (1 << 29) + 3 * 65_536;
        let mappings = json!([
            { "containerID": 0, "hostID": root, "size": 65_536 },
            { "containerID": 100_001, "hostID": 100_001, "size": 1 },
        ]);
        assert_eq!((&linux["uidMappings"], &linux["gidMappings"]), (&mappings, &mappings));
    }

    #[test]
    fn a_nested_container_is_root_of_its_own_users_only() {
        let spec = json_with(Version::V2, true);
        assert_eq!(spec["process"]["user"]["uid"], 0);
        assert_eq!(spec["process"]["noNewPrivileges"], true);
        let capabilities = spec["process"]["capabilities"]["effective"].as_array().expect("a list");
        assert!(!capabilities.contains(&json!("CAP_MKNOD")) && !capabilities.contains(&json!("CAP_NET_ADMIN")));
        let mapping = json!([{ "containerID": 0, "hostID": 100_001, "size": 65_536 }]);
        assert_eq!((&spec["linux"]["uidMappings"], &spec["linux"]["gidMappings"]), (&mapping, &mapping));
        let kinds = spec["linux"]["namespaces"].as_array().expect("namespaces").iter().map(|kind| &kind["type"]);
        assert!(kinds.into_iter().any(|kind| kind == "user"));
    }

    #[test]
    fn version_1_has_shares_and_perhaps_no_swap() {
        let resources = &json_of(Version::V1 { limits_swap: false })["linux"]["resources"];
        assert_eq!(resources["memory"], json!({ "limit": 512 << 20 }));
        assert_eq!(resources["cpu"]["shares"], 512);
        assert!(resources.get("unified").is_none());
    }
}
