//! The pure domain: names, ids and states that every other room speaks. No async, no I/O.

pub mod app_protocol;
pub mod certificate;
pub mod clock;
pub mod domain_ask;
pub mod dyno;
pub mod egress;
pub mod freeze;
pub mod id;
pub mod image;
pub mod job;
pub mod log;
pub mod name;
pub mod own_page;
pub mod process;
pub mod role;
pub mod rollout;
pub mod routes;
pub mod routing;
pub mod scaling;
pub mod schedule;
pub mod tcp;
pub mod traffic;
pub mod volume;

pub use app_protocol::AppProtocol;
pub use clock::{Clock, Random, Timestamp};
pub use domain_ask::DomainAsk;
pub use dyno::{DynoName, Exit};
pub use egress::{Destination, Egress, EgressError, EgressRule, Ports, Verdict};
pub use freeze::Freeze;
pub use id::{
    AddonId, AppId, AttachmentId, BuildId, CredentialId, DeliveryId, DiskId, DomainId, DrainId, DynoId, FormationId,
    FreezeId, InvitationId, JobId, JobRunId, KeyId, PipelineId, ReleaseId, RepositoryId, SessionId, SniEndpointId,
    SourceId, TeamId, TokenId, TransferId, UserId, VolumeId, WebhookId,
};
pub use image::{Digest, Foreign, Image, ImageConfig, Layer};
pub use job::JobSpec;
pub use log::{LogSink, LogSource};
pub use name::{
    AddonName, AppName, AttachmentName, ConfigVarName, Email, Hostname, NameError, PathPrefix, PipelineName,
    ProcessType, TeamName, VolumeName,
};
pub use own_page::OwnPage;
pub use process::{DynoSize, Process};
pub use role::Role;
pub use rollout::{Amount, Pause, RolloutPolicy, Strategy};
pub use routing::{Balance, Credential, Match, Rate, RoutePolicy};
pub use scaling::{Metric, ScalingPolicy};
pub use tcp::{Introduction, TcpPorts, TcpRoute};
pub use volume::{MountPath, VolumeSize};
