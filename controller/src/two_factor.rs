//! The second factor: a code that a phone makes from the time and a secret (RFC 6238), or a recovery code.

use model::{Timestamp, UserId};
use totp_rs::{Algorithm, Builder, Secret, Totp};

use crate::store::User;
use crate::{Actor, Controller, Error, accounts};

/// Recovery codes that a user gets at once.
const RECOVERY_CODES: usize = 10;
/// Random bytes of one: 80 bits, in 16 letters.
const RECOVERY_BYTES: usize = 10;
/// Random bytes of the secret, as RFC 4226 recommends.
const SECRET_BYTES: usize = 20;
/// What authenticator apps call the platform.
const ISSUER: &str = "platform";

const WRONG_CODE: Error =
    Error::Unauthorized("That code is not good. Codes change every 30 seconds, and each is taken once.");

/// A second factor that waits for its first code.
#[derive(Debug)]
pub struct Enrolment {
    /// The secret in base32, to type in where no camera is.
    pub secret: String,
    /// `otpauth://…`, which a QR code shows.
    pub url: String,
}

impl Controller {
    /// Whether a user signs in with a code too.
    pub async fn has_two_factor(&self, user: UserId) -> Result<bool, Error> {
        Ok(self.store.totp(user).await?.is_some_and(|totp| totp.confirmed_at.is_some()))
    }

    /// Begins to set up a second factor; it counts once a code has proved that the phone has it.
    pub async fn begin_two_factor(&self, actor: &Actor) -> Result<Enrolment, Error> {
        let mut secret = vec![0; SECRET_BYTES];
        self.random.fill(&mut secret);
        let totp = totp(&actor.user, secret.clone())?;
        let url = totp.to_url().map_err(|error| failed(&error))?;
        if !self.store.begin_totp(actor.user.id, &secret).await? {
            return Err(Error::Conflict("Two-factor authentication is on already. Turn it off first.".to_owned()));
        }
        Ok(Enrolment { secret: Secret::from(secret).to_base32(), url })
    }

    /// How many recovery codes a user has left.
    pub async fn recovery_codes_left(&self, actor: &Actor) -> Result<u64, Error> {
        Ok(self.store.recovery_codes_left(actor.user.id).await?)
    }

    /// What was begun, shown again until it is confirmed.
    pub async fn pending_two_factor(&self, actor: &Actor) -> Result<Option<Enrolment>, Error> {
        match self.store.totp(actor.user.id).await? {
            Some(known) if known.confirmed_at.is_none() => {
                let url = totp(&actor.user, known.secret.clone())?.to_url().map_err(|error| failed(&error))?;
                Ok(Some(Enrolment { secret: Secret::from(known.secret).to_base32(), url }))
            }
            _ => Ok(None),
        }
    }

    /// Turns the second factor on with its first code. Returns recovery codes, which are shown this once.
    pub async fn confirm_two_factor(&self, actor: &Actor, code: &str) -> Result<Vec<String>, Error> {
        let stamp = self.stamp(actor);
        self.logins.attempt(&actor.user.email, &actor.origin, stamp.now)?;
        let known = self.store.totp(actor.user.id).await?;
        let begun = known.filter(|known| known.confirmed_at.is_none()).ok_or_else(|| {
            Error::Conflict(
                "There is nothing to confirm: two-factor authentication is on, or was not begun.".to_owned(),
            )
        })?;
        let step = step_of(&totp(&actor.user, begun.secret)?, code, stamp.now).ok_or(WRONG_CODE)?;
        self.logins.forgive(&actor.user.email, &actor.origin, stamp.now);
        let (codes, digests) = self.make_codes();
        if !self.store.confirm_totp(actor.user.id, step, &digests, &stamp).await? {
            return Err(Error::Conflict("Two-factor authentication is on already.".to_owned()));
        }
        Ok(codes)
    }

    /// Turns the second factor off; that takes one more code.
    pub async fn end_two_factor(&self, actor: &Actor, code: &str) -> Result<(), Error> {
        self.check_code(actor, code).await?;
        Ok(self.store.end_totp(actor.user.id, &self.stamp(actor)).await?)
    }

    /// Other recovery codes in place of those that are left; that takes a code.
    pub async fn new_recovery_codes(&self, actor: &Actor, code: &str) -> Result<Vec<String>, Error> {
        self.check_code(actor, code).await?;
        let (codes, digests) = self.make_codes();
        self.store.set_recovery_codes(actor.user.id, &digests, &self.stamp(actor)).await?;
        Ok(codes)
    }

