//! Processes beside those of workloads, and what a killed host role makes of them.

use std::collections::BTreeMap;
use std::time::Duration;

use engine::{Engine, Exec};

use crate::faults::{delete_all, up, web};
use crate::machine::Machine;

fn shell(script: &str) -> Exec {
    let args = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    Exec { args, env: BTreeMap::new(), tty: None, time_limit: Duration::from_secs(1000) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_in_an_instance_goes_with_the_host_role_that_started_it() {
    let mut machine = Machine::boot().await;
    machine.client().apply(web(1)).await.expect("applied");
    machine.until("an instance", async || up(&machine).await.len() == 1).await;
    let (id, _) = up(&machine).await.remove(0);
    let mut running = machine.client().exec(&id, shell("echo started; exec sleep 4242")).await.expect("started");
    assert_eq!(running.output.recv().await.as_deref(), Some(b"started\n".as_slice()));
    machine.kill_host();
    assert_eq!(running.output.recv().await, None);
    assert!(running.exit.await.is_err(), "nobody says how it ended");
    machine.start_host();
    machine.until_answering().await;
    let is_gone = async || {
        let look = shell("grep -q 424[2] /proc/[0-9]*/cmdline 2>/dev/null");
        let looked = machine.client().exec(&id, look).await.expect("started");
        looked.exit.await.expect("an exit") == model::Exit::Code(1)
    };
    machine.until("the process is gone", is_gone).await;
    assert_eq!(up(&machine).await[0].0, id, "and the instance is the same");
    delete_all(&machine).await;
}
