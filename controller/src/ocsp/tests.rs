//! With a real responder, `openssl ocsp`, and in the end a real client, `openssl s_client`.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use axum::http::StatusCode;
use axum::response::IntoResponse;
use model::clock::{Clock, SystemClock};
use model::{SniEndpointId, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, SerialNumber,
};
use router::Router;
use serde_json::{Value, json};

use super::*;
use crate::store::{AcmStatus, DomainOrder, ManagedDomain};
use crate::testing::TestController;
use crate::testing::http::{Caller, Server};

const MINUTE: Duration = Duration::from_secs(60);
/// How long answers are good here.
const LIFE: Duration = Duration::from_secs(600 * 60);

/// An authority, whose responder goes by a list of its certificates.
struct Authority {
    folder: tempfile::TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate with its key, in PEM.
struct Signed {
    certificate: String,
    key: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new([]).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "Test Authority");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority");
        let folder = tempfile::tempdir().expect("a folder");
        let authority = Self { folder, issuer };
        fs::write(authority.path("ca.pem"), authority.issuer.pem()).expect("written");
        authority
            .keep("self", &Signed { certificate: authority.issuer.pem(), key: authority.issuer.key().serialize_pem() });
        authority.list(&[(1, None)]);
        authority
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn keep(&self, name: &str, signed: &Signed) {
        fs::write(self.path(&format!("{name}.pem")), format!("{}{}", signed.key, signed.certificate)).expect("written");
    }

    fn sign(&self, serial: u64, change: impl FnOnce(&mut CertificateParams)) -> Signed {
        let mut params = CertificateParams::new(["www.example.com".to_owned()]).expect("parameters");
        params.serial_number = Some(SerialNumber::from(serial));
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("signed").pem();
        Signed { certificate, key: key.serialize_pem() }
    }

    /// A certificate of number 1 whose responder is at this URL.
    fn leaf(&self, url: &str) -> Signed {
        self.sign(1, |params| params.custom_extensions.push(responder_at(url)))
    }

    /// The same with its issuer's.
    fn chain(&self, leaf: &Signed) -> String {
        format!("{}{}", leaf.certificate, self.issuer.pem())
    }

    /// From now on, the responder knows these numbers, and whose certificate was taken back why.
    fn list(&self, known: &[(u64, Option<&str>)]) {
        let line = |(serial, revoked): &(u64, Option<&str>)| match revoked {
            None => format!("V\t301231235959Z\t\t{serial:02X}\tunknown\t/CN=x\n"),
            Some(why) => format!("R\t301231235959Z\t201130000000Z,{why}\t{serial:02X}\tunknown\t/CN=x\n"),
        };
        // A file of another inode: the responder reads it again.
        fs::write(self.path("new.txt"), known.iter().map(line).collect::<String>()).expect("written");
        fs::rename(self.path("new.txt"), self.path("index.txt")).expect("renamed");
    }

    fn openssl(&self, signer: &str) -> Command {
        let mut command = Command::new("openssl");
        let minutes = (LIFE.as_secs() / 60).to_string();
        let signer = self.path(&format!("{signer}.pem"));
        command.args(["ocsp", "-nmin", &minutes]).arg("-index").arg(self.path("index.txt"));
        command.arg("-CA").arg(self.path("ca.pem")).arg("-rsigner").arg(&signer).arg("-rkey").arg(signer);
        command
    }

    /// What the responder answers.
    fn answer(&self, question: &Question, how: (&str, &[&str])) -> Vec<u8> {
        self.answer_to(&question.request().expect("a request"), how)
    }

    fn answer_to(&self, question: &[u8], (signer, more): (&str, &[&str])) -> Vec<u8> {
        let (request, answer) = (self.path("request"), self.path("answer"));
        fs::write(&request, question).expect("written");
        let mut command = self.openssl(signer);
        let output = command.args(more).arg("-reqin").arg(request).arg("-respout").arg(&answer).output();
        let output = output.expect("openssl is installed: scripts/deps.sh test");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        fs::read(answer).expect("an answer")
    }

