//! What follows from one event about one business.

use jiff::{SignedDuration, Timestamp};

use super::event::{InstallChange, InstallEvent, Stamp};
use super::install::{Change, Install, Status};
use super::manager::Removal;
use super::manager::TokenState;
use super::plan::{FollowUps, Outcome, Plan, SecretChange, exchange};
use super::secret::FbeSecret;
use super::settings::Configured;
use crate::digest::Digest;

/// How long after a removal its secret is looked for again.
const SWEEP_AFTER: SignedDuration = SignedDuration::from_mins(5);

/// Decides what an event changes. `stored` is what was read for `event.business_id`; `configured` says which optional
/// follow-ups there are; `now` orders no events, it is only noted in the history.
///
/// The facts of each Business Manager count by their own time, in whatever order they arrive.
#[must_use]
pub fn decide(
    stored: Option<&Install>,
    event: &InstallEvent,
    configured: Configured,
    now: Timestamp,
) -> Plan {
    let before = stored
        .cloned()
        .map_or_else(|| Install::unknown(&event.business_id), Install::with_owner);
    let mut next = before.clone();
    let mut secret = None;
    match &event.change {
        InstallChange::Uninstalled => next.take_removal(Removal {
            at: event.stamp.at,
            business_manager_id: event.business_manager_id.clone(),
        }),
        InstallChange::Granted { granted, token } => {
            let content = token
                .as_ref()
                .map(|token| FbeSecret::arrived(token, event.stamp.at));
            let token = content.as_ref().map(|content| TokenState {
                token_type: content.token_type.clone(),
                at: event.stamp.at,
                source: content.source(),
                version: content.version(),
                business_manager_id: event.business_manager_id.clone(),
                exchanged_at: None,
                expires_at: None,
                invalid_since: None,
            });
            next.take_grant(event, granted, token);
            secret = content;
        }
    }
    next.settle();
    if next == before {
        return unchanged(&before, event);
    }
    next.version += 1;
    let new_token = new_token(&before, &next);
    let mut follow_ups = FollowUps::new(&event.business_id, event.stamp.key(), configured);
    let times = (event.stamp.at, now);
    let outcome = outcome(&before, &next, event, new_token.is_some());
    match outcome {
        Outcome::Installed | Outcome::Updated | Outcome::LateToken | Outcome::OwnerChanged => {
            let change = if outcome == Outcome::Installed {
                next.installed_at = Some(event.stamp.at);
                next.drift_count = 0;
                next.drift.clear();
                Change::Installed
            } else {
                Change::Updated
            };
            follow_ups.exchange(exchange(&next, new_token.as_deref()));
            follow_ups.reconcile();
            follow_ups.tell(&before, &mut next, change, times);
        }
        Outcome::Uninstalled => {
            // By then, a writer that was at the secret meanwhile has ended.
            follow_ups.sweep(now + SWEEP_AFTER);
            follow_ups.tell(&before, &mut next, Change::Uninstalled, times);
        }
        // Does Graph still know the install under the owner?
        Outcome::Claimed => follow_ups.reconcile(),
        // A removal that came late took the token: the partner may ask for another.
        _ if before.token.is_some() && next.token.is_none() => {
            follow_ups.exchange(exchange(&next, None));
        }
        _ => {}
    }
    let is_in_force = |content: &FbeSecret| new_token.as_ref() == Some(&content.source());
    let secret = match secret {
        // Without a token in force the secret may have been scheduled for deletion.
        Some(content) if is_in_force(&content) && stored.is_some() && before.token.is_none() => {
            SecretChange::RestoreAndPut(content)
        }
        Some(content) if is_in_force(&content) => SecretChange::Put(content),
        Some(content) if claims(&next, &content) && !claims(&before, &content) => {
            SecretChange::PutClaim(content)
        }
        _ if next.keeps_no_token() && !before.keeps_no_token() => SecretChange::ScheduleDelete,
        _ if outcome == Outcome::ClaimWithdrawn => SecretChange::DropClaim,
        _ => left_over(&next, event),
    };
    Plan {
        wake: new_token.is_some() && before.status == Status::TokenInvalid,
        install: Some(next),
        secret,
        outbox: follow_ups.items,
        outcome,
    }
}

