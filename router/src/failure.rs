//! Heroku's error codes: what the router answers and logs when it has no answer of an app to pass on.

use http::StatusCode;

/// Why a request got no answer, or not all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    AppCrashed,
    RequestTimeout,
    NoResponse,
    NoWeb,
    IdleConnection,
    IdleTunnel,
    BadResponse,
    Interrupted,
    ConnectTimeout,
    BootTimeout,
    ConnectRefused,
    OversizedHeader,
    OversizedCookie,
    OversizedStatusLine,
    InvalidLength,
    BadChunk,
    /// The app takes no body as long.
    BodyTooLarge,
    ClientInterrupted,
    ClientIdle,
    Maintenance,
    Blank,
    Quarantined,
    /// Every instance has as many requests as it may, and as many wait as may, or for as long.
    Backlog,
    /// The machine has no port, or this process no file descriptor, left for a connection to the instance.
    Exhausted,
}

/// How a failure looks from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Look {
    /// `H10`
    pub(crate) code: &'static str,
    /// What the client gets, or the log line says it would have got.
    pub(crate) status: StatusCode,
    /// Level of the log line.
    pub(crate) at: &'static str,
    /// In the log line.
    pub(crate) description: &'static str,
    /// Which side broke it, for the log line.
    pub(crate) socket: Option<&'static str>,
}

impl Look {
    /// 10 of H10.
    pub(crate) fn number(self) -> u8 {
        self.code.get(1..).and_then(|number| number.parse().ok()).unwrap_or(0)
    }
}

impl Failure {
    /// Whether a visitor got no answer of the app, or not all of it, without having asked for that.
    pub(crate) fn is_loss(self) -> bool {
        match self {
            Self::AppCrashed
            | Self::RequestTimeout
            | Self::NoResponse
            | Self::IdleConnection
            | Self::BadResponse
            | Self::Interrupted
            | Self::ConnectTimeout
            | Self::BootTimeout
            | Self::ConnectRefused
            | Self::OversizedHeader
            | Self::OversizedCookie
            | Self::OversizedStatusLine
            | Self::InvalidLength
            | Self::Quarantined
            | Self::Backlog
            | Self::Exhausted => true,
            // It may be silent for as long as everybody knows that it may.
            Self::IdleTunnel
            | Self::BadChunk
            | Self::BodyTooLarge
            | Self::ClientInterrupted
            | Self::ClientIdle
            | Self::NoWeb
            | Self::Maintenance
            | Self::Blank => false,
        }
    }

    /// Whether the instance that had the request is to blame.
    pub(crate) fn is_of_instance(self) -> bool {
        matches!(self, Self::RequestTimeout | Self::NoResponse | Self::BadResponse)
    }

    pub(crate) fn look(self) -> Look {
        let error = |code, description| Look {
            code,
            status: StatusCode::SERVICE_UNAVAILABLE,
            at: "error",
            description,
            socket: None,
        };
        // nginx's number for it, which Heroku took over; nobody ever receives it.
        let closed = StatusCode::from_u16(499).unwrap_or(StatusCode::REQUEST_TIMEOUT);
        let client = |code, description| Look {
            status: closed,
            at: "warning",
            socket: Some("client"),
            ..error(code, description)
        };
        let backend = |code, description| Look { socket: Some("backend"), ..error(code, description) };
        let restriction = |description| Look { status: StatusCode::BAD_GATEWAY, ..error("H25", description) };
        match self {
            Self::AppCrashed => error("H10", "App crashed"),
            Self::Backlog => error("H11", "Backlog too deep"),
            Self::RequestTimeout => error("H12", "Request timeout"),
            Self::NoResponse => error("H13", "Connection closed without response"),
            Self::NoWeb => error("H14", "No web processes running"),
            Self::IdleConnection | Self::IdleTunnel => error("H15", "Idle connection"),
            Self::BadResponse => error("H17", "Poorly formatted HTTP response"),
            Self::Interrupted => backend("H18", "Server Request Interrupted"),
            Self::ConnectTimeout => error("H19", "Backend connection timeout"),
            Self::BootTimeout => error("H20", "App boot timeout"),
            Self::ConnectRefused => error("H21", "Backend connection refused"),
            Self::OversizedHeader => restriction("HTTP restriction: oversized header"),
            Self::OversizedCookie => restriction("HTTP restriction: oversized cookie"),
            Self::OversizedStatusLine => restriction("HTTP restriction: oversized status line"),
            Self::InvalidLength => restriction("HTTP restriction: invalid content length"),
            Self::BadChunk => Look { status: StatusCode::BAD_REQUEST, ..client("H26", "Request Error: bad chunk") },
            Self::BodyTooLarge => {
                Look { status: StatusCode::PAYLOAD_TOO_LARGE, ..client("H26", "Request Error: body too large") }
            }
            Self::ClientInterrupted => client("H27", "Client Request Interrupted"),
            Self::ClientIdle => client("H28", "Client Connection Idle"),
            Self::Maintenance => Look { at: "info", ..error("H80", "Maintenance mode") },
            Self::Blank => Look { at: "info", ..error("H81", "Blank app") },
            Self::Quarantined => error("H99", "Platform error: every web process is out of reach"),
            Self::Exhausted => error("H99", "Platform error: no port or file is free for a connection"),
        }
    }
}
