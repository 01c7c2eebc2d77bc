//! Signing in: a password, and a code where there is a second factor. Clients of the API send both at once; the console asks
//! for one after the other.

use std::time::Duration;

use model::{Email, Timestamp};

use crate::store::User;
use crate::{Actor, Controller, Error, Origin, Via, accounts};

/// Time for the code after the password.
const CODE_LIMIT: Duration = Duration::from_secs(5 * 60);
/// Sign-ins that wait for their code at once; the oldest go first.
const MAX_TICKETS: usize = 1000;

/// How far somebody got with a password.
#[derive(Debug)]
pub enum SignIn {
    /// In.
    Done(Box<User>),
    /// A code is needed too; this secret is good for five minutes in place of the password.
    NeedsCode(String),
}

/// Somebody who gave the right password and still has to give a code.
#[derive(Debug)]
pub(crate) struct Ticket {
    digest: String,
    email: Email,
    expires_at: Timestamp,
}

impl Controller {
    /// The user with this address and password, and with the code of the second factor if there is one. Refuses for a while
    /// after too many failures for one address or from one client.
    pub async fn sign_in(
        &self,
        (email, password): (&str, &str),
        code: Option<&str>,
        origin: &Origin,
    ) -> Result<User, Error> {
        let user = self.check_password(email, password, origin).await?;
        if user.two_factor {
            let code = code.ok_or(Error::TwoFactor)?;
            self.check_code(&Actor::new(user.clone(), Via::Password, origin.clone()), code).await?;
        }
        self.store.note_login(user.id, self.clock.now()).await?;
        Ok(user)
    }

    /// The first step in a browser.
    pub async fn begin_sign_in(&self, email: &str, password: &str, origin: &Origin) -> Result<SignIn, Error> {
        let user = self.check_password(email, password, origin).await?;
        let now = self.clock.now();
        if !user.two_factor {
            self.store.note_login(user.id, now).await?;
            return Ok(SignIn::Done(Box::new(user)));
        }
        let secret = self.new_secret();
        let ticket = Ticket { digest: accounts::digest(&secret), email: user.email, expires_at: now.after(CODE_LIMIT) };
        let mut tickets = self.live.sign_ins.lock();
        tickets.retain(|ticket| ticket.expires_at > now);
        if tickets.len() >= MAX_TICKETS {
            tickets.pop_front();
        }
        tickets.push_back(ticket);
        Ok(SignIn::NeedsCode(secret))
    }

    /// The second step. A wrong code can be given again; a right one ends the secret.
    pub async fn finish_sign_in(&self, secret: &str, code: &str, origin: &Origin) -> Result<User, Error> {
        let (digest, now) = (accounts::digest(secret), self.clock.now());
        let over = || Error::Unauthorized("That took too long. Begin again with the password.");
        let email = {
            let tickets = self.live.sign_ins.lock();
            let ticket = tickets.iter().find(|ticket| ticket.digest == digest && ticket.expires_at > now);
            ticket.map(|ticket| ticket.email.clone()).ok_or_else(over)?
        };
        let (user, _) = self.store.user_with_password(&email).await?.ok_or_else(over)?;
        if user.two_factor {
            self.check_code(&Actor::new(user.clone(), Via::Password, origin.clone()), code).await?;
        }
        self.live.sign_ins.lock().retain(|ticket| ticket.digest != digest);
        self.store.note_login(user.id, now).await?;
        Ok(user)
    }
}
