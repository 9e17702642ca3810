//! What a decision about an install asks for.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use strum::IntoStaticStr;

use super::event::{Stamp, integration_record_id};
use super::features::{Disabled, INSTALLATION};
use super::install::{Change, HistoryEntry, Install, Status, changed_fields};
use super::secret::{FbeSecret, TokenType};
use super::settings::Configured;
use super::view::InstallView;
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
    /// As `Put`, but beside what is current: the token of a claim, which is not in use.
    PutClaim(FbeSecret),
    /// Drop the token of the event's Business Manager, which claims the business no more, *after* the commit.
    DropClaim,
    /// Schedule it for deletion *after* the commit, so that a commit that loses to a newer event deletes
    /// nothing. Deciding the same event again asks for it again.
    ScheduleDelete,
}

/// What became of an event; as text, the word for counting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Outcome {
    /// The business is installed now, and was not before.
    Installed,
    /// An install changed.
    Updated,
    /// The business was installed, and is not any more.
    Uninstalled,
    /// Older than the stored grant, but its token is the newest there is.
    LateToken,
    /// Another Business Manager than the owner has the app installed too: kept as a claim.
    Claimed,
    /// A claim was removed: nothing else changes.
    ClaimWithdrawn,
    /// The business belongs to another Business Manager now: its owner removed the app, or did not install it first.
    OwnerChanged,
    /// The same event as before.
    Repeated,
    /// Older than what is stored.
    Stale,
    /// A removal of a business that is not installed: changes nothing, is remembered in case the install
    /// comes late.
    UnknownUninstall,
    /// A removal that names a Business Manager without an install: changes nothing.
    ForeignBusinessManager,
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
    /// Source of the token that is exchanged; an exchange of another one would be out of date.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Ask although the token was exchanged before: the system user's is refused, ends soon, or an operator asks.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub again: bool,
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

/// Payload of [`Kind::FbePartnerNotify`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PartnerNotice {
    /// When it happened.
    pub at: Timestamp,
    /// What the partner's platform is sent.
    pub data: InstallView,
}

/// Payload of [`Kind::FbeCatalogPush`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogPush {
    /// The catalog that is granted.
    pub catalog_id: String,
    /// Push only if the feed has changed since the last push.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub refresh: bool,
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

/// One follow-up. `key` begins its event key.
fn item(business_id: &str, key: &str, kind: Kind, payload: &impl Serialize) -> OutboxItem {
    OutboxItem {
        subject: subject(business_id),
        event_key: format!("{key}-{}", step(kind)),
        kind,
        payload: json!(payload),
        not_before: None,
    }
}

/// The end of a follow-up's event key. The keys sort in the order in which the follow-ups are best done: the token
/// first, the catalog last.
fn step(kind: Kind) -> &'static str {
    match kind {
        Kind::FbeExchangeToken => "1-exchange",
        Kind::FbeReconcile => "2-reconcile",
        Kind::FbeNotify => "3-notify",
        Kind::FbePartnerNotify => "3-partner",
        Kind::FbeCatalogPush => "4-catalog",
        // Of FBE's kinds that is the last.
        _ => "0-manager",
    }
}

/// The start of the event key of a follow-up that no webhook asked for. Items of one name and time are one.
fn key(at: Timestamp, name: &str) -> String {
    format!("{:014}-{name}", at.as_millisecond().max(0))
}

/// A comparison with Graph that no webhook asked for, not before `not_before`.
#[must_use]
pub fn reconcile_item(
    business_id: &str,
    name: &str,
    at: Timestamp,
    not_before: Option<Timestamp>,
) -> OutboxItem {
    OutboxItem {
        not_before,
        ..item(business_id, &key(at, name), Kind::FbeReconcile, &json!({}))
    }
}

/// A comparison of every install of a Business Manager, after an integration event of it.
#[must_use]
pub fn reconcile_manager_item(business_manager_id: &str, stamp: &Stamp) -> OutboxItem {
    let record = integration_record_id(business_manager_id);
    item(&record, &stamp.key(), Kind::FbeReconcileManager, &json!({}))
}

/// An exchange of the token that no webhook asked for.
#[must_use]
pub fn exchange_item(stored: &Install, name: &str, at: Timestamp, payload: &ExchangeToken) -> OutboxItem {
    let key = key(at, name);
    item(&stored.business_id, &key, Kind::FbeExchangeToken, payload)
}

/// A push of the catalog on demand.
#[must_use]
pub fn push_item(business_id: &str, catalog_id: &str, at: Timestamp) -> OutboxItem {
    catalog_item(business_id, &key(at, "demand"), catalog_id, false)
}

/// A push of the catalog, at this time, unless its feed is as it was.
#[must_use]
pub fn refresh_item(business_id: &str, catalog_id: &str, at: Timestamp) -> OutboxItem {
    OutboxItem {
        not_before: Some(at),
        ..catalog_item(business_id, &key(at, "refresh"), catalog_id, true)
    }
}

fn catalog_item(business_id: &str, key: &str, catalog_id: &str, refresh: bool) -> OutboxItem {
    let catalog_id = catalog_id.to_owned();
    let payload = CatalogPush { catalog_id, refresh };
    item(business_id, key, Kind::FbeCatalogPush, &payload)
}

/// The exchange that an operator asks for; `None` if there is no Business Manager to ask for a token.
#[must_use]
pub fn exchange_on_demand(stored: &Install, now: Timestamp) -> Option<OutboxItem> {
    let payload = exchange_again(stored)?;
    Some(exchange_item(stored, "demand", now, &payload))
}

