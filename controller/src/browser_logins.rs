//! Programs that are let in by a browser, as `heroku login` does it: a program asks to be let in and shows a person where to say
//! so; whoever is signed in to the console there lets it in, or does not. Known only while this process lives.

use std::collections::BTreeMap;
use std::time::Duration;

use model::Timestamp;
use tokio::sync::watch;

use crate::accounts::{TokenRequest, digest};
use crate::{Actor, Controller, Error, Origin};

/// How long a program waits.
pub const LIMIT: Duration = Duration::from_secs(10 * 60);
/// Programs that wait at once, of all and of one client. Strangers decide how many ask.
const MOST: usize = 1000;
const PER_CLIENT: usize = 50;
/// Longest name of a program that is kept, in characters.
const MAX_NAME: usize = 200;
/// Letters of the code that a program and the page show.
const CODE: usize = 8;

/// What a program that asks to be let in is told.
#[derive(Debug)]
pub struct Asking {
    /// Part of the address that it shows to a person.
    pub id: String,
    /// What it shows beside the address, as the page does: that it is the page of this program.
    pub code: String,
    /// What it proves with that it is the one that asked.
    pub secret: String,
}

/// A program that waits, as it is shown to whoever decides.
#[derive(Debug, Clone)]
pub struct Waiting {
    /// What it says of itself; anybody can say anything.
    pub description: String,
    /// What it shows too, if it shows any.
    pub code: String,
    /// Where it asks from.
    pub origin: Origin,
}

/// The programs that wait, by the id of their page.
pub(crate) type BrowserLogins = BTreeMap<String, BrowserLogin>;

/// A program that waits.
#[derive(Debug)]
pub(crate) struct BrowserLogin {
    waiting: Waiting,
    /// The hash of its secret.
    digest: String,
    until: Timestamp,
    answer: watch::Sender<Answer>,
}

/// What was decided.
#[derive(Debug, Clone)]
enum Answer {
    NotYet,
    /// It comes in as this person.
    Yes(Box<Actor>),
    No,
}

impl Controller {
    /// Begins to wait for somebody to let a program in. `description` is what it says of itself.
    pub fn ask_for_login(&self, description: &str, origin: Origin) -> Result<Asking, Error> {
        let asking = {
            let id = self.new_secret();
            Asking { code: code(&id), id, secret: self.new_secret() }
        };
        let now = self.clock.now();
        let mut all = self.live.browser_logins.lock();
        all.retain(|_, login| login.until > now);
        let of_client = all.values().filter(|login| login.waiting.origin.address == origin.address).count();
        if all.len() >= MOST || of_client >= PER_CLIENT {
            let message = "Too many programs wait to be let in. Try again in ten minutes.";
            return Err(Error::TooMany { message, retry_after: LIMIT });
        }
        let description = description.chars().filter(|c| !c.is_control()).take(MAX_NAME).collect();
        let waiting = Waiting { description, code: asking.code.clone(), origin };
        let answer = watch::Sender::new(Answer::NotYet);
        let login = BrowserLogin { waiting, digest: digest(&asking.secret), until: now.after(LIMIT), answer };
        all.insert(asking.id.clone(), login);
        Ok(asking)
    }

    /// The program whose page this is, while it waits.
    pub fn waiting_login(&self, id: &str) -> Result<Waiting, Error> {
        let all = self.live.browser_logins.lock();
        let login = all.get(id).filter(|login| login.waits(self.clock.now()));
        login.map(|login| login.waiting.clone()).ok_or(Error::NotFound("login"))
    }

    /// Lets the program in as `actor`, or does not.
    pub fn decide_login(&self, id: &str, actor: &Actor, is_welcome: bool) -> Result<(), Error> {
        let all = self.live.browser_logins.lock();
        let login = all.get(id).filter(|login| login.waits(self.clock.now())).ok_or(Error::NotFound("login"))?;
        let answer = if is_welcome { Answer::Yes(Box::new(actor.clone())) } else { Answer::No };
        login.answer.send_replace(answer);
        Ok(())
    }

