//! Images that were made elsewhere, brought as an archive and from a registry.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::platform::{App, shared};

#[test]
fn an_image_of_a_registry_runs_as_the_app_with_its_port_and_its_own_files() {
    let app = shared().app("probe-app");
    let folder = Folder::new(&app);
    folder.image("first");
    let registry = registry(&folder.0.join("layout"));
    let deploy = || app.cli(&["builds:create", "--image", &format!("{registry}/busy:v1")]);
    let said = deploy().expect_ok();
    said.expect_text(&[
        "Importing the image",
        "USER nobody has no effect",
        "EXPOSE 80/tcp has no effect",
        "Process types: web",
    ]);
    assert_eq!(app.get("/").body, "first\n");
    let probe =
        "id -u; stat -c %u /www/index.html; test -w /www/index.html && echo mine; readlink /proc/1/exe; ls /gone";
    let ran = app.cli(&["run", probe]).expect_refused(&["mine", "/cnb/lifecycle/init", "/gone: No such file"]);
    let mut uids = ran.stdout.lines().filter_map(|line| line.trim().parse::<u32>().ok());
    assert!(uids.next().is_some_and(|uid| uid >= 100_000 && uids.next() == Some(uid)), "{}", ran.text);
    let releases = app.json(&["releases"]);
    assert!(releases.to_string().contains(&format!("Deploy {registry}/busy:v1")), "{releases}");

    deploy().expect_ok().expect_text(&["is that of the last release"]);
    folder.image("second");
    deploy().expect_ok();
    assert_eq!(app.get("/").body, "second\n");
    app.cli(&["stack:rebase"]).expect_refused(&["came from elsewhere"]);
    app.cli(&["builds:sbom"]).expect_refused(&["was not built here"]);
    let missing = app.cli(&["builds:create", "--image", &format!("{registry}/other:v1")]);
    missing.expect_refused(&["the registry has no such image"]);
    assert_eq!(app.get("/").body, "second\n");
}

#[test]
fn what_was_exported_runs_as_another_app() {
    let app = shared().app("probe-app");
    app.push().expect_ok();
    let copy = shared().app("probe-app");
    let folder = Folder::new(&app);
    let archive = folder.0.join("image.tar").display().to_string();
    app.cli(&["releases:export", "-o", &archive]).expect_ok();
    copy.cli(&["builds:create", "--source-tar", &archive])
        .expect_ok()
        .expect_text(&["Importing the image in the archive"]);
    assert_eq!(copy.get("/").body, app.get("/").body);
    copy.cli(&["run", "echo in $PWD"]).expect_ok().expect_text(&["in /app"]);
}

/// The machine's own, which needs nothing else.
pub(crate) fn busybox() -> &'static str {
    let found = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).is_file());
    found.expect("busybox-static")
}

/// A folder of one test; removed when dropped.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(app: &App) -> Self {
        let folder = shared().home().join("user").join(format!("{}-images", app.name));
        std::fs::create_dir(&folder).expect("a folder");
        Self(folder)
    }

    /// Where its layout is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Makes an image of busybox that serves `text`, by a command as Dockerfiles have it.
    pub(crate) fn image(&self, text: &str) {
        let run = |program: &str, args: &[&str]| {
            shared().run(program, |command: &mut Command| {
                command.current_dir(&self.0).args(args);
            })
        };
        let umoci = |args: &[&str]| run("umoci", args).expect_ok();
        let _ = std::fs::remove_dir_all(self.0.join("layout"));
        umoci(&["init", "--layout", "layout"]);
        umoci(&["new", "--image", "layout:v1"]);
        let insert = |from: &str, to: &str| umoci(&["insert", "--image", "layout:v1", from, to]);
        insert(busybox(), "/bin/busybox");
        for (name, content) in [("index.html", format!("{text}\n")), ("gone", String::new())] {
            std::fs::write(self.0.join(name), content).expect("written");
        }
        run("ln", &["-sf", "busybox", "sh"]).expect_ok();
        for name in ["sh", "id", "stat", "test", "readlink", "ls"] {
            insert("sh", &format!("/bin/{name}"));
        }
        insert("index.html", "/www/index.html");
        insert("gone", "/gone");
        umoci(&["insert", "--image", "layout:v1", "--whiteout", "/gone"]);
        let cmd = ["busybox", "httpd", "-f", "-p", "$PORT", "-h", "/www"].map(|word| format!("--config.cmd={word}"));
        let more = ["--config.user=nobody", "--config.exposedports=80/tcp", "--config.workingdir=/www"];
        let words = cmd.iter().map(String::as_str).chain(more);
        umoci(&["config", "--image", "layout:v1"].into_iter().chain(words).collect::<Vec<_>>());
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Serves the image of a layout as `busy:v1`, as registries do (OCI distribution spec, "Pulling"); says where.
fn registry(layout: &Path) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let layout = layout.to_owned();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A client that goes away early is none of ours.
            let _ = answer(stream, &layout);
        }
    });
    address
}

fn answer(mut stream: TcpStream, layout: &Path) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let path = request.split(' ').nth(1).unwrap_or_default();
    let found = path.strip_prefix("/v2/busy/").and_then(|path| match path.split_once('/')? {
        ("manifests", "v1") => {
            let index: Value = serde_json::from_slice(&std::fs::read(layout.join("index.json")).ok()?).ok()?;
            blob(layout, index["manifests"][0]["digest"].as_str()?)
        }
        (_, digest) => blob(layout, digest),
    });
    let status = if found.is_some() { "200 OK" } else { "404 Not Found" };
    let body = found.unwrap_or_default();
    let kind = "application/vnd.oci.image.manifest.v1+json";
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    )?;
    stream.write_all(&body)
}

fn blob(layout: &Path, digest: &str) -> Option<Vec<u8>> {
    std::fs::read(layout.join("blobs").join(digest.replace(':', "/"))).ok()
}
