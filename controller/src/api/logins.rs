//! How programs are let in by a browser, as `heroku login` asks for it (`HEROKU_LOGIN_HOST`).

use std::convert::Infallible;
use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::request::Parts;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::auth::{Credentials, origin};
use super::describe::{Description, Input};
use super::error::ApiError;
use super::input::{Body, Text};
use super::output::Created;
use crate::{Controller, Error, Origin};

/// A program that asks to be let in.
#[derive(Deserialize, ToSchema)]
pub(super) struct CreateLogin {
    /// What it says of itself to whoever decides.
    description: Option<Text>,
}

/// Where somebody lets it in.
#[derive(Serialize, ToSchema)]
#[schema(as = Login)]
pub(super) struct LoginAnswer {
    /// Path of the page at which a person lets the program in.
    browser_url: String,
    /// Path at which the program waits for that.
    cli_url: String,
    /// What the program and the page show, so that people see that they belong together.
    code: String,
    /// What the program brings to `cli_url`, as `Bearer`.
    token: String,
}

/// What was decided.
#[derive(Serialize, ToSchema)]
#[schema(as = LoginDecision)]
pub(super) struct DecisionAnswer {
    /// What the program comes in with from now on.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    access_token: Option<String>,
    /// Why there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    error: Option<&'static str>,
}

/// Whoever asks without being known.
pub(super) struct Stranger {
    origin: Origin,
    secret: Option<String>,
}

impl FromRequestParts<Arc<Controller>> for Stranger {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Controller>) -> Result<Self, Infallible> {
        let secret = Credentials::of(parts).map(|credentials| credentials.token().to_owned());
        Ok(Self { origin: origin(parts), secret })
    }
}

impl Input for Stranger {
    fn describe(description: &mut Description<'_>) {
        description.errors(&[429]);
    }
}

/// `POST /auth`
pub(super) async fn create(
    State(controller): State<Arc<Controller>>,
    stranger: Stranger,
    Body(wish): Body<CreateLogin>,
) -> Result<Created<LoginAnswer>, ApiError> {
    let description = wish.description.map_or_else(|| "A program".to_owned(), |text| text.0);
    let asking = controller.ask_for_login(&description, stranger.origin)?;
    Ok(Created(LoginAnswer {
        browser_url: format!("/console/login/{}", asking.id),
        cli_url: format!("/cli/{}", asking.id),
        code: asking.code,
        token: asking.secret,
    }))
}

/// `GET /cli/{login}`: answered once somebody decided, after ten minutes at the latest.
pub(super) async fn decision(
    State(controller): State<Arc<Controller>>,
    Path(login): Path<String>,
    stranger: Stranger,
) -> Result<Json<DecisionAnswer>, ApiError> {
    let secret = stranger.secret.ok_or(Error::NotFound("login"))?;
    let access_token = controller.decided_login(&login, &secret).await?;
    let error = access_token.is_none().then_some("Nobody let this program in.");
    Ok(Json(DecisionAnswer { access_token, error }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::http::Server;

    #[tokio::test]
    async fn a_program_waits_until_somebody_lets_it_in() {
        let server = Server::start().await;
        let ada = server.test.somebody("ada@example.com").await;
        let asked = server
            .stranger()
            .send("POST", "/auth", &[], json!({ "description": "Heroku CLI login from laptop" }))
            .await;
        assert_eq!(asked.status, 201);
        let text = |field: &str| asked.body[field].as_str().expect(field).to_owned();
        let id = text("browser_url").strip_prefix("/console/login/").expect("a page").to_owned();
        let wait = text("cli_url");
        assert_eq!(server.with_token("guess").get(&wait).await.status, 404);
        assert_eq!(server.stranger().get(&wait).await.status, 404);
        let program = server.with_token(&text("token"));
        let decide = async { server.test.controller.decide_login(&id, &ada, true).expect("decided") };
        let (told, ()) = tokio::join!(program.get(&wait), decide);
        let token = told.body["access_token"].as_str().expect("a token").to_owned();
        assert_eq!(server.with_token(&token).get("/account").await.body["email"], "ada@example.com");
        assert_eq!(program.get(&wait).await.status, 404, "told once");
    }

    #[tokio::test]
    async fn a_program_that_is_turned_away_is_told_so() {
        let server = Server::start().await;
        let ada = server.test.somebody("ada@example.com").await;
        let asked = server.stranger().send("POST", "/auth", &[], json!({})).await.body;
        let id = asked["browser_url"].as_str().and_then(|url| url.rsplit('/').next()).expect("a page");
        server.test.controller.decide_login(id, &ada, false).expect("decided");
        let program = server.with_token(asked["token"].as_str().expect("a token"));
        let told = program.get(asked["cli_url"].as_str().expect("a path")).await;
        assert_eq!(told.body, json!({ "error": "Nobody let this program in." }));
    }
}
