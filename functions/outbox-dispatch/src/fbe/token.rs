//! What happens to a business's token after it was stored.

use jiff::{SignedDuration, Timestamp};
use shared::fbe::install::{Change, Install, Status};
use shared::fbe::manager::TokenState;
use shared::fbe::plan::{
    ExchangeToken, FollowUps, Plan, exchange, exchange_again, exchange_item, owner_changed,
};
use shared::fbe::secret::TokenType;
use shared::fbe::settings::Configured;
use shared::outbox::OutboxItem;

/// An exchange that was given up is tried again this often.
const WEEK: i64 = 7 * DAY;
/// A token that is refused or ends soon is exchanged anew this often at most.
const DAY: i64 = 24 * 3600;
/// A system user's token that ends within this time is exchanged anew.
const ENDS_SOON: SignedDuration = SignedDuration::from_hours(10 * 24);

/// Graph refused the token of version `version` (190): the install is marked and the business notified, once.
/// `None` if there is nothing to say: it is known already, or another token has arrived since.
#[must_use]
pub fn token_invalid(
    stored: &Install,
    version: &str,
    configured: Configured,
    now: Timestamp,
) -> Option<Plan> {
    let mut next = stored.clone().with_owner();
    let token = next.token.as_mut()?;
    if stored.status != Status::Active || token.version != version {
        return None;
    }
    token.invalid_since = Some(now);
    next.version += 1;
    next.settle();
    let mut follow_ups = FollowUps::new(&stored.business_id, key(stored, now), configured);
    follow_ups.tell(stored, &mut next, Change::TokenInvalid, (now, now));
    follow_ups.items.extend(renewal(&next, now));
    Some(follow_ups.plan(next, false))
}

/// Graph took a token that it had refused, for instance after its person passed a security check. `None` if
/// the token was not refused.
#[must_use]
pub fn token_valid(stored: &Install, configured: Configured, now: Timestamp) -> Option<Plan> {
    if stored.status != Status::TokenInvalid {
        return None;
    }
    let mut next = stored.clone().with_owner();
    next.token.as_mut()?.invalid_since = None;
    next.version += 1;
    next.settle();
    let mut follow_ups = FollowUps::new(&stored.business_id, key(stored, now), configured);
    follow_ups.tell(stored, &mut next, Change::Updated, (now, now));
    Some(follow_ups.plan(next, true))
}

/// The owner's token is refused for good. If another Business Manager claims the business, that claim takes effect.
#[must_use]
pub fn owner_lost(stored: &Install, configured: Configured, now: Timestamp) -> Option<Plan> {
    let mut next = stored.clone().with_owner();
    let is_changed = next.end_owner(now);
    is_changed.then(|| owner_changed(stored, next, key(stored, now), configured, now))
}

/// A system user's token as it was obtained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obtained<'a> {
    /// Source of the token that it was exchanged for; `None`: on behalf of a business that has none.
    pub source: Option<&'a str>,
    /// Version of the secret that holds it.
    pub version: &'a str,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
}

/// A system user's token was obtained, and its secret written. `None` if another token arrived in the meantime or
/// the business left: then the result is worth nothing.
#[must_use]
pub fn exchanged(
    stored: &Install,
    obtained: &Obtained<'_>,
    configured: Configured,
    now: Timestamp,
) -> Option<Plan> {
    let mut next = stored.clone().with_owner();
    let mut follow_ups = FollowUps::new(&stored.business_id, key(stored, now), configured);
    match (&mut next.token, obtained.source) {
        (Some(token), Some(source)) if token.source == source => {
            obtained.version.clone_into(&mut token.version);
            token.exchanged_at = Some(now);
            token.expires_at = obtained.expires_at;
            token.invalid_since = None;
        }
        (token @ None, None) if stored.is_installed() => {
            *token = Some(TokenState {
                token_type: TokenType::SystemUser,
                at: stored.granted.as_ref()?.at,
                // Sorts before every token that a webhook brings at the same time.
                source: String::new(),
                version: obtained.version.to_owned(),
                business_manager_id: stored.assets.business_manager_id.clone(),
                exchanged_at: Some(now),
                expires_at: obtained.expires_at,
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
        follow_ups.tell(stored, &mut next, Change::Updated, (now, now));
    }
    Some(follow_ups.plan(next, wake))
}

/// The exchange that an install is due for: anew of a token that is refused or ends soon, once a day; or the first of
/// a person's token, or on behalf of a business without one if the partner's token is there to ask with, once a week.
/// Asked again within the same day or week it is the same item.
#[must_use]
pub fn exchange_due(stored: &Install, has_partner: bool, now: Timestamp) -> Option<OutboxItem> {
    if !stored.is_installed() {
        return None;
    }
    let first = match &stored.token {
        None => exchange(stored, None).filter(|_| has_partner),
        Some(token) if token.exchanged_at.is_none() && token.token_type == TokenType::User => {
            exchange(stored, Some(&token.source))
        }
        Some(_) => None,
    };
    match first {
        Some(first) => Some(exchange_item(stored, "weekly", start_of(WEEK, now), &first)),
        None => renewal(stored, now),
    }
}

/// Once a day: the exchange anew of a system user's token that is refused or ends soon.
fn renewal(stored: &Install, now: Timestamp) -> Option<OutboxItem> {
    let token = stored.token.as_ref()?;
    // A system user's token that a webhook brought may be replaced on behalf of the business.
    let is_exchanged = token.exchanged_at.is_some() || token.token_type == TokenType::SystemUser;
    let ends_soon = token.expires_at.is_some_and(|end| end <= now + ENDS_SOON);
    let is_due = is_exchanged && (token.invalid_since.is_some() || ends_soon);
    let payload: ExchangeToken = exchange_again(stored).filter(|_| is_due)?;
    Some(exchange_item(stored, "daily", start_of(DAY, now), &payload))
}

fn start_of(period: i64, now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second().div_euclid(period) * period).unwrap_or(now)
}

/// The start of the event keys of what follows. The version makes it unique: a token may be refused, taken and
/// refused again.
fn key(stored: &Install, now: Timestamp) -> String {
    format!("{:014}-v{:08}-token", now.as_millisecond().max(0), stored.version)
}
