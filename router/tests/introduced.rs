//! Clients that come by somebody whom the operator trusts: load balancers that speak the PROXY protocol, and proxies.

use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;
use router::{RouterSettings, SshEntrance, Timeouts};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::time::timeout;

use crate::tls::Secure;
use crate::world::{LONG, World, get, mirror, send, settings, until};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: shop.localhost\r\nConnection: close\r\n\r\n";
const INTRODUCTION: &[u8] = b"PROXY TCP4 203.0.113.7 192.0.2.1 50000 4711\r\n";

fn networks(network: &str) -> Vec<IpNet> {
    vec![network.parse().expect("a network")]
}

/// Tests come from 127.0.0.1.
async fn world(balancers: &str, timeouts: Timeouts) -> World {
    let folder = tempfile::tempdir().expect("a folder");
    let settings = RouterSettings { proxy_protocol: networks(balancers), timeouts, ..settings(folder.path()) };
    let world = World::with(folder, settings).await;
    world.serve("shop", &[&mirror("m").await]).await;
    world
}

/// What comes back until the router closes the connection, which it may do before all was read.
async fn answer(router: SocketAddr, parts: &[&[u8]]) -> String {
    let mut stream = TcpStream::connect(router).await.expect("a connection");
    stream.set_nodelay(true).expect("set");
    for part in parts {
        if stream.write_all(part).await.is_err() {
            break;
        }
    }
    let mut answer = Vec::new();
    let _ = timeout(LONG, stream.read_to_end(&mut answer)).await.expect("it ends");
    String::from_utf8_lossy(&answer).into_owned()
}