    /// Takes the code of a user, once; wrong ones count like wrong passwords.
    pub(crate) async fn check_code(&self, actor: &Actor, code: &str) -> Result<(), Error> {
        let (user, stamp) = (&actor.user, self.stamp(actor));
        self.logins.attempt(&user.email, &actor.origin, stamp.now)?;
        let known = self.store.totp(user.id).await?.filter(|known| known.confirmed_at.is_some());
        let known = known.ok_or_else(|| Error::Conflict("Two-factor authentication is off.".to_owned()))?;
        let taken = if let Some(step) = step_of(&totp(user, known.secret)?, code, stamp.now) {
            self.store.take_step(user.id, step).await?
        } else {
            let digest = accounts::digest(&normal(code));
            self.store.take_recovery_code(user.id, &digest, &stamp).await?
        };
        if !taken {
            return Err(WRONG_CODE);
        }
        self.logins.forgive(&user.email, &actor.origin, stamp.now);
        Ok(())
    }

    /// Recovery codes, and what is kept of them.
    fn make_codes(&self) -> (Vec<String>, Vec<String>) {
        let make = |_| {
            let mut bytes = [0; RECOVERY_BYTES];
            self.random.fill(&mut bytes);
            let code = Secret::from(bytes.to_vec()).to_base32().to_lowercase();
            // In groups of four, as people read them.
            let groups: Vec<&str> =
                code.as_bytes().chunks(4).filter_map(|group| std::str::from_utf8(group).ok()).collect();
            groups.join("-")
        };
        let codes: Vec<String> = (0..RECOVERY_CODES).map(make).collect();
        let digests = codes.iter().map(|code| accounts::digest(&normal(code))).collect();
        (codes, digests)
    }
}

/// A code however it was typed.
fn normal(code: &str) -> String {
    code.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_lowercase()
}

fn totp(user: &User, secret: Vec<u8>) -> Result<Totp, Error> {
    // SHA-1, six digits and 30 seconds are all that some authenticator apps know. One step of skew, as RFC 6238 recommends.
    Builder::new()
        .with_algorithm(Algorithm::SHA1)
        .with_secret(secret)
        .with_issuer(Some(ISSUER))
        .with_account_name(user.email.as_str())
        .build()
        .map_err(|error| failed(&error))
}

/// The time step that a code is of, if it is good now.
fn step_of(totp: &Totp, code: &str, now: Timestamp) -> Option<i64> {
    let seconds = u64::try_from(now.as_millis() / 1000).ok()?;
    let step = totp.check(&normal(code), seconds)?;
    i64::try_from(step).ok()
}

fn failed(error: &totp_rs::TotpError) -> Error {
    Error::System { action: "make a second factor", source: error.to_string().into() }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::testing::TestController;

    /// What a phone that was shown the secret says now.
    fn phone(test: &TestController, enrolment: &Enrolment) -> String {
        let totp = Totp::from_url(&enrolment.url).expect("a URL that phones read");
        let now = u64::try_from(test.controller.clock.now().as_millis() / 1000).expect("a time");
        totp.generate(now).to_string()
    }

    #[tokio::test]
    async fn a_second_factor_counts_once_confirmed_and_each_code_is_taken_once() {
        let test = TestController::new().await;
        let controller = &test.controller;
        let ada = test.somebody("ada@example.com").await;
        let enrolment = controller.begin_two_factor(&ada).await.expect("begun");
        assert!(!controller.has_two_factor(ada.user.id).await.expect("readable"), "not confirmed");
        assert!(matches!(controller.confirm_two_factor(&ada, "000000").await, Err(Error::Unauthorized(_))));
        let first = phone(&test, &enrolment);
        let recovery = controller.confirm_two_factor(&ada, &first).await.expect("confirmed");
        assert_eq!(recovery.len(), RECOVERY_CODES);
        assert!(controller.begin_two_factor(&ada).await.is_err(), "never replaced without a code");

        let check = async |code: &str| controller.check_code(&ada, code).await;
        assert!(check(&first).await.is_err(), "the first code was taken");
        assert!(check(&recovery[0]).await.is_ok());
        assert!(check(&recovery[0]).await.is_err(), "once each");
        assert!(check(&recovery[1].to_uppercase().replace('-', " ")).await.is_ok(), "however it is typed");

        test.clock.advance(Duration::from_secs(60));
        let second = phone(&test, &enrolment);
        controller.end_two_factor(&ada, &second).await.expect("off");
        assert!(!controller.has_two_factor(ada.user.id).await.expect("readable"));
    }

    #[tokio::test]
    async fn guessing_codes_is_stopped() {
        let test = TestController::new().await;
        let controller = &test.controller;
        let ada = test.somebody("ada@example.com").await;
        let enrolment = controller.begin_two_factor(&ada).await.expect("begun");
        controller.confirm_two_factor(&ada, &phone(&test, &enrolment)).await.expect("confirmed");
        let mut stopped = 0;
        for _ in 0..20 {
            let refused = controller.check_code(&ada, "123456").await.expect_err("a guess");
            stopped += u32::from(matches!(refused, Error::TooMany { .. }));
        }
        assert!(stopped >= 10, "{stopped}");
    }
}
