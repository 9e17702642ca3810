//! What a decision about an install asks for.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::features::Disabled;
use super::install::{Change, HistoryEntry, Install, differences};
use super::secret::FbeSecret;
use crate::fbe::settings::FbeSettings;
use crate::outbox::{Kind, OutboxItem};

/// What is to be done to the business's secret.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum SecretChange {
    /// Nothing.
    #[default]
    None,
    /// Write it *before* the commit, under [`FbeSecret::version`]: a commit must never name a token that is
    /// not there.
    Put(FbeSecret),
    /// As `Put`, but the secret may be scheduled for deletion and has to be restored first.
    RestoreAndPut(FbeSecret),
    /// Schedule it for deletion *after* the commit, so that a commit that loses to a newer event deletes
    /// nothing. Deciding the same event again asks for it again.
    ScheduleDelete,
}

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The business is installed now, and was not before.
    Installed,
    /// An install changed.
    Updated,
    /// The business was installed, and is not any more.
    Uninstalled,
    /// Older than the stored grant, but its token is the newest there is.
    LateToken,
    /// The same event as before.
    Repeated,
    /// Older than what is stored.
    Stale,
    /// A removal of a business that is not installed: changes nothing, is remembered in case the install
    /// comes late.
    UnknownUninstall,
    /// A removal that names another Business Manager than the stored one: changes nothing.
    ForeignBusinessManager,
}

impl Outcome {
    /// The word for counting.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Installed => "installed",
            Self::Updated => "updated",
            Self::Uninstalled => "uninstalled",
            Self::LateToken => "late_token",
            Self::Repeated => "repeated",
            Self::Stale => "stale",
            Self::UnknownUninstall => "unknown_uninstall",
            Self::ForeignBusinessManager => "foreign_business_manager",
        }
    }
}

/// What a decision asks for. Install and outbox are committed together.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The install to store in place of the one that was read; `None` = leave it.
    pub install: Option<Install>,
    /// What is to be done to the secret.
    pub secret: SecretChange,
    /// Effects that follow.
    pub outbox: Vec<OutboxItem>,
    /// Whether items of this business that wait for a token are to be woken.
    pub wake: bool,
    /// What became of the event.
    pub outcome: Outcome,
}

/// Payload of [`Kind::FbeExchangeToken`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExchangeToken {
    /// No token came: ask on behalf of the business, with the partner's own system user.
    pub on_behalf_of: bool,
    /// Version id of the secret that holds the token; an exchange of another one would be out of date.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

/// Payload of [`Kind::FbeNotify`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// What happened.
    pub change: Change,
    /// Feature types that are on.
    pub enabled: Vec<String>,
    /// Feature types that are off, and what each lacks.
    pub disabled: Vec<Disabled>,
    /// When it happened.
    pub at: Timestamp,
}

/// Payload of [`Kind::FbeCatalogPush`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogPush {
    /// The catalog that is granted.
    pub catalog_id: String,
}

/// The outbox subject of a business.
#[must_use]
pub fn subject(business_id: &str) -> String {
    format!("business:{business_id}")
}

/// The business of an outbox subject; the reverse of [`subject`].
#[must_use]
pub fn business_of(subject: &str) -> Option<&str> {
    subject.strip_prefix("business:")
}

/// A comparison with Graph that no webhook asked for. `name` makes the key unique; items of one name and time
/// are one.
#[must_use]
pub fn reconcile_item(
    business_id: &str,
    name: &str,
    at: Timestamp,
    not_before: Option<Timestamp>,
) -> OutboxItem {
    OutboxItem {
        subject: subject(business_id),
        event_key: format!("{:014}-{name}-2-reconcile", at.as_millisecond().max(0)),
        kind: Kind::FbeReconcile,
        payload: json!({}),
        not_before,
    }
}

/// An exchange of the token that no webhook asked for. `name` makes the key unique; items of one name and time are
/// one.
#[must_use]
pub fn exchange_item(business_id: &str, name: &str, at: Timestamp, payload: &ExchangeToken) -> OutboxItem {
    OutboxItem {
        subject: subject(business_id),
        event_key: format!("{:014}-{name}-1-exchange", at.as_millisecond().max(0)),
        kind: Kind::FbeExchangeToken,
        payload: json!(payload),
        not_before: None,
    }
}

