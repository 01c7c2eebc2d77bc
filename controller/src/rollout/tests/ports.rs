//! Ports whose connections go to dynos as they are.

use engine::Workload;
use model::routes::Share;

use super::World;
use crate::formation::ScaleRequest;
use crate::tcp_routes::TcpRequest;

impl World {
    async fn add_port(&self, process_type: &str, port: u16, target_port: Option<u16>) {
        let process_type = Some(process_type.to_owned());
        let request = TcpRequest { process_type, port: Some(port), target_port, ..TcpRequest::default() };
        let actor = self.test.owner_of(&self.app);
        self.test.controller.add_tcp_route(&self.app, &actor, &request).await.expect("added");
    }

    async fn scale_worker(&self) {
        let (process_type, quantity) = ("worker".to_owned(), Some("1".to_owned()));
        let request = ScaleRequest { process_type, quantity, size: None };
        let actor = self.test.owner_of(&self.app);
        self.test.controller.scale(&self.app, &actor, &[request]).await.expect("scaled");
    }

    /// Whose the connections to a port are, as routers are told.
    fn takes(&self, port: u16) -> Vec<Share> {
        let told = self.router.told.borrow();
        let routes = told.get(&self.app.id).into_iter().flat_map(|row| &row.tcp);
        routes.filter(|route| route.port == port).flat_map(|route| route.shares.clone()).collect()
    }

    fn one(&self, version: u64, process_type: &str) -> Vec<Share> {
        vec![Share { workload: self.id(version, process_type), weight: 1 }]
    }

    fn wished(&self, version: u64, process_type: &str) -> Workload {
        let (id, all) = (self.id(version, process_type), self.test.engine.applied());
        all.iter().rev().find(|workload| workload.id == id).expect("wished").clone()
    }
}

#[tokio::test]
async fn connections_go_to_the_release_that_serves() {
    let mut world = World::new().await;
    world.deploy(&["web", "worker"]).await;
    world.scale_worker().await;
    world.look().await;
    let up = |world: &World, version| {
        world.up(version, "web");
        world.up(version, "worker");
    };
    up(&world, 2);
    world.look().await;
    assert_eq!(world.wished(2, "worker").health.port, None);
    world.add_port("web", 3000, Some(1883)).await;
    assert_eq!(world.takes(3000), world.one(2, "web"), "routers know when its owner is told so");
    let web = world.wished(2, "web");
    assert_eq!((web.health.port, web.container.env["PORT"].as_str()), (Some(5000), "5000"), "requests come as before");

    // Dynos of the worker begin anew with a port, and nobody gets a connection before they are up.
    world.add_port("worker", 3001, Some(25)).await;
    world.look().await;
    let worker = world.wished(3, "worker");
    assert_eq!((worker.health.port, worker.container.env["PORT"].as_str()), (Some(25), "25"));
    up(&world, 3);
    while !world.release(3).await.current {
        world.look().await;
    }
    assert_eq!((world.takes(3000), world.takes(3001)), (world.one(3, "web"), world.one(3, "worker")));

    // As with requests, a release that never gets up takes nothing.
    world.deploy(&["web", "worker"]).await;
    world.look().await;
    world.up(4, "web");
    world.look().await;
    assert_eq!(world.takes(3001), world.one(3, "worker"));
    up(&world, 4);
    while !world.release(4).await.current {
        world.look().await;
        up(&world, 4);
    }
    assert_eq!((world.takes(3000), world.takes(3001)), (world.one(4, "web"), world.one(4, "worker")));

    // Another life of the controller tells the same before it has looked.
    let world = world.restart().await;
    assert_eq!((world.takes(3000), world.takes(3001)), (world.one(4, "web"), world.one(4, "worker")));
    let actor = world.test.owner_of(&world.app);
    let route = world.test.controller.find_tcp_route(&world.app, "3001").await.expect("there");
    world.test.controller.remove_tcp_route(&world.app, &actor, &route).await.expect("removed");
    assert_eq!((world.takes(3001), world.takes(3000)), (vec![], world.one(4, "web")));
}
