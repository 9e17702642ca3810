//! How a fake workspace is set up, and what it remembers of a request.

use std::net::{Ipv4Addr, SocketAddr};

use secrecy::SecretString;
use serde_json::Value;
use shared::clock::Clock;

use super::campaign::Campaign;
use super::input::InputArray;
use crate::time;

/// The endpoints of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Endpoint {
    /// `/users/track`, permission `users.track`
    Track,
    /// `/users/identify`, permission `users.identify`
    Identify,
    /// `/users/delete`, permission `users.delete`
    Delete,
    /// `/campaigns/trigger/send`, permission `campaigns.trigger.send`
    TriggerSend,
    /// `/canvas/trigger/send`, permission `canvas.trigger.send`
    CanvasSend,
}

impl Endpoint {
    pub(super) const ALL: [Self; 5] = [
        Self::Track,
        Self::Identify,
        Self::Delete,
        Self::TriggerSend,
        Self::CanvasSend,
    ];

    /// The path.
    #[must_use]
    pub fn path(self) -> &'static str {
        match self {
            Self::Track => "/users/track",
            Self::Identify => "/users/identify",
            Self::Delete => "/users/delete",
            Self::TriggerSend => "/campaigns/trigger/send",
            Self::CanvasSend => "/canvas/trigger/send",
        }
    }
}

/// How the workspace is set up.
#[derive(Debug, Clone)]
pub struct Options {
    pub(super) address: SocketAddr,
    pub(super) api_key: SecretString,
    pub(super) trigger_api_key: Option<SecretString>,
    pub(super) campaigns: Option<Vec<Campaign>>,
    pub(super) text_attributes: Vec<String>,
    pub(super) clock: Clock,
    pub(super) history: usize,
    pub(super) drained: bool,
}

impl Options {
    /// A workspace with one key that has every permission. Every campaign id is a live campaign.
    #[must_use]
    pub fn new(api_key: &str) -> Self {
        Self {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            api_key: api_key.into(),
            trigger_api_key: None,
            campaigns: None,
            text_attributes: vec!["messenger_id".to_owned(), "instagram_id".to_owned()],
            clock: Clock::fixed(time::start()),
            history: usize::MAX,
            drained: true,
        }
    }

    /// A second key that alone may trigger campaigns and Canvases, and may do nothing else.
    #[must_use]
    pub fn trigger_api_key(mut self, key: &str) -> Self {
        self.trigger_api_key = Some(key.into());
        self
    }

    /// The only campaigns that exist.
    #[must_use]
    pub fn campaigns(mut self, campaigns: impl IntoIterator<Item = Campaign>) -> Self {
        self.campaigns = Some(campaigns.into_iter().collect());
        self
    }

    /// Attributes that the dashboard fixes as texts (default `messenger_id` and `instagram_id`): ids of 17 digits lose
    /// some as JSON numbers.
    #[must_use]
    pub fn text_attributes<'a>(mut self, names: impl IntoIterator<Item = &'a str>) -> Self {
        self.text_attributes = names.into_iter().map(str::to_owned).collect();
        self
    }

    /// Where to listen; by default a free port of 127.0.0.1.
    #[must_use]
    pub fn address(mut self, address: SocketAddr) -> Self {
        self.address = address;
        self
    }

    /// Its time; by default it stands at [`time::start`].
    #[must_use]
    pub fn clock(mut self, clock: &Clock) -> Self {
        self.clock = clock.clone();
        self
    }

    /// How many requests are remembered; by default all.
    #[must_use]
    pub fn history(mut self, requests: usize) -> Self {
        self.history = requests;
        self
    }

    /// Whether dropping the handle asserts that it was drained; by default it does.
    #[must_use]
    pub fn drained(mut self, drained: bool) -> Self {
        self.drained = drained;
        self
    }
}

/// A request as it was received.
#[derive(Debug, Clone)]
pub struct Request {
    /// The path as sent.
    pub path: String,
    /// The status answered; `None` if the connection was closed instead.
    pub status: Option<u16>,
    /// The body; null if it was not JSON.
    pub body: Value,
    /// The body's size.
    pub bytes: usize,
}

impl Request {
    /// The objects in one array of a `/users/track` request.
    #[must_use]
    pub fn objects(&self, array: InputArray) -> &[Value] {
        self.body
            .get(array.name())
            .and_then(Value::as_array)
            .map(Vec::as_slice)
            .unwrap_or_default()
    }
}