/// A push of the catalog on demand.
#[must_use]
pub fn push_item(business_id: &str, catalog_id: &str, at: Timestamp) -> OutboxItem {
    OutboxItem {
        subject: subject(business_id),
        event_key: format!("{:014}-demand-4-catalog", at.as_millisecond().max(0)),
        kind: Kind::FbeCatalogPush,
        payload: json!(CatalogPush {
            catalog_id: catalog_id.to_owned()
        }),
        not_before: None,
    }
}

/// Collects the follow-ups of one decision. The event keys sort in the order in which they are best done:
/// the token first, the catalog last.
pub(super) struct FollowUps<'a> {
    business_id: &'a str,
    key: String,
    settings: Option<&'a FbeSettings>,
    pub(super) items: Vec<OutboxItem>,
}

impl<'a> FollowUps<'a> {
    pub(super) fn new(business_id: &'a str, key: String) -> Self {
        Self {
            business_id,
            key,
            settings: None,
            items: Vec::new(),
        }
    }

    /// With the settings that say whether there is a feed to fill catalogs from.
    pub(super) fn with(mut self, settings: &'a FbeSettings) -> Self {
        self.settings = Some(settings);
        self
    }

    fn push(&mut self, step: &str, kind: Kind, payload: serde_json::Value) {
        self.items.push(OutboxItem {
            subject: subject(self.business_id),
            event_key: format!("{}-{step}", self.key),
            kind,
            payload,
            not_before: None,
        });
    }

    pub(super) fn exchange(&mut self, payload: &ExchangeToken) {
        self.push("1-exchange", Kind::FbeExchangeToken, json!(payload));
    }

    pub(super) fn reconcile(&mut self) {
        self.push("2-reconcile", Kind::FbeReconcile, json!({}));
    }

    /// A removal is looked at once more at this time: a business that is not installed keeps no secret.
    pub(super) fn sweep(&mut self, at: Timestamp) {
        self.reconcile();
        if let Some(item) = self.items.last_mut() {
            item.not_before = Some(at);
        }
    }

    pub(super) fn notify(&mut self, notice: &Notice) {
        self.push("3-notify", Kind::FbeNotify, json!(notice));
    }

    /// Plans a push if there is a catalog, and a feed to fill it from.
    pub(super) fn catalog(&mut self, install: &Install) {
        let feed = self
            .settings
            .and_then(|settings| settings.catalog_feed_url.as_ref());
        if let Some(catalog_id) = install.assets.catalog_id.clone()
            && feed.is_some()
        {
            self.push(
                "4-catalog",
                Kind::FbeCatalogPush,
                json!(CatalogPush { catalog_id }),
            );
        }
    }
}

/// Follow-ups that every road to a changed grant shares: the history, the notice and the catalog. Nothing
/// follows from an update in which nothing is different. `at` is when it happened, `now` when we learned.
pub(super) fn tell(
    before: &Install,
    next: &mut Install,
    change: Change,
    (at, now): (Timestamp, Timestamp),
    follow_ups: &mut FollowUps<'_>,
) {
    let mut fields = differences(&before.grant(), &next.grant());
    if before.status != next.status {
        fields.push("status".to_owned());
    }
    if fields.is_empty() && change == Change::Updated {
        return;
    }
    // What was on before a removal is what the removal switches off.
    let gating = if next.is_installed() {
        next.gating()
    } else {
        before.gating().all_off("installation")
    };
    follow_ups.notify(&Notice {
        change,
        enabled: gating.enabled,
        disabled: gating.disabled,
        at,
    });
    if next.is_installed() && (!before.is_installed() || before.assets.catalog_id != next.assets.catalog_id) {
        follow_ups.catalog(next);
    }
    next.remember(HistoryEntry {
        at,
        noted_at: now,
        change,
        fields,
    });
}
