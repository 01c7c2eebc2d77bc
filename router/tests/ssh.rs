//! git over SSH, passed on to the controller.

use std::net::SocketAddr;
use std::path::Path;

use router::{RouterSettings, SshEntrance, Timeouts};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener};

use crate::world::{World, settings, until};

/// A router with an entrance for SSH, and where that is.
async fn router() -> (World, SocketAddr) {
    let folder = tempfile::tempdir().expect("a folder");
    let free = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address");
    let ssh = Some(SshEntrance { listen: vec![free], socket: folder.path().join("ssh.sock") });
    let settings = RouterSettings { ssh, timeouts: Timeouts::default(), ..settings(folder.path()) };
    (World::with(folder, settings).await, free)
}

fn controller(folder: &Path) -> UnixListener {
    UnixListener::bind(folder.join("ssh.sock")).expect("a socket")
}

async fn connect(address: SocketAddr) -> TcpStream {
    until(async || TcpStream::connect(address).await.is_ok()).await;
    TcpStream::connect(address).await.expect("a connection")
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_over_ssh_is_told_to_the_controller_and_all_else_is_passed_as_it_is() {
    let (world, address) = router().await;
    // The controller is away when the client comes.
    let mut client = connect(address).await;
    let from = client.local_addr().expect("an address").port();
    client.write_all(b"SSH-2.0-client\r\n").await.expect("sent");
    client.shutdown().await.expect("half closed");
    let controller = controller(world.folder.path());
    let expected = format!("PROXY TCP4 127.0.0.1 127.0.0.1 {from} {}\r\nSSH-2.0-client\r\n", address.port());
    loop {
        // The first may be of the attempts to find out whether the entrance is open.
        let (mut connection, _) = controller.accept().await.expect("a connection");
        let mut said = String::new();
        connection.read_to_string(&mut said).await.expect("text");
        if said == expected {
            connection.write_all(b"SSH-2.0-server\r\n").await.expect("answered");
            break;
        }
        assert!(said.starts_with("PROXY ") && !said.contains("client"), "{said}");
    }
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.expect("text");
    assert_eq!(answer, "SSH-2.0-server\r\n", "the controller answers after the client's end, and ends");
}
