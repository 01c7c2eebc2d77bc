use std::path::Path;

/// The text of a `config.toml` for a containerd of our own, with its state in `root` (kept), `state` (lost with a reboot) and its socket.
/// Only what tasks need is left on: no CRI, no snapshotters but the built-in one, no image unpacking, so that it is up in
/// a fraction of a second and small.
pub fn containerd_config(root: &Path, state: &Path, socket: &Path) -> String {
    let disabled = [
        "io.containerd.grpc.v1.cri",
        "io.containerd.internal.v1.opt",
        "io.containerd.internal.v1.restart",
        "io.containerd.internal.v1.tracing",
        "io.containerd.tracing.processor.v1.otlp",
        "io.containerd.nri.v1.nri",
        "io.containerd.snapshotter.v1.aufs",
        "io.containerd.snapshotter.v1.blockfile",
        "io.containerd.snapshotter.v1.btrfs",
        "io.containerd.snapshotter.v1.devmapper",
        "io.containerd.snapshotter.v1.erofs",
        "io.containerd.snapshotter.v1.native",
        "io.containerd.snapshotter.v1.zfs",
    ];
    // Debug formatting of text is a valid TOML basic string.
    let [root, state, socket] = [root, state, socket].map(|path| path.display().to_string());
    format!(
        "version = 2\nroot = {root:?}\nstate = {state:?}\noom_score = 0\ndisabled_plugins = {disabled:?}\n\n[grpc]\naddress = {socket:?}\n\n\
         [debug]\nlevel = \"warn\"\n"
    )
}
