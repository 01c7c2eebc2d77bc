//! Images from elsewhere, as archives bring them.

use tar::EntryType::{Regular, Symlink};

use super::*;
use crate::testing::{Entries, put, tar_of};
use crate::{ForeignImage, ImageSource};

/// What two layers hold.
const BASE: Entries<'_> = &[("bin/busy", Regular, "busy"), ("bin/sh", Symlink, "busy"), ("srv/old", Regular, "1")];
const TOP: Entries<'_> = &[("srv/new", Regular, "2"), ("srv/.wh.old", Regular, "")];

impl World {
    /// Imports an image of two layers with this config.
    async fn import(&self, config: &str, previous: Option<&Image>) -> (Result<Built, BuildError>, String) {
        let layout = self.dir.path().join("layout");
        let layers = [BASE, TOP].map(|entries| format!("{{\"digest\":\"{}\"}}", put(&layout, &tar_of(entries))));
        let config = put(&layout, config.as_bytes());
        let manifest = format!("{{\"config\":{{\"digest\":\"{config}\"}},\"layers\":[{}]}}", layers.join(","));
        let manifest = put(&layout, manifest.as_bytes());
        fs::write(layout.join("index.json"), format!("{{\"manifests\":[{{\"digest\":\"{manifest}\"}}]}}")).unwrap();
        let request = BuildRequest {
            build: BuildId::random(&SystemRandom),
            app: self.app,
            uid: 100_007,
            fetch: Arc::new(crate::NoFetch),
            previous: previous.cloned(),
            source: Source::Image(ForeignImage {
                name: "shop:1".to_owned(),
                place: ImageSource::Layout(layout.clone()),
                processes: BTreeMap::from([("worker".parse().unwrap(), "work".to_owned())]),
            }),
        };
        let (sender, mut lines) = mpsc::channel(100);
        let result = self.builder.build(request, sender).await;
        assert!(!layout.exists(), "the import takes its source over");
        let mut said = String::new();
        while let Ok(line) = lines.try_recv() {
            said = said + &line + "\n";
        }
        (result, said)
    }
}

#[tokio::test]
async fn an_image_becomes_one_layer_and_the_same_again_is_not_imported_again() {
    let world = World::new();
    let config = r#"{"config": {"Env": ["A=b=c"], "Entrypoint": ["/bin/busy"], "WorkingDir": "/srv"}}"#;
    let (built, said) = world.import(config, None).await;
    let built = built.unwrap();
    insta::assert_snapshot!(said, @r"
    -----> Importing the image shop:1: 2 layers
           Process types: web, worker
    ");
    let image = built.image;
    insta::assert_snapshot!(listing(&world.layer(&image, "Image shop:1")), @r"
    bin /
    bin/busy busy
    bin/sh -> busy
    srv /
    srv/new 2
    ");
    insta::assert_snapshot!(listing(&world.layer(&image, "First process")), @r"
    cnb /
    cnb/lifecycle /
    cnb/lifecycle/init the first process
    ");
    assert_eq!(image.config.env["A"], "b=c");
    assert!(image.config.env["PATH"].contains("/usr/bin"));
    assert_eq!(image.process_args("web"), ["/cnb/lifecycle/init", "-g", "--", "/bin/busy"]);
    assert_eq!(image.process_args("worker")[3..], ["/bin/busy", "/bin/sh", "-c", "work"]);
    assert!(world.builder.sboms(world.app, &image).await.unwrap().is_empty());

    let (again, said) = world.import(config, Some(&image)).await;
    assert_eq!(again.unwrap().image, image);
    assert!(!said.contains("Importing"), "{said}");
    let after = world.build(&[("lock", "1")], Some(&image)).await.unwrap();
    assert!(after.image.foreign.is_none());
}

#[tokio::test]
async fn an_image_that_cannot_run_here_is_refused_with_the_reason() {
    let world = World::new();
    let refused = |built: Result<Built, BuildError>| built.unwrap_err().to_string();
    let (built, _) = world.import(r#"{"architecture": "s390x", "os": "linux"}"#, None).await;
    insta::assert_snapshot!(refused(built).replace(crate::architecture(), "(ours)"), @r"
    The image shop:1 cannot be used: it is for s390x, and this machine is (ours).

    Nothing was deployed; what ran before still runs.
    ");
    let (built, _) = world.import("[", None).await;
    assert!(refused(built).contains("it is not an OCI layout: "));
    assert!(world.builder.layers.list().unwrap().len() <= 1, "nothing is kept of it");
}
