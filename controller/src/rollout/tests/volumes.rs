//! Process types with a volume.

use engine::Engine;

use super::World;
use crate::volumes::VolumeRequest;

impl World {
    async fn add_volume(&self) {
        let request =
            VolumeRequest { name: Some("data".to_owned()), path: Some("/data".to_owned()), ..VolumeRequest::default() };
        let actor = self.test.owner_of(&self.app);
        self.test.controller.create_volume(&self.app, &actor, &request).await.expect("made");
    }

    /// What dynos of a release mount.
    fn mounts(&self, version: u64) -> Vec<String> {
        let (id, all) = (self.id(version, "web"), self.test.engine.applied());
        let workload = all.iter().rev().find(|workload| workload.id == id).expect("wished");
        workload.container.volumes().map(str::to_owned).collect()
    }
}

#[tokio::test]
async fn the_dyno_of_a_volume_stops_before_the_next_one_starts() {
    let mut world = World::live().await;
    world.add_volume().await;
    for _ in 0..3 {
        world.look().await;
        assert_eq!(world.runs().await, ["v2.web stopping"], "nothing new beside it");
    }
    world.test.engine.finish_stopping(&world.id(2, "web"));
    world.look().await;
    assert_eq!(world.runs().await, ["v3.web starting"]);
    let disk = world.test.engine.volumes();
    assert_eq!(world.mounts(3), disk);
    world.up(3, "web");
    world.look().await;
    assert!(world.release(3).await.current);

    world.deploy(&["web"]).await;
    world.look().await;
    world.test.engine.finish_stopping(&world.id(3, "web"));
    world.look().await;
    assert_eq!((world.runs().await, world.mounts(4)), (vec!["v4.web starting".to_owned()], disk.clone()));
    // It never gets up: the one before it comes back, with the same disk.
    world.test.engine.remove_volume(&disk[0]).await.expect_err("it is in use");
    for _ in 0..4 {
        world.crash(4, "web");
        world.look().await;
    }
    world.test.engine.finish_stopping(&world.id(4, "web"));
    world.look().await;
    assert_eq!((world.stay().await, world.mounts(3)), (vec!["v3.web starting".to_owned()], disk));
}
