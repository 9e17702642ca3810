//! What follows from one event about one business.

use jiff::{SignedDuration, Timestamp};

use super::event::{InstallChange, InstallEvent};
use super::install::{Change, Install, Removal, Status, TokenState};
use super::plan::{ExchangeToken, FollowUps, Outcome, Plan, SecretChange, tell};
use super::secret::{FbeSecret, TokenType};
use crate::fbe::settings::FbeSettings;

/// How long after a removal its secret is looked for again.
const SWEEP_AFTER: SignedDuration = SignedDuration::from_mins(5);

/// Decides what an event changes. `stored` is what was read for `event.business_id`; `now` orders
/// no events, it is only noted in the history.
///
/// The newest grant, token and removals win by their own time, in whatever order they arrive.
#[must_use]
pub fn decide(
    stored: Option<&Install>,
    event: &InstallEvent,
    settings: &FbeSettings,
    now: Timestamp,
) -> Plan {
    let before = stored
        .cloned()
        .unwrap_or_else(|| Install::unknown(&event.business_id));
    let mut next = before.clone();
    let mut secret = None;
    let mut is_newest = false;
    match &event.change {
        InstallChange::Uninstalled => next.take_removal(Removal {
            at: event.stamp.at,
            business_manager_id: event.business_manager_id.clone(),
        }),
        InstallChange::Granted { granted, token } => {
            is_newest = next.take_grant(event, granted);
            if let Some(token) = token {
                let content = FbeSecret {
                    access_token: Some(token.value.clone()),
                    token_type: token.token_type.clone(),
                    system_user_access_token: None,
                    received_at: event.stamp.at,
                    exchanged_at: None,
                };
                let version = content.version();
                next.take_token(TokenState {
                    token_type: token.token_type.clone(),
                    at: event.stamp.at,
                    source: version.clone(),
                    version,
                    business_manager_id: event.business_manager_id.clone(),
                    exchanged_at: None,
                    invalid_since: None,
                });
                secret = Some(content);
            }
        }
    }
    next.settle();
    if next == before {
        return unchanged(&before, event);
    }
    next.version += 1;
    let fact = |install: &Install| install.token.as_ref().map(|token| token.source.clone());
    let new_token = fact(&next).filter(|source| fact(&before).as_ref() != Some(source));
    let secret = secret.filter(|_| new_token.is_some());
    let mut follow_ups = FollowUps::new(&event.business_id, event.stamp.key()).with(settings);
    let times = (event.stamp.at, now);
    let outcome = match (before.is_installed(), next.is_installed()) {
        (false, true) => Outcome::Installed,
        (true, false) => Outcome::Uninstalled,
        (true, true) if is_newest => Outcome::Updated,
        (true, true) if new_token.is_some() => Outcome::LateToken,
        (true, true) => foreign_or_stale(&next, event),
        (false, false) if matches!(event.change, InstallChange::Uninstalled) => Outcome::UnknownUninstall,
        (false, false) => Outcome::Stale,
    };
    match outcome {
        Outcome::Installed | Outcome::Updated | Outcome::LateToken => {
            let is_install = outcome == Outcome::Installed;
            if is_install {
                next.installed_at = Some(event.stamp.at);
                next.drift_count = 0;
                next.drift.clear();
            }
            if let Some(exchange) = exchange(&next, new_token.as_deref()) {
                follow_ups.exchange(&exchange);
            }
            follow_ups.reconcile();
            let change = if is_install {
                Change::Installed
            } else {
                Change::Updated
            };
            tell(&before, &mut next, change, times, &mut follow_ups);
        }
        Outcome::Uninstalled => {
            // Whoever was writing or restoring the secret meanwhile has come to an end by then.
            follow_ups.sweep(now + SWEEP_AFTER);
            tell(&before, &mut next, Change::Uninstalled, times, &mut follow_ups);
        }
        // A removal that came late took the token: the partner may ask for another.
        _ if before.token.is_some() && next.token.is_none() => {
            if let Some(exchange) = exchange(&next, None) {
                follow_ups.exchange(&exchange);
            }
        }
        _ => {}
    }
    let secret = match secret {
        // Without a token in force the secret may have been scheduled for deletion.
        Some(content) if stored.is_some() && before.token.is_none() => SecretChange::RestoreAndPut(content),
        Some(content) => SecretChange::Put(content),
        None if before.token.is_some() && next.token.is_none() => SecretChange::ScheduleDelete,
        None => left_over(&next, event),
    };
    Plan {
        wake: new_token.is_some() && before.status == Status::TokenInvalid,
        install: Some(next),
        secret,
        outbox: follow_ups.items,
        outcome,
    }
}

/// An event that leaves everything as it is.
fn unchanged(before: &Install, event: &InstallEvent) -> Plan {
    let is_removal = matches!(event.change, InstallChange::Uninstalled);
    let known_removal = is_removal
        && before.removals.iter().any(|removal| {
            removal.at == event.stamp.at && removal.business_manager_id == event.business_manager_id
        });
    let repeated = known_removal || before.granted.as_ref() == Some(&event.stamp);
    Plan {
        install: None,
        secret: left_over(before, event),
        outbox: Vec::new(),
        wake: false,
        outcome: if repeated {
            Outcome::Repeated
        } else {
            Outcome::Stale
        },
    }
}

/// An install without a token needs no secret, and yet there may be one: of an attempt that died between the
/// secret and the commit, or between the commit and the deletion. So whatever brings or takes a token asks for the
/// deletion again.
fn left_over(install: &Install, event: &InstallEvent) -> SecretChange {
    let about_a_token = match &event.change {
        InstallChange::Uninstalled => true,
        InstallChange::Granted { token, .. } => token.is_some(),
    };
    if install.token.is_none() && about_a_token {
        SecretChange::ScheduleDelete
    } else {
        SecretChange::None
    }
}

fn foreign_or_stale(next: &Install, event: &InstallEvent) -> Outcome {
    let newer = next
        .granted
        .as_ref()
        .is_some_and(|granted| event.stamp.at > granted.at);
    if newer {
        Outcome::ForeignBusinessManager
    } else {
        Outcome::Stale
    }
}

/// Whether a token is to be asked for: a user's is exchanged, one of unknown type is tried, and where none
/// came at all the partner's own system user may ask on behalf of the business.
pub(super) fn exchange(next: &Install, new_token: Option<&str>) -> Option<ExchangeToken> {
    next.assets.business_manager_id.as_ref()?;
    match (&next.token, new_token) {
        (None, _) => Some(ExchangeToken {
            on_behalf_of: true,
            source: None,
        }),
        (Some(token), Some(source)) if token.token_type != TokenType::SystemUser => Some(ExchangeToken {
            on_behalf_of: false,
            source: Some(source.to_owned()),
        }),
        _ => None,
    }
}