/// Whether a token is to be asked for: a user's is exchanged, one of unknown type is tried, and where none
/// came at all the partner's own system user may ask on behalf of the business.
#[must_use]
pub fn exchange(next: &Install, new_token: Option<&str>) -> Option<ExchangeToken> {
    next.assets.business_manager_id.as_ref()?;
    let (on_behalf_of, source) = match (&next.token, new_token) {
        (None, _) => (true, None),
        (Some(token), Some(source)) if token.token_type != TokenType::SystemUser => {
            (false, Some(source.to_owned()))
        }
        _ => return None,
    };
    Some(ExchangeToken {
        on_behalf_of,
        source,
        again: false,
    })
}

/// Asks for a system user's token whether there is one or not; `None` if there is no Business Manager to ask.
#[must_use]
pub fn exchange_again(stored: &Install) -> Option<ExchangeToken> {
    stored
        .assets
        .business_manager_id
        .as_ref()
        .filter(|_| stored.is_installed())?;
    let token = stored.token.as_ref();
    Some(ExchangeToken {
        // A token that was obtained on behalf of the business has no source, and that of a system user is not exchanged.
        on_behalf_of: token
            .is_none_or(|token| token.source.is_empty() || token.token_type == TokenType::SystemUser),
        source: token.map(|token| token.source.clone()),
        again: token.is_some(),
    })
}

/// Collects the follow-ups of one decision.
#[derive(Debug)]
pub struct FollowUps<'a> {
    business_id: &'a str,
    key: String,
    configured: Configured,
    /// The follow-ups so far.
    pub items: Vec<OutboxItem>,
}

impl<'a> FollowUps<'a> {
    /// None yet. `key` begins their event keys.
    #[must_use]
    pub fn new(business_id: &'a str, key: String, configured: Configured) -> Self {
        Self {
            business_id,
            key,
            configured,
            items: Vec::new(),
        }
    }

    fn push(&mut self, kind: Kind, payload: &impl Serialize) {
        self.items.push(item(self.business_id, &self.key, kind, payload));
    }

    /// Exchange the token, if it is to be.
    pub fn exchange(&mut self, payload: Option<ExchangeToken>) {
        if let Some(payload) = payload {
            self.push(Kind::FbeExchangeToken, &payload);
        }
    }

    /// Compare the install with Graph.
    pub fn reconcile(&mut self) {
        self.push(Kind::FbeReconcile, &json!({}));
    }

    /// Look at a removal once more at this time: a business that is not installed keeps no secret.
    pub fn sweep(&mut self, at: Timestamp) {
        self.reconcile();
        if let Some(item) = self.items.last_mut() {
            item.not_before = Some(at);
        }
    }

    /// Tell the business, and the partner's platform if one is configured.
    fn notify(&mut self, notice: &Notice, install: &Install) {
        self.push(Kind::FbeNotify, notice);
        if self.configured.partner_webhook {
            let payload = PartnerNotice {
                at: notice.at,
                data: InstallView::of_notice(install, notice.change, &notice.enabled, &notice.disabled),
            };
            self.push(Kind::FbePartnerNotify, &payload);
        }
    }

    /// Push the catalog if there is one, and a feed to fill it from.
    pub fn catalog(&mut self, install: &Install) {
        if let Some(catalog_id) = &install.assets.catalog_id
            && self.configured.catalog_feed
        {
            let item = catalog_item(self.business_id, &self.key, catalog_id, false);
            self.items.push(item);
        }
    }

    /// What every road to a changed grant shares: the history, the notice and the catalog. Nothing follows from an
    /// update in which nothing is different. `at` is when it happened, `now` when we learned.
    pub fn tell(
        &mut self,
        before: &Install,
        next: &mut Install,
        change: Change,
        (at, now): (Timestamp, Timestamp),
    ) {
        let fields = changed_fields(before, next);
        if fields.is_empty() && change == Change::Updated {
            return;
        }
        // What was on before a removal is what the removal switches off.
        let gating = if next.is_installed() {
            next.gating()
        } else {
            before.gating().all_off(INSTALLATION)
        };
        let notice = Notice {
            change,
            enabled: gating.enabled,
            disabled: gating.disabled,
            at,
        };
        self.notify(&notice, next);
        if next.is_installed()
            && (!before.is_installed() || before.assets.catalog_id != next.assets.catalog_id)
        {
            self.catalog(next);
        }
        next.remember(HistoryEntry {
            at,
            noted_at: now,
            change,
            fields,
        });
    }

    /// The plan of an update: `next` is stored, and these follow. The secret stays as it is.
    #[must_use]
    pub fn plan(self, next: Install, wake: bool) -> Plan {
        Plan {
            install: Some(next),
            secret: SecretChange::None,
            outbox: self.items,
            wake,
            outcome: Outcome::Updated,
        }
    }
}

/// The plan of an install whose owner is gone and whose first claim is in effect now. `key` begins the event keys of
/// what follows.
#[must_use]
pub fn owner_changed(
    before: &Install,
    mut next: Install,
    key: String,
    configured: Configured,
    now: Timestamp,
) -> Plan {
    next.version = before.version + 1;
    let mut follow_ups = FollowUps::new(&before.business_id, key, configured);
    let source = next.token.as_ref().map(|token| token.source.clone());
    follow_ups.exchange(exchange(&next, source.as_deref()));
    follow_ups.reconcile();
    follow_ups.tell(before, &mut next, Change::Updated, (now, now));
    Plan {
        secret: if next.keeps_no_token() {
            SecretChange::ScheduleDelete
        } else {
            SecretChange::None
        },
        outcome: Outcome::OwnerChanged,
        ..follow_ups.plan(next, before.status == Status::TokenInvalid)
    }
}
