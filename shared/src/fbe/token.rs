//! What happens to a business's token after it was stored.

use jiff::Timestamp;

use super::install::{Change, HistoryEntry, Install, Status, TokenState};
use super::plan::{FollowUps, Notice, Outcome, Plan, SecretChange, tell};
use super::secret::TokenType;

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
    let key = format!(
        "{:014}-{}-token",
        token.at.as_millisecond().max(0),
        version.get(..16).unwrap_or(version)
    );
    next.version += 1;
    next.settle();
    let gating = next.gating();
    let mut follow_ups = FollowUps::new(&stored.business_id, key);
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
    let key = format!("{:014}-v{:08}-token", now.as_millisecond().max(0), stored.version);
    let mut follow_ups = FollowUps::new(&stored.business_id, key);
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
/// started from: `None` for one on behalf of the business. Gives the install to store, or `None` if another
/// token arrived in the meantime or the business left: then the result is worth nothing.
#[must_use]
pub fn exchanged(stored: &Install, source: Option<&str>, version: &str, now: Timestamp) -> Option<Install> {
    let mut next = stored.clone();
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
        }
        _ => return None,
    }
    next.version += 1;
    next.settle();
    Some(next)
}
