//! How the fake Graph is set up, and what it remembers of a call.

use std::net::{Ipv4Addr, SocketAddr};

use secrecy::SecretString;
use serde_json::{Map, Value, json};
use shared::clock::Clock;
use tokio::time::Instant;

use crate::time;

/// The calls of the model. `{v}` is a version such as `v25.0`; a path without one is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Edge {
    /// `POST /{v}/{business_manager_id}/access_token`
    AccessToken,
    /// `GET /{v}/fbe_business/fbe_installs`
    Installs,
    /// `DELETE /{v}/fbe_business/fbe_installs`
    Uninstall,
    /// `GET /{v}/fbe_business`
    Configuration,
    /// `POST /{v}/fbe_business`
    Configure,
    /// `POST /{v}/{page_id}/messages`
    Messages,
    /// `POST /{v}/{catalog_id}/items_batch`
    ItemsBatch,
    /// `GET /{v}/{catalog_id}/check_batch_request_status`
    BatchStatus,
    /// `GET /{v}/me/accounts`
    Accounts,
    /// `GET /{v}/oauth/access_token`
    LongLivedToken,
    /// `GET /{v}/debug_token`
    DebugToken,
    /// `GET /{v}/{app_scoped_id}/ids_for_pages`
    IdsForPages,
    /// `GET /{v}/{app_id}/subscriptions`
    AppSubscriptions,
    /// `POST /{v}/{app_id}/subscriptions`
    SubscribeApp,
    /// `GET /{v}/{page_id}/subscribed_apps`
    PageSubscriptions,
    /// `POST /{v}/{page_id}/subscribed_apps`
    SubscribePage,
    /// `GET /{v}/{app_id}`, `GET /{v}/{page_id}`
    Node,
}

/// What came of asking a callback URL for the handshake: the words of the refusal.
pub(super) type Handshake = Option<Result<(), String>>;

/// How much of a catalog's items is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeepItems {
    /// Their whole data.
    Data,
    /// Their retailer ids, 100,000 in about 10 MB.
    Ids,
    /// Nothing but counts. Updates and deletions then always succeed.
    Counts,
}

/// How the platform is set up.
#[derive(Debug, Clone)]
pub struct Options {
    pub(super) address: SocketAddr,
    pub(super) app_id: String,
    pub(super) app_secret: SecretString,
    pub(super) partner_token: Option<SecretString>,
    pub(super) any_token: bool,
    pub(super) proof_everywhere: bool,
    pub(super) keep_items: KeepItems,
    pub(super) history: usize,
    pub(super) drained: bool,
    pub(super) clock: Clock,
}

impl Options {
    /// An app without installs. Its secret makes the `appsecret_proof`.
    #[must_use]
    pub fn new(app_id: &str, app_secret: &str) -> Self {
        Self {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            app_id: app_id.to_owned(),
            app_secret: app_secret.into(),
            partner_token: None,
            any_token: false,
            proof_everywhere: false,
            keep_items: KeepItems::Data,
            history: usize::MAX,
            drained: true,
            clock: Clock::fixed(time::start()),
        }
    }

    /// The token of the partner's own admin system user, which may act on behalf of every business.
    #[must_use]
    pub fn partner_token(mut self, token: &str) -> Self {
        self.partner_token = Some(token.into());
        self
    }

    /// Takes tokens that nobody added as valid user tokens. For `bridge local`, where people post what they like.
    #[must_use]
    pub fn any_token(mut self, any: bool) -> Self {
        self.any_token = any;
        self
    }

    /// Requires `appsecret_proof` on every call, as under the app setting "Require App Secret".
    #[must_use]
    pub fn proof_everywhere(mut self, required: bool) -> Self {
        self.proof_everywhere = required;
        self
    }

    /// How much of the items is kept; by default their data.
    #[must_use]
    pub fn keep_items(mut self, keep: KeepItems) -> Self {
        self.keep_items = keep;
        self
    }

    /// The time by which tokens end. By default [`time::START_MILLISECONDS`].
    #[must_use]
    pub fn clock(mut self, clock: &Clock) -> Self {
        self.clock = clock.clone();
        self
    }

    /// Where to listen; by default a free port of 127.0.0.1.
    #[must_use]
    pub fn address(mut self, address: SocketAddr) -> Self {
        self.address = address;
        self
    }

    /// How many calls are remembered; by default all.
    #[must_use]
    pub fn history(mut self, calls: usize) -> Self {
        self.history = calls;
        self
    }

    /// Whether dropping the handle asserts that it was drained; by default it does.
    #[must_use]
    pub fn drained(mut self, drained: bool) -> Self {
        self.drained = drained;
        self
    }
}

/// A call as it was received.
#[derive(Debug, Clone)]
pub struct Call {
    /// Which call it was; `None` for a path that Graph does not have.
    pub edge: Option<Edge>,
    /// The path with its version.
    pub path: String,
    /// The parameters of query and body, without token, proof and catalog items.
    pub parameters: Map<String, Value>,
    /// The token it was made with; empty if none.
    pub access_token: SecretString,
    /// How many items a batch held.
    pub items: usize,
    /// The status answered; `None` if the connection was closed instead.
    pub status: Option<u16>,
    /// The code of the model's own error, if it was refused.
    pub error_code: Option<i64>,
    /// When it was received.
    pub received_at: Instant,
}

/// Use of the app's limit, in percent.
pub(super) const APP_USAGE_HEADER: &str = "x-app-usage";
/// Use of a business's limits: an object of lists by id.
pub(super) const BUSINESS_USAGE_HEADER: &str = "x-business-use-case-usage";

pub(super) fn app_usage(percent: u32) -> String {
    json!({"call_count": percent, "total_time": percent, "total_cputime": percent}).to_string()
}

/// `minutes` until calls are taken again; 0 unless throttled.
pub(super) fn business_usage(id: &str, percent: u32, minutes: u32) -> String {
    let usage = json!({
        "type": "catalog_management",
        "call_count": percent,
        "total_cputime": percent,
        "total_time": percent,
        "estimated_time_to_regain_access": minutes,
    });
    json!({id: [usage]}).to_string()
}