    /// Waits until somebody decided, for whoever has the secret; a token, if the program is let in. It is told once.
    pub async fn decided_login(&self, id: &str, secret: &str) -> Result<Option<String>, Error> {
        let (mut answer, left) = {
            let all = self.live.browser_logins.lock();
            let login = all.get(id).filter(|login| login.digest == digest(secret)).ok_or(Error::NotFound("login"))?;
            (login.answer.subscribe(), login.until.since(self.clock.now()))
        };
        let decided = answer.wait_for(|answer| !matches!(answer, Answer::NotYet));
        // It is over as well when time is up, and when the program is no longer known.
        let decided = tokio::time::timeout(left, decided).await.ok().and_then(Result::ok).map(|answer| answer.clone());
        let login = self.live.browser_logins.lock().remove(id).ok_or(Error::NotFound("login"))?;
        let Some(Answer::Yes(actor)) = decided else { return Ok(None) };
        let description = login.waiting.description;
        let issued = self.issue_token(&actor, TokenRequest { description, ..TokenRequest::default() }).await?;
        Ok(Some(issued.text))
    }
}

impl BrowserLogin {
    fn waits(&self, now: Timestamp) -> bool {
        self.until > now && matches!(*self.answer.borrow(), Answer::NotYet)
    }
}

/// The first letters of an id, in groups of four, as people compare them.
fn code(id: &str) -> String {
    let letters = id.get(..CODE).unwrap_or(id).to_uppercase();
    let (first, second) = letters.split_at(letters.len() / 2);
    format!("{first}-{second}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestController;

    fn from(address: &str) -> Origin {
        Origin { address: Some(address.parse().expect("an address")), request: None }
    }

    #[tokio::test]
    async fn who_is_let_in_gets_a_token_once_and_nobody_else_does() {
        let test = TestController::new().await;
        let controller = &test.controller;
        let ada = test.somebody("ada@example.com").await;
        let asking = controller.ask_for_login("Heroku CLI on a\nlaptop", from("192.0.2.1")).expect("waits");
        assert!(controller.decided_login(&asking.id, "guess").await.is_err());
        let waiting = controller.waiting_login(&asking.id).expect("there");
        assert_eq!((waiting.description.as_str(), &waiting.code), ("Heroku CLI on alaptop", &asking.code));
        let told = controller.decided_login(&asking.id, &asking.secret);
        let decided = async { controller.decide_login(&asking.id, &ada, true) };
        let (told, decided) = tokio::join!(told, decided);
        decided.expect("decided");
        let token = told.expect("told").expect("let in");
        let user = controller.authenticate(&token, Origin::default()).await.expect("a good token").user;
        assert_eq!(user.id, ada.user.id);
        assert!(controller.decide_login(&asking.id, &ada, true).is_err(), "decided once");
        assert!(controller.decided_login(&asking.id, &asking.secret).await.is_err(), "told once");
    }

    #[tokio::test]
    async fn a_program_can_be_turned_away_and_does_not_wait_for_ever() {
        let test = TestController::new().await;
        let controller = &test.controller;
        let ada = test.somebody("ada@example.com").await;
        let asking = controller.ask_for_login("a program", from("192.0.2.1")).expect("waits");
        controller.decide_login(&asking.id, &ada, false).expect("decided");
        assert!(controller.decide_login(&asking.id, &ada, true).is_err(), "nobody changes their mind");
        assert_eq!(controller.decided_login(&asking.id, &asking.secret).await.expect("told"), None);
        let late = controller.ask_for_login("a program", from("192.0.2.1")).expect("waits");
        test.clock.advance(LIMIT);
        assert!(controller.waiting_login(&late.id).is_err());
        assert!(controller.decide_login(&late.id, &ada, true).is_err());
        assert_eq!(controller.decided_login(&late.id, &late.secret).await.expect("told"), None);
        assert!(controller.store.tokens(ada.user.id, controller.clock.now()).await.expect("readable").is_empty());
    }

    #[tokio::test]
    async fn strangers_cannot_make_it_wait_for_ever_more() {
        let test = TestController::new().await;
        let ask = |address: &str| test.controller.ask_for_login("a program", from(address));
        for _ in 0..PER_CLIENT {
            ask("192.0.2.1").expect("waits");
        }
        assert!(matches!(ask("192.0.2.1"), Err(Error::TooMany { .. })));
        ask("198.51.100.7").expect("others are not held up");
        test.clock.advance(LIMIT);
        ask("192.0.2.1").expect("forgotten by now");
    }
}