/// A header of version 2: `command` is 1 for a client, 0 for the load balancer itself.
fn binary(command: u8, addresses: &[u8]) -> Vec<u8> {
    let family = if addresses.is_empty() { 0 } else { 0x11 };
    let length = u8::try_from(addresses.len()).expect("short");
    [b"\r\n\r\n\0\r\nQUIT\n", &[0x20 | command, family, 0, length][..], addresses].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_balancer_says_whose_a_connection_is() {
    let world = world("127.0.0.0/8", Timeouts::default()).await;
    let client = binary(1, &[203, 0, 113, 7, 192, 0, 2, 1, 0xc3, 0x50, 0x12, 0x67]);
    let bytes: Vec<&[u8]> = INTRODUCTION.chunks(1).chain([REQUEST]).collect();
    for parts in
        [vec![INTRODUCTION, REQUEST], vec![&[INTRODUCTION, REQUEST].concat()[..]], bytes, vec![&client, REQUEST]]
    {
        let answer = answer(world.address, &parts).await;
        for part in ["HTTP/1.1 200", "x-forwarded-for: 203.0.113.7\n", "x-forwarded-port: 4711\n"] {
            assert!(answer.contains(part), "{part}: {answer}");
        }
    }
    world.logged(&["fwd=\"203.0.113.7\""]).await;
    for itself in [b"PROXY UNKNOWN\r\n".to_vec(), binary(0, &[])] {
        let answer = answer(world.address, &[&itself, REQUEST]).await;
        assert!(answer.contains("x-forwarded-for: 127.0.0.1\n"), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_nobody_introduces_is_closed_without_a_word() {
    let timeouts = Timeouts { client_idle: Duration::from_millis(300), ..Timeouts::default() };
    let world = world("127.0.0.0/8", timeouts).await;
    let long = [b"PROXY TCP4 203.0.113.7 ", &b"1"[..].repeat(200)[..], b" 1 1\r\n"].concat();
    let cut_off = binary(1, &[203, 0, 113, 7, 192]);
    for begin in [
        &b""[..],
        b"PROXY TCP4 203.0.113.7 ",
        b"PROXY TCP4 203.0.113.7 192.0.2.1 50000 4711\n",
        b"PROXY TCP4 nobody 192.0.2.1 50000 4711\r\n",
        b"\r\n\r\n\0\r\nQUIT\nno more",
        &long,
        &cut_off,
    ] {
        let answer = answer(world.address, &[begin, REQUEST]).await;
        assert_eq!(answer, "", "{}", String::from_utf8_lossy(begin));
    }
    assert_eq!(answer(world.address, &[b"PROX"]).await, "", "it waits no longer than for a request");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_no_load_balancer_introduces_nobody() {
    let world = world("192.0.2.0/24", Timeouts::default()).await;
    assert!(get(world.address, "shop", "/").await.contains("x-forwarded-for: 127.0.0.1\n"));
    let answer = answer(world.address, &[INTRODUCTION, REQUEST]).await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_introduction_comes_before_tls() {
    let secure = Secure::with(|settings| settings.proxy_protocol = networks("127.0.0.1/32")).await;
    secure.world.serve("shop", &[&mirror("m").await]).await;
    let mut stream = secure.connect_after(INTRODUCTION, "localhost").await;
    stream.write_all(REQUEST).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("text");
    for part in ["x-forwarded-for: 203.0.113.7\n", "x-forwarded-proto: https\n", "x-forwarded-port: 4711\n"] {
        assert!(answer.contains(part), "{part}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_over_ssh_by_a_load_balancer_is_told_to_the_controller() {
    let folder = tempfile::tempdir().expect("a folder");
    let free = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address");
    let ssh = Some(SshEntrance { listen: vec![free], socket: folder.path().join("ssh.sock") });
    let controller = UnixListener::bind(folder.path().join("ssh.sock")).expect("a socket");
    let settings = RouterSettings { ssh, proxy_protocol: networks("127.0.0.1/32"), ..settings(folder.path()) };
    let _world = World::with(folder, settings).await;
    until(async || TcpStream::connect(free).await.is_ok()).await;
    // Nobody is told of whoever is not introduced.
    assert_eq!(answer(free, &[b"SSH-2.0-client-of-nobody\r\n"]).await, "");
    let mut client = TcpStream::connect(free).await.expect("a connection");
    client.write_all(&[INTRODUCTION, b"SSH-2.0-client\r\n"].concat()).await.expect("sent");
    client.shutdown().await.expect("half closed");
    let (mut connection, _) = controller.accept().await.expect("a connection");
    let mut said = String::new();
    connection.read_to_string(&mut said).await.expect("text");
    assert_eq!(said, "PROXY TCP4 203.0.113.7 192.0.2.1 50000 4711\r\nSSH-2.0-client\r\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trusted_proxy_says_whose_a_request_is_and_nobody_else_does() {
    let request = b"GET / HTTP/1.1\r\nHost: shop.localhost\r\nX-Forwarded-For: 198.51.100.1, 203.0.113.7\r\nX-Forwarded-Proto: https\r\n\
                    X-Request-Start: t=5\r\nX-Forwarded-Host: b.test\r\nConnection: close\r\n\r\n";
    let believed = [
        "x-forwarded-for: 198.51.100.1, 203.0.113.7, 127.0.0.1\n",
        "x-forwarded-proto: https\n",
        "x-forwarded-port: 443\n",
        "x-request-start: t=5\n",
        "x-forwarded-host: b.test\n",
    ];
    for (network, is_believed) in [("127.0.0.1/32", true), ("192.0.2.0/24", false)] {
        let folder = tempfile::tempdir().expect("a folder");
        let settings = RouterSettings { trusted_proxies: networks(network), ..settings(folder.path()) };
        let world = World::with(folder, settings).await;
        world.serve("shop", &[&mirror("m").await]).await;
        let answer = send(world.address, request).await;
        assert!(answer.contains("HTTP/1.1 200"), "{answer}");
        for part in believed {
            assert_eq!(answer.contains(part), is_believed, "{part}: {answer}");
        }
        assert_eq!(answer.contains("x-forwarded-for: 127.0.0.1\nx-forwarded-proto: http\n"), !is_believed, "{answer}");
    }
}