    fn serve(&self) -> Responder {
        let mut command = self.openssl("self");
        let mut child =
            command.args(["-port", "0"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("openssl");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines().map_while(Result::ok);
        // `ACCEPT 0.0.0.0:40123 PID=17`
        let line = lines.find(|line| line.starts_with("ACCEPT ")).expect("a port");
        let address = line.split(' ').nth(1).expect("an address");
        let port = address.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
        Responder { child, port }
    }
}

/// A responder of an authority that goes by its list as it is: that of openssl reads it once. The URL, and what ends it.
async fn attentive(authority: &Arc<Authority>) -> (String, tokio::task::JoinHandle<io::Result<()>>) {
    let authority = Arc::clone(authority);
    let answer = async move |request: Bytes| authority.answer_to(&request, ("self", &[]));
    let routes = axum::Router::new().route("/ocsp", axum::routing::post(answer));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/ocsp", listener.local_addr().expect("an address"));
    (url, tokio::spawn(async move { axum::serve(listener, routes).await }))
}

/// The authority's responder.
struct Responder {
    child: Child,
    port: u16,
}

impl Responder {
    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/ocsp", self.port)
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let length = u8::try_from(content.len()).expect("little");
    assert!(length < 128);
    [vec![tag, length], content].concat()
}

/// The extension that names a responder (RFC 5280, section 4.2.2.1).
fn responder_at(url: &str) -> CustomExtension {
    let ocsp = tlv(0x06, &[&[0x2b, 6, 1, 5, 5, 7, 0x30, 1]]);
    let content = tlv(0x30, &[&tlv(0x30, &[&ocsp, &tlv(0x86, &[url.as_bytes()])])]);
    CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 1], content)
}

/// Now, and in the time of answers.
fn now() -> Timestamp {
    SystemClock.now()
}

fn question(authority: &Authority) -> Question {
    Question::of(&authority.chain(&authority.leaf("http://ocsp.example.com"))).expect("somebody to ask")
}

#[test]
fn an_answer_counts_if_the_issuer_signed_it_or_whom_the_issuer_lets_sign() {
    let authority = Authority::new();
    let asked = question(&authority);
    let sign_for = |usage| {
        move |params: &mut CertificateParams| {
            params.extended_key_usages = vec![usage];
            params.not_after = time::OffsetDateTime::now_utc() + LIFE * 2;
        }
    };
    authority.keep("delegate", &authority.sign(7, sign_for(ExtendedKeyUsagePurpose::OcspSigning)));
    authority.keep("server", &authority.sign(8, sign_for(ExtendedKeyUsagePurpose::ServerAuth)));
    let stranger = Authority::new();
    authority.keep("stranger", &stranger.sign(9, sign_for(ExtendedKeyUsagePurpose::OcspSigning)));
    for signer in ["self", "delegate"] {
        let answer = answer::read(&authority.answer(&asked, (signer, &[])), &asked, now()).expect(signer);
        assert_eq!(answer.revoked, None);
        assert_eq!(answer.expires_at.since(answer.starts_at), LIFE);
    }
    let refused = |der: &[u8], now| answer::read(der, &asked, now).expect_err("refused");
    for signer in ["server", "stranger"] {
        let why = refused(&authority.answer(&asked, (signer, &[])), now());
        assert!(why.contains("signed by nobody"), "{signer}: {why}");
    }
    let damaged = authority.answer(&asked, ("self", &["-badsig"]));
    assert!(refused(&damaged, now()).contains("signed by nobody"));
    let lonely = authority.answer(&asked, ("delegate", &["-resp_no_certs"]));
    assert!(refused(&lonely, now()).contains("signed by nobody"), "whose certificate is not there");
    let delegated = authority.answer(&asked, ("delegate", &[]));
    assert!(refused(&delegated, now().after(LIFE * 3)).contains("signed by nobody"), "its certificate has expired");
}

