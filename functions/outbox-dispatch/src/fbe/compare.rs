//! Webhook, store and Graph side by side. The webhook is a hint, Graph's answer is the truth.

use std::collections::BTreeSet;

use jiff::Timestamp;
use shared::fbe::drift::{Cause, Drift};
use shared::fbe::features::Feature;
use shared::fbe::install::{Change, Install};
use shared::fbe::plan::{FollowUps, Plan, SecretChange, exchange, owner_changed};
use shared::fbe::read::Granted;
use shared::fbe::settings::Configured;

/// What a reconcile came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Graph says what is stored.
    Confirmed,
    /// Graph said something else, which is stored now.
    Drifted,
    /// Graph knows no install, and a webhook had said so: uninstalled.
    Uninstalled,
    /// Graph knows no install, but no webhook announced a removal: kept, to be reported.
    UnknownAtGraph,
    /// Graph does not know the install under its owner, and another Business Manager claimed the business.
    OwnerChanged,
    /// The business is not installed here, so there was nothing to compare.
    NotInstalled,
}

/// A reconcile's result.
#[derive(Debug, Clone, PartialEq)]
pub struct Reconciled {
    /// What it came to.
    pub verdict: Verdict,
    /// The differences that were found.
    pub drift: Vec<Drift>,
    /// What is to be committed; a new check time at least.
    pub plan: Option<Plan>,
}

/// What Graph says of an install.
#[derive(Debug, Clone)]
pub struct AtGraph<'a> {
    /// Its answer to `fbe_installs`; `None` = it listed no install ([`shared::fbe::read::installs`]).
    pub granted: Option<&'a Granted>,
    /// The features that its configuration says are off; `None` = it could not be read, and what was known stays.
    pub switched_off: Option<BTreeSet<String>>,
}

/// Compares an install with what Graph says, and takes it over.
#[must_use]
pub fn compare(stored: &Install, graph: AtGraph<'_>, configured: Configured, now: Timestamp) -> Reconciled {
    if !stored.is_installed() {
        return Reconciled {
            verdict: Verdict::NotInstalled,
            drift: Vec::new(),
            plan: None,
        };
    }
    // The version makes the key: a retry that finds the same version plans the same effects.
    let key = format!("{:014}-v{:08}", now.as_millisecond().max(0), stored.version);
    let mut next = stored.clone().with_owner();
    if is_lost(&next, graph.granted) && next.end_owner(now) {
        next.reconciled_at = Some(now);
        return Reconciled {
            verdict: Verdict::OwnerChanged,
            drift: Vec::new(),
            plan: Some(owner_changed(stored, next, key, configured, now)),
        };
    }
    next.version += 1;
    next.reconciled_at = Some(now);
    let mut follow_ups = FollowUps::new(&stored.business_id, key, configured);
    let mut drift = Vec::new();
    let mut secret = SecretChange::None;
    let verdict = if let Some(granted) = graph.granted {
        next.unknown_at_graph_since = None;
        // Graph names a Business Manager only at times.
        let mut granted = granted.clone();
        if granted.assets.business_manager_id.is_none() {
            let known = &stored.assets.business_manager_id;
            granted.assets.business_manager_id.clone_from(known);
        }
        drift = differences(stored, &granted);
        let said = stored.said.clone().unwrap_or_else(|| Box::new(stored.grant()));
        next.said = (*said != granted).then_some(said);
        next.name_owner(granted.assets.business_manager_id.as_deref());
        next.set_grant(granted);
        if let Some(switched_off) = graph.switched_off {
            next.switched_off = switched_off;
        }
        // Without a Business Manager there was none to exchange the token with.
        if stored.assets.business_manager_id.is_none() {
            let source = stored.token.as_ref().map(|token| token.source.as_str());
            follow_ups.exchange(exchange(&next, source));
        }
        next.drift_count += drift.len() as u64;
        // Details may still differ, such as a shop's status; they are worth a notice, not an alarm.
        follow_ups.tell(stored, &mut next, Change::Updated, (now, now));
        if drift.is_empty() {
            Verdict::Confirmed
        } else {
            next.drift.clone_from(&drift);
            Verdict::Drifted
        }
    } else if announced(stored) {
        next.remove();
        secret = SecretChange::ScheduleDelete;
        follow_ups.tell(stored, &mut next, Change::Uninstalled, (now, now));
        Verdict::Uninstalled
    } else {
        next.unknown_at_graph_since = stored.unknown_at_graph_since.or(Some(now));
        Verdict::UnknownAtGraph
    };
    Reconciled {
        verdict,
        drift,
        plan: Some(Plan {
            secret,
            ..follow_ups.plan(next, false)
        }),
    }
}

/// Whether Graph does not know the install under its owner: not at all, or under one that claims the business.
fn is_lost(stored: &Install, granted: Option<&Granted>) -> bool {
    granted.is_none_or(|granted| stored.is_claimed_by(granted.assets.business_manager_id.as_deref()))
}

/// Whether a removal was announced at or after the newest grant. One that named another Business Manager was
/// not acted upon, but together with Graph's silence it is believed.
fn announced(stored: &Install) -> bool {
    let granted = stored.granted.as_ref().map(|granted| granted.at);
    stored.removals.iter().any(|removal| Some(removal.at) >= granted)
}

fn differences(stored: &Install, graph: &Granted) -> Vec<Drift> {
    let said = stored.said.as_deref().cloned().unwrap_or_else(|| stored.grant());
    let mut sides: Vec<(String, [BTreeSet<String>; 3])> = Vec::new();
    let fields = stored.assets.fields().into_iter();
    for (((name, stored), (_, graph)), (_, said)) in
        fields.zip(graph.assets.fields()).zip(said.assets.fields())
    {
        sides.push((name.to_owned(), [stored, graph, said]));
    }
    let types: BTreeSet<&str> = [&stored.features, &graph.features]
        .into_iter()
        .flatten()
        .map(|feature| feature.feature_type.as_str())
        .collect();
    for feature_type in types {
        let of = |features: &[Feature]| -> BTreeSet<String> {
            features
                .iter()
                .filter(|feature| feature.feature_type == feature_type)
                .map(|feature| feature.instance_id.clone().unwrap_or_default())
                .collect()
        };
        let three = [of(&stored.features), of(&graph.features), of(&said.features)];
        sides.push((format!("feature:{feature_type}"), three));
    }
    sides
        .into_iter()
        .filter(|(_, [stored, graph, _])| stored != graph)
        .map(|(field, [stored, graph, said])| Drift {
            field,
            cause: if said == stored {
                Cause::Unannounced
            } else if said == graph {
                Cause::CaughtUp
            } else {
                Cause::Conflict
            },
            stored,
            graph,
        })
        .collect()
}
