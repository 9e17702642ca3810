//! Webhook, store and Graph side by side. The webhook is a hint, Graph's answer is the truth.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::decide::exchange;
use super::features::Feature;
use super::install::{Change, Install};
use super::plan::{FollowUps, Outcome, Plan, SecretChange, tell};
use super::read::Granted;
use crate::fbe::settings::FbeSettings;

/// Which of the three sides a difference comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Webhook and store agree, Graph does not: a webhook was missed or wrong.
    Unannounced,
    /// Graph has come round to what the webhook said.
    CaughtUp,
    /// All three differ.
    Conflict,
}

/// One difference between what is stored and what Graph says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drift {
    /// Asset, or `feature:<type>`.
    pub field: String,
    /// What was stored: ids, or instances of the feature.
    pub stored: BTreeSet<String>,
    /// What Graph says.
    pub graph: BTreeSet<String>,
    /// Where it comes from.
    pub cause: Cause,
}

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

/// Compares an install with Graph's answer to `fbe_installs` (`None` = it listed no install; see
/// [`super::read::installs`]) and takes over the answer.
#[must_use]
pub fn reconcile(
    stored: &Install,
    graph: Option<&Granted>,
    settings: &FbeSettings,
    now: Timestamp,
) -> Reconciled {
    if !stored.is_installed() {
        return Reconciled {
            verdict: Verdict::NotInstalled,
            drift: Vec::new(),
            plan: None,
        };
    }
    let mut next = stored.clone();
    next.version += 1;
    next.reconciled_at = Some(now);
    // The version makes the key: a retry that finds the same version plans the same effects.
    let key = format!("{:014}-v{:08}", now.as_millisecond().max(0), stored.version);
    let mut follow_ups = FollowUps::new(&stored.business_id, key).with(settings);
    let mut drift = Vec::new();
    let mut secret = SecretChange::None;
    let verdict = if let Some(graph) = graph {
        next.unknown_at_graph_since = None;
        // Graph names a Business Manager only at times.
        let mut graph = graph.clone();
        if graph.assets.business_manager_id.is_none() {
            graph
                .assets
                .business_manager_id
                .clone_from(&stored.assets.business_manager_id);
        }
        drift = differences(stored, &graph);
        let said = stored.said.clone().unwrap_or_else(|| Box::new(stored.grant()));
        next.said = (*said != graph).then_some(said);
        next.set_grant(graph);
        // Without a Business Manager there was nobody to exchange the token with.
        if stored.assets.business_manager_id.is_none() {
            let source = stored.token.as_ref().map(|token| token.source.as_str());
            if let Some(exchange) = exchange(&next, source) {
                follow_ups.exchange(&exchange);
            }
        }
        next.drift_count += drift.len() as u64;
        if drift.is_empty() {
            // Details may still differ, such as a shop's status; they are worth a notice, not an alarm.
            tell(stored, &mut next, Change::Updated, (now, now), &mut follow_ups);
            Verdict::Confirmed
        } else {
            next.drift.clone_from(&drift);
            tell(stored, &mut next, Change::Updated, (now, now), &mut follow_ups);
            Verdict::Drifted
        }
    } else if announced(stored) {
        next.remove();
        secret = SecretChange::ScheduleDelete;
        tell(
            stored,
            &mut next,
            Change::Uninstalled,
            (now, now),
            &mut follow_ups,
        );
        Verdict::Uninstalled
    } else {
        next.unknown_at_graph_since = stored.unknown_at_graph_since.or(Some(now));
        Verdict::UnknownAtGraph
    };
    let outcome = if verdict == Verdict::Uninstalled {
        Outcome::Uninstalled
    } else {
        Outcome::Updated
    };
    Reconciled {
        verdict,
        drift,
        plan: Some(Plan {
            install: Some(next),
            secret,
            outbox: follow_ups.items,
            wake: false,
            outcome,
        }),
    }
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
