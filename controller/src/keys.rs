//! SSH keys: which are taken, and whose they are.

use model::KeyId;
use russh::keys::ssh_key::public::KeyData;
use russh::keys::ssh_key::{HashAlg, PublicKey};

use crate::actors::Actor;
use crate::store::SshKey;
use crate::{Controller, Error};

/// Smallest RSA key, in bits (NIST SP 800-131A).
const MIN_RSA: u32 = 2048;
/// Most keys of a user; a client that offers its keys one by one gives up long before.
const MAX_KEYS: usize = 100;
/// Longest comment, in characters.
const MAX_COMMENT: usize = 255;

impl Controller {
    /// Lets a user in by another key: one line as in `id_ed25519.pub`.
    pub async fn add_key(&self, actor: &Actor, line: &str) -> Result<SshKey, Error> {
        let key = parse(line)?;
        let known = self.store.keys(actor.user.id).await?;
        let fingerprint = fingerprint(&key);
        if known.iter().any(|known| known.fingerprint == fingerprint) {
            return Err(Error::Invalid("public_key is one of yours already".to_owned()));
        }
        if known.len() >= MAX_KEYS {
            return Err(Error::Invalid(format!("A user can have at most {MAX_KEYS} keys")));
        }
        let comment: String = key.comment().as_str_lossy().chars().filter(|c| !c.is_control()).collect();
        let bare = PublicKey::new(key.key_data().clone(), "");
        let key = SshKey {
            id: KeyId::random(&*self.random),
            user: actor.user.id,
            fingerprint,
            public_key: bare.to_openssh().map_err(|_| not_a_key())?,
            comment: comment.trim().chars().take(MAX_COMMENT).collect(),
            last_used_at: None,
            created_at: self.clock.now(),
        };
        self.store.insert_key(&key, &self.stamp(actor)).await?;
        Ok(key)
    }

    /// Forgets a key, named by its id, its fingerprint, its comment or itself.
    pub async fn remove_key(&self, actor: &Actor, reference: &str) -> Result<SshKey, Error> {
        let known = self.store.keys(actor.user.id).await?;
        let is_meant = |key: &&SshKey| {
            key.id.to_string() == reference
                || key.fingerprint == reference
                || key.comment == reference
                || reference.starts_with(&key.public_key)
        };
        let id = known.iter().find(is_meant).ok_or(Error::NotFound("key"))?.id;
        self.store.delete_key(actor.user.id, id, &self.stamp(actor)).await?.ok_or(Error::NotFound("key"))
    }
}

/// `SHA256:…`, as OpenSSH prints it.
pub(crate) fn fingerprint(key: &PublicKey) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}

/// A key that may let somebody in.
fn parse(line: &str) -> Result<PublicKey, Error> {
    let line = line.trim();
    if line.contains("PRIVATE KEY") {
        return Err(Error::Invalid(
            "public_key is a private key. Keep that to yourself; the public one is in the file that ends with .pub"
                .to_owned(),
        ));
    }
    if line.lines().count() > 1 {
        return Err(Error::Invalid("public_key must be one line, as in ~/.ssh/id_ed25519.pub".to_owned()));
    }
    let key = PublicKey::from_openssh(line).map_err(|_| not_a_key())?;
    match key.key_data() {
        KeyData::Ed25519(_) | KeyData::Ecdsa(_) => Ok(key),
        KeyData::Rsa(rsa) if rsa.key_size() >= MIN_RSA => Ok(key),
        KeyData::Rsa(rsa) => Err(Error::Invalid(format!(
            "public_key is RSA with {} bits; at least {MIN_RSA} are needed. `ssh-keygen -t ed25519` makes a better one",
            rsa.key_size()
        ))),
        _ => Err(Error::Invalid(format!(
            "public_key is of the kind {}; ed25519, ecdsa and rsa are taken. `ssh-keygen -t ed25519` makes one",
            key.algorithm()
        ))),
    }
}

fn not_a_key() -> Error {
    Error::Invalid("public_key must be an SSH public key like `ssh-ed25519 AAAA… ada@laptop`".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestController;

    const ED25519: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti ada@laptop";

    #[tokio::test]
    async fn a_key_is_one_users_until_it_is_removed() {
        let test = TestController::new().await;
        let controller = &test.controller;
        let (ada, eve) = (test.somebody("ada@example.com").await, test.somebody("eve@example.com").await);
        let key = controller.add_key(&ada, ED25519).await.expect("taken");
        assert_eq!(key.comment, "ada@laptop");
        assert!(key.fingerprint.starts_with("SHA256:") && !key.public_key.contains("laptop"), "{key:?}");
        for (who, what) in [(&ada, "twice"), (&eve, "another's")] {
            assert!(matches!(controller.add_key(who, ED25519).await, Err(Error::Invalid(_))), "{what}");
        }
        assert!(matches!(controller.remove_key(&eve, &key.fingerprint).await, Err(Error::NotFound(_))));
        let (owner, id) = controller.store.user_of_key(&key.fingerprint).await.expect("readable").expect("known");
        assert_eq!((owner.id, id), (ada.user.id, key.id));
        controller.remove_key(&ada, "ada@laptop").await.expect("removed");
        assert!(controller.store.user_of_key(&key.fingerprint).await.expect("readable").is_none());
        controller.add_key(&eve, ED25519).await.expect("free again");
    }

    #[test]
    fn what_is_no_good_key_is_refused_with_the_reason() {
        let small = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQDCCx5ke/G2dJQT4lOZsYj58ov1LOCQWjv/C79vMQ2g5QcR2LamZKQ8I1IK0lUgWkZt\
                     6mm9asZJx/OtiFjJNYpXyilPjTzStOoo8KfYs28LwT4gVhYFZqpxfgZZ6uJ6LMr35LRJL9a3uPXYQzhbUQCVeyGsjZ1Qdu1smTZcjI6O4w==";
        for (line, word) in [
            ("", "must be an SSH public key"),
            ("ssh-ed25519 AAAA", "must be an SSH public key"),
            ("-----BEGIN OPENSSH PRIVATE KEY-----", "private key"),
            (&format!("{ED25519}\n{ED25519}"), "one line"),
            (small, "1024 bits"),
        ] {
            let refusal = parse(line).expect_err(line).to_string();
            assert!(refusal.contains(word), "{line}: {refusal}");
        }
    }
}
