//! Connections that are no HTTP: a port leads to an instance of an app.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use model::routes::{AppRoute, Endpoint, RouteMode, Share, WorkloadId};
use model::{Introduction, RoutePolicy, TcpRoute};
use router::{Router, RouterSettings, TcpEntrance, Timeouts};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::tls::Secure;
use crate::world::{LONG, World, app_id, app_row, listen, nobody, settings, until};

pub(crate) const PORT: u16 = 3042;

/// An address of this machine that no other test listens at.
pub(crate) fn own_address() -> IpAddr {
    static NEXT: AtomicU8 = AtomicU8::new(100);
    let [.., high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, NEXT.fetch_add(1, Ordering::Relaxed), high, low).into()
}

/// A router with ports, and where the one is that tests use.
pub(crate) async fn world(change: impl FnOnce(&mut RouterSettings)) -> (World, SocketAddr) {
    let (folder, address) = (tempfile::tempdir().expect("a folder"), own_address());
    let mut settings = RouterSettings { tcp: Some(entrance(address)), ..settings(folder.path()) };
    change(&mut settings);
    (World::with(folder, settings).await, SocketAddr::new(address, PORT))
}

pub(crate) fn entrance(address: IpAddr) -> TcpEntrance {
    TcpEntrance { listen: vec![address], ports: "3000-3099".parse().expect("a range") }
}

/// To the workload of the same name as the app.
pub(crate) fn route(app: &str) -> TcpRoute {
    TcpRoute {
        port: PORT,
        host: None,
        terminate: false,
        target_port: None,
        idle: LONG,
        introduce: None,
        shares: vec![Share { workload: WorkloadId(app.to_owned()), weight: 1 }],
    }
}

/// Gives an app without web processes these routes, and returns once they are served.
pub(crate) async fn open(world: &World, app: &str, routes: &[TcpRoute]) {
    let row = AppRoute { tcp: routes.to_vec(), ..app_row(app, RouteMode::NoWeb) };
    let version = world.names.set(&app_id(app), Some(row));
    assert!(world.names.served(version, LONG).await);
}

/// An instance that speaks first, says again what it is told, and how much that was when its client has ended.
pub(crate) async fn talker(name: &'static str) -> Endpoint {
    let (listener, endpoint) = listen(name).await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut told, mut buffer) = (0, vec![0; 100_000]);
                stream.write_all(format!("220 {name}\n").as_bytes()).await?;
                loop {
                    let length = stream.read(&mut buffer).await?;
                    if length == 0 {
                        break stream.write_all(format!("bye {told}").as_bytes()).await;
                    }
                    told += length;
                    stream.write_all(&buffer[..length]).await?;
                }
            });
        }
    });
    endpoint
}

pub(crate) async fn read_line(stream: &mut TcpStream) -> String {
    let line = async {
        let mut line = Vec::new();
        while !line.ends_with(b"\n") {
            line.push(stream.read_u8().await.expect("a line"));
        }
        String::from_utf8_lossy(&line).into_owned()
    };
    timeout(LONG, line).await.expect("it comes")
}

