//! Collects an answer while a client gets it, and keeps it once it is whole.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http::header::{AGE, CONTENT_LENGTH, DATE, HeaderMap, HeaderName, HeaderValue};
use hyper::body::Frame;
use model::Timestamp;

use super::flight::{End, Flight};
use super::rules::{self, Allowed};
use super::serve::STATUS;
use super::store::{Cache, Charge, Entry, Kept, Put};

/// So much more is taken of the room for all when the length of a body is not known.
const STEP: u64 = 64 << 10;
/// For so long nobody waits for another one's answer after one that could not be kept.
pub(super) const PASSES: Duration = Duration::from_secs(60);

/// Where an answer is to be kept, and what is to be known of it.
pub(super) struct Place {
    pub(super) cache: Arc<Cache>,
    pub(super) primary: Box<[u8]>,
    /// Under which it was looked for.
    pub(super) key: Box<[u8]>,
    /// Of the request.
    pub(super) request: HeaderMap,
    pub(super) names: Vec<HeaderName>,
    pub(super) moment: u64,
}

impl Place {
    /// With those of a request's headers alone by which answers differ.
    pub(super) fn new(
        cache: Arc<Cache>,
        (primary, key): (&[u8], &[u8]),
        (request, names): (&HeaderMap, Vec<HeaderName>),
        moment: u64,
    ) -> Self {
        let mut kept = HeaderMap::new();
        for name in &names {
            for value in request.get_all(name) {
                kept.append(name, value.clone());
            }
        }
        Self { cache, primary: primary.into(), key: key.into(), request: kept, names, moment }
    }

    pub(super) fn put(&self, entry: &Arc<Entry>) -> Put {
        self.cache.put((&self.primary, self.moment), (&self.names, &self.request), entry)
    }
}

/// What is known once the head is there.
pub(super) struct Begun {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) came: Timestamp,
    pub(super) age: Duration,
    pub(super) allowed: Allowed,
}

impl Begun {
    /// What is kept of the head of an answer that was asked for and came at these moments.
    pub(super) fn new(
        status: StatusCode,
        mut headers: HeaderMap,
        allowed: Allowed,
        (asked, came): (Timestamp, Timestamp),
    ) -> Self {
        let age = rules::age_at_first(&headers, asked, came);
        if !headers.contains_key(DATE)
            && let Ok(date) = HeaderValue::try_from(came.to_http_date())
        {
            headers.insert(DATE, date);
        }
        headers.remove(AGE);
        headers.remove(STATUS);
        Self { status, headers, came, age, allowed }
    }

    pub(super) fn with(self, body: Arc<Kept>) -> Entry {
        let Self { status, headers, came, age, allowed } = self;
        Entry { status, headers, body, came, age, allowed }
    }
}

/// An answer that comes.
pub(crate) struct Collector {
    place: Place,
    begun: Begun,
    body: Vec<u8>,
    /// Most bytes of the body.
    most: u64,
    charge: Charge,
    /// How many bytes of a body are paid for.
    paid: u64,
    flight: Option<Flight>,
}

impl Collector {
    /// None if there is no room.
    pub(super) fn new(place: Place, begun: Begun, (length, most): (Option<u64>, u64)) -> Option<Self> {
        let paid = length.unwrap_or(0);
        let charge = place.cache.store().charge(Entry::weight(&begun.headers, paid) + place.primary.len() as u64)?;
        Some(Self { place, begun, body: Vec::new(), most, charge, paid, flight: None })
    }

    /// Others wait for it.
    pub(super) fn for_others(mut self, flight: Option<Flight>) -> Self {
        if let Some(flight) = &flight {
            flight.comes();
        }
        self.flight = flight;
        self
    }

    /// Takes what passes; false once it is not to be kept.
    pub(crate) fn take(&mut self, frame: &Frame<Bytes>) -> bool {
        let Some(data) = frame.data_ref() else { return self.give_up() };
        let length = (self.body.len() + data.len()) as u64;
        if length > self.most {
            return self.give_up();
        }
        if length > self.paid {
            let more = STEP.max(length - self.paid);
            if !self.charge.grow(more) {
                return self.give_up();
            }
            self.paid += more;
        }
        if self.body.is_empty() {
            // Of what is announced no byte more than that.
            self.body.reserve_exact(usize::try_from(self.paid).unwrap_or(0).max(data.len()));
        }
        self.body.extend_from_slice(data);
        true
    }

    /// It is larger than it may be: whoever waits goes alone, and the next ones do not wait.
    fn give_up(&mut self) -> bool {
        self.place.cache.pass(&self.place.key, self.begun.came.after(PASSES));
        if let Some(flight) = self.flight.take() {
            flight.end(End::Nothing);
        }
        false
    }

    /// The answer is whole.
    pub(crate) fn finish(self) {
        let Self { place, mut begun, body, mut charge, flight, .. } = self;
        let weight = Entry::weight(&begun.headers, body.len() as u64) + place.primary.len() as u64;
        charge.shrink(weight);
        if begun.status != StatusCode::NO_CONTENT {
            begun.headers.insert(CONTENT_LENGTH, body.len().into());
        }
        let bytes = Bytes::from(body.into_boxed_slice());
        let came = begun.came;
        let put = place.put(&Arc::new(begun.with(Arc::new(Kept { bytes, charge }))));
        if put == Put::NoRoom {
            place.cache.pass(&place.key, came.after(PASSES));
        }
        if let Some(flight) = flight {
            // Who finds nothing because of what changed asks again, and others wait for that.
            flight.end(if put == Put::NoRoom { End::Nothing } else { End::Kept });
        }
    }
}
