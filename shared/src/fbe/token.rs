//! What happens to a business's token after it was stored.

use jiff::Timestamp;

use super::decide::exchange;
use super::install::{Change, HistoryEntry, Install, Status, TokenState};
use super::plan::{FollowUps, Notice, Outcome, Plan, SecretChange, exchange_item, tell};
use super::secret::TokenType;
use crate::fbe::settings::FbeSettings;
use crate::outbox::OutboxItem;

/// An exchange that was given up is tried again this often.
const AGAIN: i64 = 7 * 24 * 3600;

/// Graph refused the token of version `version` (190): the install is marked and the business told, once.
/// `None` if there is nothing to say: it is known already, or another token has arrived since.
#[must_use]
pub fn token_invalid(stored: &Install, version: &str, now: Timestamp) -> Option<Plan> {
    let mut next = stored.clone();
    let token = next.token.as_mut()?;
    if stored.status != Status::Active || token.version != version {
        return None;
    }
    token.invalid_since = Some(now);
    next.version += 1;
    next.settle();
    let gating = next.gating();
    let mut follow_ups = FollowUps::new(&stored.business_id, key(stored, now));
    follow_ups.notify(&Notice {
        change: Change::TokenInvalid,
        enabled: gating.enabled,
        disabled: gating.disabled,
        at: now,
    });
    next.remember(HistoryEntry {
        at: now,
        noted_at: now,
        change: Change::TokenInvalid,
        fields: vec!["status".to_owned()],
    });
    Some(Plan {
        install: Some(next),
        secret: SecretChange::None,
        outbox: follow_ups.items,
        wake: false,
        outcome: Outcome::Updated,
    })
}

/// Graph took a token that it had refused, for instance after its person passed a security check. `None` if
/// the token was not refused.
#[must_use]
pub fn token_valid(stored: &Install, now: Timestamp) -> Option<Plan> {
    if stored.status != Status::TokenInvalid {
        return None;
    }
    let mut next = stored.clone();
    next.token.as_mut()?.invalid_since = None;
    next.version += 1;
    next.settle();
    let mut follow_ups = FollowUps::new(&stored.business_id, key(stored, now));
    tell(stored, &mut next, Change::Updated, (now, now), &mut follow_ups);
    Some(Plan {
        install: Some(next),
        secret: SecretChange::None,
        outbox: follow_ups.items,
        wake: true,
        outcome: Outcome::Updated,
    })
}

/// A system user's token was obtained, and its secret written as `version`. `source` is what the exchange
/// started from: `None` for one on behalf of the business. `None` if another token arrived in the meantime or the
/// business left: then the result is worth nothing.
#[must_use]
pub fn exchanged(
    stored: &Install,
    source: Option<&str>,
    version: &str,
    settings: &FbeSettings,
    now: Timestamp,
) -> Option<Plan> {
    let mut next = stored.clone();
    let mut follow_ups = FollowUps::new(&stored.business_id, key(stored, now)).with(settings);
    match (&mut next.token, source) {
        (Some(token), Some(source)) if token.source == source => {
            version.clone_into(&mut token.version);
            token.exchanged_at = Some(now);
            token.invalid_since = None;
        }
        (token @ None, None) if stored.is_installed() => {
            *token = Some(TokenState {
                token_type: TokenType::SystemUser,
                at: stored.granted.as_ref()?.at,
                // Sorts before every token that a webhook brings at the same time.
                source: String::new(),
                version: version.to_owned(),
                business_manager_id: stored.assets.business_manager_id.clone(),
                exchanged_at: Some(now),
                invalid_since: None,
            });
            // Without a token there was nothing to push the catalog with.
            follow_ups.catalog(stored);
        }
        _ => return None,
    }
    next.version += 1;
    next.settle();
    let wake = stored.status == Status::TokenInvalid;
    if wake {
        tell(stored, &mut next, Change::Updated, (now, now), &mut follow_ups);
    }
    Some(Plan {
        install: Some(next),
        secret: SecretChange::None,
        outbox: follow_ups.items,
        wake,
        outcome: Outcome::Updated,
    })
}

/// The exchange that an install is still waiting for although it may have been given up: of a person's token, or
/// on behalf of a business without one if the partner's token is there to ask with. Asked again within the same
/// week it is the same item.
#[must_use]
pub fn exchange_again(stored: &Install, has_partner: bool, now: Timestamp) -> Option<OutboxItem> {
    let is_due = match &stored.token {
        None => has_partner,
        Some(token) => token.token_type == TokenType::User,
    };
    let week = Timestamp::from_second(now.as_second().div_euclid(AGAIN) * AGAIN).unwrap_or(now);
    exchange_asked(stored, "weekly", week).filter(|_| is_due)
}

/// The exchange that somebody asks for; `None` if there is nothing to exchange.
#[must_use]
pub fn exchange_on_demand(stored: &Install, now: Timestamp) -> Option<OutboxItem> {
    exchange_asked(stored, "demand", now)
}

fn exchange_asked(stored: &Install, name: &str, at: Timestamp) -> Option<OutboxItem> {
    let token = stored.token.as_ref();
    if !stored.is_installed() || token.is_some_and(|token| token.exchanged_at.is_some()) {
        return None;
    }
    let payload = exchange(stored, token.map(|token| token.source.as_str()))?;
    Some(exchange_item(&stored.business_id, name, at, &payload))
}

/// The start of the event keys of what follows. The version makes it unique: a token may be refused, taken and
/// refused again.
fn key(stored: &Install, now: Timestamp) -> String {
    format!("{:014}-v{:08}-token", now.as_millisecond().max(0), stored.version)
}