/// The removal of all that `install` holds, under whichever Business Manager, known from elsewhere than a webhook.
#[must_use]
pub fn removal(install: &Install, now: Timestamp) -> InstallEvent {
    let at = install.after_all(now);
    InstallEvent {
        business_id: install.business_id.clone(),
        business_manager_id: None,
        stamp: Stamp {
            at,
            digest: Digest::of_parts(["removal", &install.business_id, &at.to_string()]).to_string(),
        },
        uid: None,
        flow: None,
        change: InstallChange::Uninstalled,
    }
}

/// The source of the token in force, if it is another than before.
fn new_token(before: &Install, next: &Install) -> Option<String> {
    let source = |install: &Install| install.token.as_ref().map(|token| token.source.clone());
    source(next).filter(|new| source(before).as_ref() != Some(new))
}

fn outcome(before: &Install, next: &Install, event: &InstallEvent, is_new_token: bool) -> Outcome {
    let is_removal = matches!(event.change, InstallChange::Uninstalled);
    let is_claim = |install: &Install| install.is_claimed_by(event.business_manager_id.as_deref());
    match (before.is_installed(), next.is_installed()) {
        (false, true) => Outcome::Installed,
        (true, false) => Outcome::Uninstalled,
        (false, false) if is_removal => Outcome::UnknownUninstall,
        (true, true) if is_other_owner(before, next) => Outcome::OwnerChanged,
        (true, true) if before.granted != next.granted => Outcome::Updated,
        (true, true) if is_new_token => Outcome::LateToken,
        (true, true) if is_removal && is_claim(before) => Outcome::ClaimWithdrawn,
        (true, true) if is_claim(next) => Outcome::Claimed,
        (true, true)
            if next
                .granted
                .as_ref()
                .is_some_and(|granted| event.stamp.at > granted.at) =>
        {
            Outcome::ForeignBusinessManager
        }
        (false, false) | (true, true) => Outcome::Stale,
    }
}

fn is_other_owner(before: &Install, next: &Install) -> bool {
    let owners = before.owner().zip(next.owner());
    owners.is_some_and(|(before, next)| before != next)
}

/// An event that leaves everything as it is.
fn unchanged(before: &Install, event: &InstallEvent) -> Plan {
    let is_removal = matches!(event.change, InstallChange::Uninstalled);
    let is_known = |removal: &Removal| {
        removal.at == event.stamp.at && removal.business_manager_id == event.business_manager_id
    };
    let repeated = if is_removal {
        before.removals.iter().any(is_known)
    } else {
        let newest = before.managers.iter().map(|manager| &manager.newest);
        newest.chain(&before.granted).any(|stamp| *stamp == event.stamp)
    };
    let is_claims = is_removal && event.business_manager_id.is_some() && before.token.is_some();
    Plan {
        install: None,
        // The first delivery may have died between the commit and the secret.
        secret: if is_claims && repeated && before.owner() != event.business_manager_id.as_deref() {
            SecretChange::DropClaim
        } else {
            left_over(before, event)
        },
        outbox: Vec::new(),
        wake: false,
        outcome: if repeated {
            Outcome::Repeated
        } else {
            Outcome::Stale
        },
    }
}

/// Whether this token is kept for a claim.
fn claims(install: &Install, content: &FbeSecret) -> bool {
    let mut tokens = install.claims().iter().filter_map(|claim| claim.token.as_ref());
    tokens.any(|token| token.source == content.source())
}

/// An install without a token needs no secret, and yet there may be one: of an attempt that died between the
/// secret and the commit, or between the commit and the deletion. So an event that brings or takes a token asks for the
/// deletion again.
fn left_over(install: &Install, event: &InstallEvent) -> SecretChange {
    let about_a_token = match &event.change {
        InstallChange::Uninstalled => true,
        InstallChange::Granted { token, .. } => token.is_some(),
    };
    if install.keeps_no_token() && about_a_token {
        SecretChange::ScheduleDelete
    } else {
        SecretChange::None
    }
}