#[test]
fn an_answer_counts_if_it_is_about_this_certificate_and_of_now() {
    let authority = Authority::new();
    let asked = question(&authority);
    let good = authority.answer(&asked, ("self", &[]));
    let refused = |der: &[u8], now| answer::read(der, &asked, now).expect_err("refused");
    assert!(refused(&good, now().after(LIFE)).contains("was good until"));
    assert!(refused(&good, now().before(10 * MINUTE)).contains("good only from"));
    assert!(answer::read(&good, &asked, now().before(4 * MINUTE)).is_ok(), "clocks differ a little");

    authority.list(&[(1, Some("keyCompromise")), (2, None)]);
    let other = Question::of(&authority.chain(&authority.sign(2, |params| {
        params.custom_extensions.push(responder_at("http://ocsp.example.com"));
    })));
    let of_other = authority.answer(&other.expect("somebody to ask"), ("self", &[]));
    assert!(refused(&of_other, now()).contains("about another certificate"));
    let revoked = answer::read(&authority.answer(&asked, ("self", &[])), &asked, now()).expect("an answer");
    assert_eq!(
        revoked.revoked.as_deref(),
        Some("its authority revoked it on 2020-11-30T00:00:00Z (its key was compromised)")
    );
    authority.list(&[]);
    assert!(refused(&authority.answer(&asked, ("self", &[])), now()).contains("does not know"));
    // An answer of one byte: `tryLater`.
    assert!(refused(&[0x30, 3, 0x0a, 1, 3], now()).contains("tryLater"));
    for length in 0..good.len() {
        answer::read(&good[..length], &asked, now()).expect_err("half an answer");
    }
    for place in 0..good.len() {
        let mut changed = good.clone();
        changed[place] ^= 1;
        // Nothing of what was signed can be another; names of algorithms have more than one spelling, and certificates are not all looked at.
        if let Ok(answer) = answer::read(&changed, &asked, now()) {
            assert_eq!(answer, answer::read(&good, &asked, now()).expect("good"), "byte {place}");
        }
    }
}

#[test]
fn certificates_say_whether_somebody_can_be_asked() {
    let authority = Authority::new();
    let why = |chain: &str| Question::of(chain).expect_err("nobody to ask");
    assert_eq!(why(&authority.chain(&authority.sign(1, |_| {}))), "the certificate names no OCSP responder");
    assert_eq!(
        why(&authority.chain(&authority.leaf("ldap://ocsp.example.com"))),
        "the certificate names no OCSP responder"
    );
    assert_eq!(
        why(&authority.leaf("http://ocsp.example.com").certificate),
        "the chain has no certificate of the issuer"
    );
    assert_eq!(question(&authority).url.as_str(), "http://ocsp.example.com/");
}

/// A platform with an app whose domain is `www.example.com`.
struct World {
    server: Server,
    worker: Worker,
    ada: Caller,
}

