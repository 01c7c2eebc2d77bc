//! The client against a server that answers as the platform does, well or badly.

use std::net::TcpListener as StdListener;

use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::{TcpListener, UnixListener};

use super::*;
use crate::output::Paint;

/// Serves until the test ends: the runtime takes its tasks with it.
struct Platform {
    _runtime: tokio::runtime::Runtime,
    base: Url,
}

fn platform(router: Router) -> Platform {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    runtime.spawn(async move { axum::serve(listener, router).await });
    Platform { _runtime: runtime, base }
}

impl Platform {
    fn client(&self) -> Client {
        Client::new(self.base.clone(), Some("secret".to_owned()))
    }
}

fn report(error: &CliError) -> String {
    error.report(Paint::plain())
}

#[test]
fn a_list_is_read_over_all_its_pages_with_the_token() {
    let page = async |headers: HeaderMap| {
        assert_eq!(headers["authorization"], "Bearer secret");
        match headers.get("range") {
            None => (StatusCode::PARTIAL_CONTENT, [("next-range", "name ]b..")], Json(json!(["a", "b"]))),
            Some(range) => {
                assert_eq!(range, "name ]b..");
                (StatusCode::OK, [("x", "")], Json(json!(["c"])))
            }
        }
    };
    let platform = platform(Router::new().route("/apps", get(page)));
    assert_eq!(platform.client().list(&["apps"]).unwrap(), json!(["a", "b", "c"]));
}

#[test]
fn a_name_cannot_lead_to_another_path() {
    let seen = async |uri: axum::http::Uri| Json(json!(uri.path()));
    let platform = platform(Router::new().fallback(seen));
    assert_eq!(platform.client().get(&["apps", "../account", "a b?c"]).unwrap(), "/apps/..%2Faccount/a%20b%3Fc");
}

#[test]
fn a_refusal_is_shown_as_the_platform_words_it() {
    let refuse = |status, id: &'static str, message: &'static str| {
        get(async move || (status, Json(json!({ "id": id, "message": message }))))
    };
    let router = Router::new()
        .route("/taken", refuse(StatusCode::UNPROCESSABLE_ENTITY, "invalid_params", "Name is already taken"))
        .route("/nobody", refuse(StatusCode::UNAUTHORIZED, "unauthorized", "Invalid credentials provided."))
        .route("/page", get(async || (StatusCode::SERVICE_UNAVAILABLE, "<html>")));
    let platform = platform(router);
    let refused = |path| platform.client().get(&[path]).unwrap_err();

    assert_eq!(report(&refused("taken")), "Error: Name is already taken\n");
    assert_eq!(refused("taken").kind, Kind::Failed);
    assert_eq!(refused("nobody").kind, Kind::Login);
    assert!(report(&refused("nobody")).contains("Log in with `platform login`."));
    assert_eq!(refused("page").kind, Kind::Unreachable);
    assert!(report(&refused("page")).contains("503 Service Unavailable"));
}

#[test]
fn nobody_there_is_said_with_what_to_do() {
    let unused = StdListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = Client::new(format!("http://{unused}").parse().unwrap(), None).get(&["apps"]).unwrap_err();
    assert_eq!(error.kind, Kind::Unreachable);
    let report = report(&error);
    assert!(report.starts_with(&format!("Error: Cannot reach the platform at http://{unused}\n")), "{report}");
    assert!(report.contains("refused") && report.contains("`platform up`"), "{report}");
}

#[test]
fn the_control_socket_speaks_the_same_language() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("control.sock");
    let absent = Client::local(&socket).unwrap().get(&["users"]).unwrap_err();
    assert!(report(&absent).contains("as root"), "{}", report(&absent));

    let runtime = tokio::runtime::Runtime::new().unwrap();
    let listener = runtime.block_on(async { UnixListener::bind(&socket) }).unwrap();
    let create = async |Json(mut user): Json<Value>| {
        user["token"] = "t".repeat(100_000).into();
        (StatusCode::CREATED, Json(user))
    };
    runtime.spawn(async move { axum::serve(listener, Router::new().route("/users", post(create))).await });
    let made = Client::local(&socket).unwrap().post(&["users"], &json!({ "email": "ada@localhost" })).unwrap();
    let user: NewUser = typed(&made).unwrap();
    assert_eq!((user.email.as_str(), user.token.len()), ("ada@localhost", 100_000));
}

#[test]
fn a_stream_is_read_line_by_line_whatever_its_bytes() {
    let stream = &b"one\r\ntwo \xff\n\nlast"[..];
    assert_eq!(lines(stream).map(Result::unwrap).collect::<Vec<_>>(), ["one", "two \u{fffd}", "", "last"]);
}