pub(crate) async fn read_end(stream: &mut TcpStream) -> String {
    let mut rest = Vec::new();
    // Whoever is cut off may see a reset.
    let _ = timeout(LONG, stream.read_to_end(&mut rest)).await.expect("it ends");
    String::from_utf8_lossy(&rest).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_leads_to_an_instance_and_bytes_pass_both_ways_until_both_have_ended() {
    let (world, port) = world(|_| {}).await;
    world.instances("mail", &[&talker("one").await]).await;
    assert!(TcpStream::connect(port).await.is_err(), "nobody has the port");
    open(&world, "mail", &[route("mail")]).await;
    let mut client = TcpStream::connect(port).await.expect("it is open once it is served");
    assert_eq!(read_line(&mut client).await, "220 one\n", "who serves may speak first");
    client.write_all(b"hello\n").await.expect("sent");
    assert_eq!(read_line(&mut client).await, "hello\n");
    let much = vec![b'a'; 3_000_000];
    let (mut reader, mut writer) = client.split();
    let (mut back, sent) = (vec![0; much.len()], async {
        writer.write_all(&much).await.expect("sent");
        writer.shutdown().await.expect("half of it is closed");
    });
    let ((), read) = tokio::join!(sent, timeout(LONG, reader.read_exact(&mut back)));
    read.expect("it comes").expect("all of it");
    assert!(back == much);
    assert_eq!(read_end(&mut client).await, "bye 3000006", "the other half goes on");
    let parts =
        ["at=info protocol=tcp port=3042 fwd=\"127.0.0.1\" dyno=web.1 connect=", " received=3000006 bytes=3000025"];
    world.logged(&parts).await;

    open(&world, "mail", &[]).await;
    until(async || TcpStream::connect(port).await.is_err()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_refuses_is_passed_over_and_what_listens_elsewhere_is_found_there() {
    let (world, port) = world(|_| {}).await;
    world.instances("mail", &[&nobody("gone"), &talker("one").await]).await;
    open(&world, "mail", &[route("mail")]).await;
    for _ in 0..10 {
        assert_eq!(read_line(&mut TcpStream::connect(port).await.expect("open")).await, "220 one\n");
    }
    // Its own port is another one than that at which it is healthy.
    let (there, here) = (nobody("there"), talker("here").await);
    world.instances("mail", &[&there]).await;
    let other = TcpRoute { port: PORT + 1, target_port: Some(here.address.port()), ..route("mail") };
    open(&world, "mail", &[route("mail"), other]).await;
    let mut client = TcpStream::connect((port.ip(), PORT + 1)).await.expect("open");
    assert_eq!(read_line(&mut client).await, "220 here\n");
    let mut client = TcpStream::connect(port).await.expect("open");
    assert_eq!(read_end(&mut client).await, "");
    world
        .logged(&["at=error code=H21 desc=\"Backend connection refused\" protocol=tcp port=3042", " received=0"])
        .await;

    open(&world, "mail", &[TcpRoute { shares: vec![], ..route("mail") }]).await;
    assert_eq!(read_end(&mut TcpStream::connect(port).await.expect("open")).await, "");
    world.logged(&["at=error code=H14 desc=\"No processes running\" protocol=tcp port=3042"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_of_the_app_keep_clients_out_and_silence_ends_a_connection() {
    let (world, port) = world(|_| {}).await;
    world.instances("mail", &[&talker("one").await]).await;
    let mut row = AppRoute { tcp: vec![route("mail")], ..app_row("mail", RouteMode::NoWeb) };
    for (name, value, why) in [
        ("deny", "127.0.0.0/8", "Address not allowed"),
        ("rate_limit", "1/1h", "Too many connections from this address"),
    ] {
        let mut policy = RoutePolicy::default();
        policy.set(name, value).expect(name);
        row.policy = Some(Box::new(policy));
        assert!(world.names.served(world.names.set(&app_id("mail"), Some(row.clone())), LONG).await);
        let _first = TcpStream::connect(port).await.expect("open");
        let mut client = TcpStream::connect(port).await.expect("open");
        until(async || {
            let mut client = TcpStream::connect(port).await.expect("open");
            read_end(&mut client).await.is_empty()
        })
        .await;
        drop(client.shutdown().await);
        world.logged(&[&format!("at=warning desc=\"{why}\" protocol=tcp port=3042 fwd=\"127.0.0.1\" dyno= ")]).await;
    }
    row.policy = None;
    row.tcp[0].idle = Duration::from_millis(50);
    assert!(world.names.served(world.names.set(&app_id("mail"), Some(row.clone())), LONG).await);
    assert_eq!(read_end(&mut TcpStream::connect(port).await.expect("open")).await, "220 one\n");
    world.logged(&["at=error code=H15 desc=\"Idle connection\" protocol=tcp", "dyno=web.1", "bytes=8"]).await;
    row.mode = RouteMode::Maintenance;
    assert!(world.names.served(world.names.set(&app_id("mail"), Some(row)), LONG).await);
    assert_eq!(read_end(&mut TcpStream::connect(port).await.expect("open")).await, "");
    world.logged(&["at=info code=H80 desc=\"Maintenance mode\" protocol=tcp"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_balancer_says_who_comes_and_an_instance_is_told_if_it_wants() {
    let balancers = vec!["127.0.0.0/8".parse().expect("a network")];
    let (world, port) = world(|settings| settings.proxy_protocol = balancers).await;
    world.instances("mail", &[&talker("one").await]).await;
    let from = "PROXY TCP4 203.0.113.7 192.0.2.1 50000 4711\r\n";
    let told = format!("PROXY TCP4 203.0.113.7 {} 50000 {PORT}\r\n", port.ip());
    for (version, told) in [(Introduction::V1, told), (Introduction::V2, "\r\n\r\n\0\r\nQUIT\n!".to_owned())] {
        open(&world, "mail", &[TcpRoute { introduce: Some(version), ..route("mail") }]).await;
        let mut client = TcpStream::connect(port).await.expect("open");
        client.write_all(format!("{from}hello").as_bytes()).await.expect("sent");
        client.shutdown().await.expect("half of it is closed");
        let said = read_end(&mut client).await;
        assert!(said.starts_with(&format!("220 one\n{told}")) && said.contains("hellobye"), "{said:?}");
    }
    world.logged(&["at=info protocol=tcp port=3042 fwd=\"203.0.113.7\" dyno=web.1"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_are_open_again_before_a_publisher_is_there() {
    let (mut world, port) = world(|_| {}).await;
    world.instances("mail", &[&talker("one").await]).await;
    open(&world, "mail", &[route("mail")]).await;
    world.end_with_table_on_disk(&["\"tcp\":[{\"port\":3042", "healthy\":[{"]).await;
    assert!(TcpStream::connect(port).await.is_err());
    let settings = RouterSettings { tcp: Some(entrance(port.ip())), ..settings(world.folder.path()) };
    let router = start(settings).await;
    assert_eq!(read_line(&mut TcpStream::connect(port).await.expect("open")).await, "220 one\n");
    stop(router).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_router_takes_ports_over_and_connections_end_by_themselves() {
    let takeover = |settings: &mut RouterSettings| {
        let folder = settings.snapshot.parent().expect("a folder").to_owned();
        settings.takeover = Some(folder.join("takeover.sock"));
        settings.timeouts = Timeouts { drain: LONG, ..Timeouts::default() };
    };
    let (mut world, port) = world(takeover).await;
    world.instances("mail", &[&talker("one").await]).await;
    open(&world, "mail", &[route("mail")]).await;
    let mut early = TcpStream::connect(port).await.expect("open");
    assert_eq!(read_line(&mut early).await, "220 one\n");
    for workers in [3, 1] {
        let mut settings = RouterSettings { tcp: Some(entrance(port.ip())), workers, ..settings(world.folder.path()) };
        settings.listen = vec![world.address];
        takeover(&mut settings);
        let visitors = tokio::spawn(async move {
            for _ in 0..200 {
                let mut client = TcpStream::connect(port).await.expect("a port is never shut in between");
                assert_eq!(read_line(&mut client).await, "220 one\n");
            }
        });
        let next = start(settings).await;
        world.replaced().await;
        assert_eq!(read_line(&mut TcpStream::connect(port).await.expect("open")).await, "220 one\n");
        early.write_all(b"still here\n").await.expect("sent");
        assert_eq!(read_line(&mut early).await, "still here\n");
        visitors.await.expect("nobody was refused");
        early.shutdown().await.expect("half of it is closed");
        assert!(read_end(&mut early).await.starts_with("bye "));
        world.succeeded_by(next).await;
        early = TcpStream::connect(port).await.expect("open");
        assert_eq!(read_line(&mut early).await, "220 one\n");
    }
    drop(early);
    world.stop().await;
    assert!(TcpStream::connect(port).await.is_err());
}

/// A router has runtimes of its own, which may not end inside another one.
async fn start(settings: RouterSettings) -> Router {
    spawn_blocking(|| Router::start(settings).expect("a router")).await.expect("no panic")
}

async fn stop(router: Router) {
    spawn_blocking(|| router.stop()).await.expect("stopped");
}

/// An instance that ends TLS by itself and then is a talker, with the certificate of the authority that clients trust.
async fn secret_talker(name: &'static str, certificate: &Path, asks: bool) -> Endpoint {
    let (listener, endpoint) = listen(name).await;
    let chain =
        CertificateDer::pem_file_iter(certificate).expect("PEM").map(|one| one.expect("a certificate")).collect();
    let key = PrivateKeyDer::from_pem_file(certificate).expect("a key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("TLS");
    let config = config.with_no_client_auth().with_single_cert(chain, key).expect("a certificate");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                if asks {
                    let mut question = [0; 8];
                    stream.read_exact(&mut question).await?;
                    assert_eq!(question, SSL_REQUEST);
                    stream.write_all(b"S").await?;
                }
                let mut stream = acceptor.accept(stream).await?;
                stream.write_all(format!("secret {name}\n").as_bytes()).await?;
                let mut buffer = [0; 1000];
                while let length @ 1.. = stream.read(&mut buffer).await? {
                    stream.write_all(&buffer[..length]).await?;
                }
                stream.shutdown().await
            });
        }
    });
    endpoint
}

const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

fn at(host: &str, terminate: bool, app: &str) -> TcpRoute {
    TcpRoute { host: Some(host.parse().expect("a host name")), terminate, ..route(app) }
}

/// The first line of what has this name at the port, and how that answers another one.
async fn told(secure: &Secure, port: SocketAddr, begin: &[u8], name: &'static str) -> Result<String, std::io::Error> {
    let mut stream = TcpStream::connect(port).await.expect("open");
    if !begin.is_empty() {
        stream.write_all(begin).await.expect("sent");
        assert_eq!(stream.read_u8().await.expect("an answer"), b'S');
    }
    let mut stream = secure.begin(stream, name).await?;
    let mut line = Vec::new();
    while !line.ends_with(b"\n") {
        line.push(timeout(LONG, stream.read_u8()).await.expect("it comes")?);
    }
    stream.write_all(b"again").await?;
    let mut again = [0; 5];
    timeout(LONG, stream.read_exact(&mut again)).await.expect("it comes")?;
    assert_eq!(&again, b"again");
    Ok(String::from_utf8_lossy(&line).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn apps_share_a_port_by_the_name_that_a_client_wants_by_tls() {
    let address = own_address();
    let port = SocketAddr::new(address, PORT);
    let secure = Secure::with(|settings| settings.tcp = Some(entrance(address))).await;
    let (world, certificate) = (&secure.world, secure.certificate());
    world.instances("base", &[&secret_talker("db", &certificate, false).await]).await;
    world.instances("mail", &[&talker("mail").await]).await;
    open(world, "base", &[at("db.platform.example", false, "base")]).await;
    open(world, "mail", &[at("*.platform.example", true, "mail")]).await;
    // The app ends TLS by itself, or the router does, with the platform's certificate.
    let hear = async |name| told(&secure, port, b"", name).await;
    assert_eq!(hear("db.platform.example").await.expect("heard"), "secret db\n");
    assert_eq!(hear("other.platform.example").await.expect("heard"), "220 mail\n");
    world
        .logged(&["at=info protocol=tcp port=3042", " dyno=web.1 ", " host=db.platform.example tls=passthrough"])
        .await;
    world.logged(&["at=info protocol=tcp", " bytes=14 host=other.platform.example tls=true tls_version=tls1.3"]).await;

    // Nobody has it: that is what the client is told.
    for name in ["localhost", "127.0.0.1"] {
        let error = hear(name).await.expect_err("nobody's");
        assert!(error.to_string().contains("UnrecognisedName"), "{error}");
    }
    let mut plain = TcpStream::connect(port).await.expect("open");
    plain.write_all(b"hello\n").await.expect("sent");
    assert_eq!(read_end(&mut plain).await, "");
    let mut garbled = TcpStream::connect(port).await.expect("open");
    garbled.write_all(&[22, 3, 1, 0, 5, 99, 0, 0, 1, 0]).await.expect("sent");
    let mut alert = Vec::new();
    let _ = timeout(LONG, garbled.read_to_end(&mut alert)).await.expect("it ends");
    assert_eq!(alert.first(), Some(&21), "an alert: {alert:?}");

    // Who has all of the port besides takes what nobody else does, whatever it speaks.
    open(world, "mail", &[at("*.platform.example", true, "mail"), route("mail")]).await;
    let mut plain = TcpStream::connect(port).await.expect("open");
    plain.write_all(b"hello\n").await.expect("sent");
    assert_eq!([read_line(&mut plain).await, read_line(&mut plain).await], ["220 mail\n", "hello\n"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_postgresql_ask_before_they_begin_tls() {
    let address = own_address();
    let port = SocketAddr::new(address, PORT);
    let secure = Secure::with(|settings| settings.tcp = Some(entrance(address))).await;
    let world = &secure.world;
    world.instances("base", &[&secret_talker("db", &secure.certificate(), true).await]).await;
    world.instances("mail", &[&talker("mail").await]).await;
    open(world, "base", &[at("db.platform.example", false, "base")]).await;
    open(world, "mail", &[at("mail.platform.example", true, "mail")]).await;
    let hear = async |name| told(&secure, port, &SSL_REQUEST, name).await.expect("heard");
    assert_eq!(hear("db.platform.example").await, "secret db\n");
    assert_eq!(hear("mail.platform.example").await, "220 mail\n");
}