impl World {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut Controller)) -> Self {
        let mut test = TestController::new().await;
        let passed = SystemClock.now().since(test.clock.now());
        test.clock.advance(passed);
        change(Arc::get_mut(&mut test.controller).expect("nobody else has it yet"));
        let worker = Worker::new(test.controller.clone());
        let server = Server::over(test).await;
        let ada = server.user_with_app("ada@example.com", "shop").await;
        let world = Self { server, worker, ada };
        let domain = json!({ "hostname": "www.example.com" });
        assert_eq!(world.ada.send("POST", "/apps/shop/domains", &[], domain).await.status, 201);
        world
    }

    fn controller(&self) -> &Arc<Controller> {
        &self.server.test.controller
    }

    /// Brings a certificate.
    async fn bring(&self, chain: &str, key: &str) -> Value {
        let wish = json!({ "certificate_chain": chain, "private_key": key });
        let made = self.ada.send("POST", "/apps/shop/sni-endpoints", &[], wish).await;
        assert_eq!(made.status, 201, "{}", made.text);
        made.body
    }

    /// Gets a certificate, as if its authority had just issued it.
    async fn get(&self, chain: &str, key: &str) {
        let (controller, hostname) = (self.controller(), "www.example.com".parse().expect("a host name"));
        let domain = controller.store.domain_of_host(&hostname).await.expect("readable").expect("there");
        let (id, app, now) = (domain.id, domain.app, controller.clock.now());
        let managed = ManagedDomain { id, app, hostname, on_demand: false, shown: None, revoked: None, order: None };
        let (id, chain) = (SniEndpointId::random(&*controller.random), chain.to_owned());
        let name = "got".to_owned();
        let endpoint = SniEndpoint { id, app, name, chain, acm: true, created_at: now, updated_at: now };
        let due_at = now.after(LIFE * 10);
        let order = DomainOrder { status: AcmStatus::Issued, reason: None, failures: 0, due_at, updated_at: now };
        controller
            .store
            .save_managed(&managed, (&endpoint, key, &order), &controller.own_stamp())
            .await
            .expect("saved");
    }

    async fn look(&self) -> Duration {
        self.worker.look().await.expect("a look")
    }

    async fn later(&self, by: Duration) {
        self.server.test.clock.advance(by);
        self.look().await;
    }

    /// What the API says of the only certificate: the status, and why.
    async fn said(&self) -> (String, String) {
        let answer = self.ada.get("/apps/shop/sni-endpoints").await.body;
        let ocsp = &answer[0]["ocsp"];
        let text = |field: &str| ocsp[field].as_str().unwrap_or_default().to_owned();
        assert_eq!(ocsp["expires_at"].is_string(), self.told().is_some(), "{ocsp}");
        (text("status"), text("reason"))
    }

    async fn status(&self) -> String {
        self.said().await.0
    }

    /// The staple that routers are told.
    fn told(&self) -> Option<String> {
        let certificates = &self.controller().live.certificates;
        let row = certificates.keys().first().and_then(|app| certificates.row(app))?;
        row.certificates.first()?.staple.as_ref().map(|staple| staple.answer.clone())
    }

    /// The events of certificates that say something of their authority.
    async fn alerts(&self) -> Vec<String> {
        let events = self.ada.get("/apps/shop/events").await.body;
        let told = events.as_array().expect("a list").iter();
        let mut told: Vec<_> =
            told.filter_map(|event| event["data"]["ocsp_status"].as_str().map(str::to_owned)).collect();
        told.sort();
        told
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_shared_by_routers_renewed_and_shown_until_it_expires() {
    let (authority, world) = (Arc::new(Authority::new()), World::new().await);
    let (url, responder) = attentive(&authority).await;
    let leaf = authority.leaf(&url);
    world.bring(&authority.chain(&leaf), &leaf.key).await;
    assert_eq!((world.status().await.as_str(), world.told()), ("pending", None));
    assert_eq!(world.look().await, LOOK, "nothing is due soon");
    let first = world.told().expect("a staple");
    assert_eq!(world.said().await, ("good".to_owned(), String::new()));
    // Another life tells the same before it asks anybody.
    let next = world.server.test.next_life().await;
    next.controller.publish_all_certificates().await.expect("told");
    let certificates = &next.controller.live.certificates;
    let row = certificates.row(&certificates.keys()[0]).expect("a row");
    assert_eq!(row.certificates[0].staple.as_ref().map(|staple| &staple.answer), Some(&first));

    authority.list(&[(1, Some("keyCompromise"))]);
    world.later(LIFE * 4 / 10).await;
    assert_eq!(world.status().await, "good", "nobody was asked again");
    world.later(LIFE / 10 + MINUTE).await;
    let (status, why) = world.said().await;
    assert_eq!((status.as_str(), world.told()), ("revoked", None));
    assert!(why.contains("its key was compromised"), "{why}");
    let store = &world.controller().store;
    let app = store.app_ids().await.expect("readable")[0];
    let app = store.app(app).await.expect("readable").expect("there");
    let domains = world.controller().domains(&app).await.expect("known");
    assert_eq!(domains.iter().filter_map(|domain| domain.revoked.clone()).collect::<Vec<_>>(), [why]);
    assert_eq!(world.alerts().await, ["revoked"]);

    authority.list(&[(1, None)]);
    world.later(LIFE / 4).await;
    assert_eq!(world.status().await, "good");
    let last = world.told().expect("a staple");
    responder.abort();
    assert!(responder.await.is_err_and(|error| error.is_cancelled()), "nobody listens any more");
    world.later(LIFE / 8).await;
    let (status, why) = world.said().await;
    assert_eq!((status.as_str(), world.told()), ("good", Some(last)));
    assert!(why.contains("cannot be asked"), "{why}");
    world.later(LIFE / 8).await;
    assert_eq!((world.status().await.as_str(), world.told()), ("failing", None));
    assert_eq!(world.alerts().await, ["failing", "good", "revoked"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_goes_with_its_certificate() {
    let (authority, world) = (Authority::new(), World::new().await);
    let responder = authority.serve();
    let leaf = authority.leaf(&responder.url());
    let made = world.bring(&authority.chain(&leaf), &leaf.key).await;
    world.look().await;
    assert!(world.told().is_some());
    world.server.test.clock.advance(MINUTE);
    let other = authority.sign(2, |_| {});
    let wish = json!({ "certificate_chain": authority.chain(&other), "private_key": other.key });
    let path = format!("/apps/shop/sni-endpoints/{}", made["name"].as_str().expect("a name"));
    assert_eq!(world.ada.send("PATCH", &path, &[], wish).await.status, 200);
    assert_eq!((world.status().await.as_str(), world.told()), ("pending", None), "it is of the one before");
    world.look().await;
    assert_eq!(world.said().await, ("none".to_owned(), "the certificate names no OCSP responder".to_owned()));
    assert_eq!(world.alerts().await, [""; 0], "many authorities answer no questions");

    // One that arrives when another certificate is there already is not kept.
    let due = Stapled { endpoint: endpoint(&world).await, staple: None };
    let before = Stapled { endpoint: SniEndpoint { chain: authority.chain(&leaf), ..due.endpoint.clone() }, ..due };
    let controller = world.controller();
    let late = plan::refused(before.endpoint.id, None, "late".to_owned().into(), controller.clock.now());
    assert!(!controller.store.save_staple(&before, &late, &controller.own_stamp()).await.expect("not saved"));
    assert_eq!(world.status().await, "none");
}

async fn endpoint(world: &World) -> SniEndpoint {
    let store = &world.controller().store;
    let app = store.app_ids().await.expect("readable")[0];
    store.sni_endpoints(app).await.expect("readable").remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_responder_in_the_platforms_network_is_asked_only_by_what_the_platform_got_itself() {
    let authority = Authority::new();
    let responder = authority.serve();
    let world = World::with(|controller| controller.outbound = Outbound::new(Vec::new())).await;
    let leaf = authority.leaf(&responder.url());
    world.bring(&authority.chain(&leaf), &leaf.key).await;
    world.look().await;
    let (status, why) = world.said().await;
    assert!(status == "failing" && why.contains("not public"), "{status}: {why}");

    // The operator's own authority may be anywhere.
    let acme = crate::settings::Acme { directory: String::new(), email: None, ca: None, dns_hook: None };
    let world = World::with(|controller| {
        controller.outbound = Outbound::new(Vec::new());
        controller.settings.acme = Some(acme);
    })
    .await;
    world.get(&authority.chain(&leaf), &leaf.key).await;
    world.look().await;
    assert_eq!(world.status().await, "good");
}

#[tokio::test(flavor = "multi_thread")]
async fn those_that_nobody_answers_for_wait_for_the_others() {
    let (authority, world) = (Authority::new(), World::new().await);
    let away = authority.leaf("http://127.0.0.1:1/");
    let mut names = Vec::new();
    for _ in 0..2 {
        let made = world.bring(&authority.chain(&away), &away.key).await;
        names.push(made["name"].as_str().expect("a name").to_owned());
        world.server.test.clock.advance(2 * MINUTE);
        world.look().await;
    }
    let fresh = world.bring(&authority.chain(&away), &away.key).await;
    world.server.test.clock.advance(10 * MINUTE);
    let controller = world.controller();
    let due = controller.store.due_staples(controller.clock.now(), 10).await.expect("readable");
    let due: Vec<_> = due.iter().map(|due| due.endpoint.name.as_str()).collect();
    // The first one has failed twice, although it has waited longest.
    assert_eq!(due, [fresh["name"].as_str().expect("a name"), names[1].as_str(), names[0].as_str()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_platform_got_and_its_authority_took_back_is_ordered_anew() {
    let (authority, world) = (Arc::new(Authority::new()), World::new().await);
    let (url, _responder) = attentive(&authority).await;
    let leaf = authority.leaf(&url);
    world.ada.send("POST", "/apps/shop/acm", &[], Value::Null).await;
    world.get(&authority.chain(&leaf), &leaf.key).await;
    let came = world.controller().clock.now();
    world.look().await;
    let due = async || {
        let controller = world.controller();
        let due = controller.store.due_certificates(controller.clock.now(), 10).await.expect("readable");
        due.into_iter().map(|domain| domain.revoked).collect::<Vec<_>>()
    };
    assert_eq!(due().await, []);
    authority.list(&[(1, Some("superseded"))]);
    world.later(LIFE / 2 + MINUTE).await;
    assert_eq!(due().await, [Some(came)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_answer_is_asked_for_again_and_must_staple_is_told() {
    let (authority, world) = (Authority::new(), World::new().await);
    let routes = axum::Router::new()
        .route("/large", axum::routing::post(async || vec![b'x'; MAX_ANSWER + 1]))
        .route("/busy", axum::routing::post(async || (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "7200")])))
        .route("/moved", axum::routing::post(async || axum::response::Redirect::temporary("/busy").into_response()));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, routes).await });
    for (path, reason) in [("large", "length limit"), ("busy", "503"), ("moved", "307")] {
        let leaf = authority.sign(1, |params| {
            let feature = tlv(0x30, &[&[2, 1, 5]]);
            params.custom_extensions.push(responder_at(&format!("http://{address}/{path}")));
            params.custom_extensions.push(CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 24], feature));
        });
        let made = world.bring(&authority.chain(&leaf), &leaf.key).await;
        assert_eq!(made["ocsp"]["must_staple"], true);
        world.look().await;
        let (status, why) = world.said().await;
        assert!(status == "failing" && why.contains(reason), "{path}: {why}");
        let staple = world.controller().store.next_staple().await.expect("readable").expect("one");
        let wait = staple.since(world.controller().clock.now());
        let least = if path == "busy" { 120 * MINUTE } else { MINUTE };
        assert!((least..least * 5 / 4).contains(&wait), "{path}: {wait:?}");
        let name = made["name"].as_str().expect("a name");
        world.ada.send("DELETE", &format!("/apps/shop/sni-endpoints/{name}"), &[], Value::Null).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_wants_to_know_hears_from_the_router_that_the_certificate_is_good() {
    let (authority, world) = (Authority::new(), World::new().await);
    let responder = authority.serve();
    let leaf = authority.leaf(&responder.url());
    world.bring(&authority.chain(&leaf), &leaf.key).await;
    let settings = crate::testing::router::settings(authority.folder.path());
    let (feed, socket) = (world.controller().live.certificates.clone(), settings.certificates_socket.clone());
    let (patience, told) = (Duration::from_secs(30), feed.clone());
    tokio::spawn(async move { feed.serve(&socket).await });
    let router = Router::start(settings).expect("a router");
    let address = router.tls_addresses()[0];
    let ask = async |version: &'static str| {
        assert!(told.served(told.version(), patience).await);
        let ca = authority.path("ca.pem");
        tokio::task::spawn_blocking(move || client(address, version, &ca)).await.expect("an answer")
    };
    assert!(ask("-tls1_3").await.contains("OCSP response: no response sent"));
    world.look().await;
    for version in ["-tls1_2", "-tls1_3"] {
        let heard = ask(version).await;
        assert!(heard.contains("Cert Status: good") && heard.contains("Verify return code: 0"), "{heard}");
    }
    tokio::task::spawn_blocking(move || router.stop()).await.expect("stopped");
}

/// What `openssl s_client` hears from the router.
fn client(address: SocketAddr, version: &str, ca: &std::path::Path) -> String {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-status", version, "-servername", "www.example.com", "-connect", &address.to_string()]);
    let output = command.arg("-CAfile").arg(ca).stdin(Stdio::null()).output().expect("openssl");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
