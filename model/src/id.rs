//! One UUID type per kind of thing, so that an app's id can never be passed where a release's is wanted.

use crate::clock::Random;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(uuid::Uuid);

        impl $name {
            /// A new random (version 4) id.
            pub fn random(random: &dyn Random) -> Self {
                let mut bytes = [0; 16];
                random.fill(&mut bytes);
                Self(uuid::Builder::from_random_bytes(bytes).into_uuid())
            }

            /// Of these bytes, as [`Self::to_bytes`] has them.
            pub fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(uuid::Uuid::from_bytes(bytes))
            }

            /// Its bytes, for where there are many.
            pub fn to_bytes(self) -> [u8; 16] {
                self.0.into_bytes()
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    )*};
}

ids! {
    /// An add-on.
    AddonId;
    /// An app.
    AppId;
    /// An attachment: the use of an add-on by an app.
    AttachmentId;
    /// A build.
    BuildId;
    /// What a private host wants to know.
    CredentialId;
    /// Something that a webhook is told.
    DeliveryId;
    /// What the engine keeps of a volume, or of a snapshot of one.
    DiskId;
    /// A domain of an app.
    DomainId;
    /// A log drain.
    DrainId;
    /// A dyno: one life of one container.
    DynoId;
    /// A formation row: one process type of one app.
    FormationId;
    /// A freeze window.
    FreezeId;
    /// An invitation to the platform or to a team.
    InvitationId;
    /// A command that an app wants to have run at certain times.
    JobId;
    /// One run of a job.
    JobRunId;
    /// An SSH key.
    KeyId;
    /// A pipeline.
    PipelineId;
    /// A release.
    ReleaseId;
    /// A repository elsewhere that an app is deployed from.
    RepositoryId;
    /// A session of the console.
    SessionId;
    /// A certificate of an app with its key.
    SniEndpointId;
    /// An archive to build from.
    SourceId;
    /// A team.
    TeamId;
    /// An API token.
    TokenId;
    /// A backup of an add-on's data, or a restore of one.
    TransferId;
    /// A user.
    UserId;
    /// A volume.
    VolumeId;
    /// An address that is told what happens to an app.
    WebhookId;
}

impl From<AddonId> for AppId {
    /// An engine knows no add-ons: to it, each is one more app that shares nothing with others.
    fn from(addon: AddonId) -> Self {
        Self(addon.0)
    }
}
