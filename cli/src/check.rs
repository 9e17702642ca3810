//! Whether a local stack is in order once its outbox is drained: the contacts, the outbox and the fake Braze
//! must tell the same story.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use jiff::Timestamp;
use serde_json::Value;
use shared::config::Env;
use shared::messenger::key::ContactKey;
use shared::messenger::settings::MessengerSettings;
use shared::messenger::sync::{self, Synced};
use testkit::braze::{FakeBraze, Identifier};

use crate::inspect::{self, CONTACTS, OUTBOX, Snapshot};
use crate::stack::LocalStack;

/// Everything that is off; empty = in order. Refusals are taken from the fakes, so they are told once.
///
/// # Errors
///
/// When an item is not what the functions write.
pub fn problems(stack: &LocalStack, snapshot: &Snapshot) -> anyhow::Result<Vec<String>> {
    let mut problems = outbox(snapshot, stack.clock().now());
    if let Some(braze) = &stack.fakes().braze {
        problems.extend(contacts(stack, snapshot, braze)?);
    }
    problems.extend(stack.fakes().take_refusals());
    Ok(problems)
}

/// Items that are dead, or pending although nothing is left to wait for.
#[must_use]
pub fn outbox(snapshot: &Snapshot, now: Timestamp) -> Vec<String> {
    let mut problems = Vec::new();
    for item in snapshot.table(OUTBOX).values() {
        let text = |name: &str| item.get(name).and_then(Value::as_str).unwrap_or_default();
        let not_before = item.get("not_before").and_then(Value::as_i64);
        let is_planned =
            text("kind") == "fbe_reconcile" && not_before.is_some_and(|at| at > now.as_millisecond());
        if text("status") == "dead" || (text("status") == "pending" && !is_planned) {
            problems.push(format!(
                "an outbox item {} is {} ({})",
                text("kind"),
                text("status"),
                text("reason")
            ));
        }
    }
    problems
}

/// A profile at Braze and one of its attributes.
type Place = (String, String);

/// What the contacts say and what Braze holds, where they differ.
///
/// # Errors
///
/// When an item is not what the functions write.
pub fn contacts(stack: &LocalStack, snapshot: &Snapshot, braze: &FakeBraze) -> anyhow::Result<Vec<String>> {
    let settings = Env::new(|name| stack.settings().get(name).cloned()).finish(MessengerSettings::read)?;
    let mut problems = Vec::new();
    // Of several contacts of one user the last one told counts, so any of their values may stand.
    let mut told: BTreeMap<Place, BTreeSet<String>> = BTreeMap::new();
    for (name, item) in snapshot.table(CONTACTS) {
        let Ok(key) = name.parse::<ContactKey>() else {
            continue; // the record of a `user_ref`
        };
        let contact =
            inspect::contact(item).with_context(|| format!("the facts of {name} are not readable"))?;
        let synced: Synced = match item.get("synced") {
            Some(synced) => serde_json::from_value(synced.clone())
                .with_context(|| format!("what Braze was told of {name} is not readable"))?,
            None => Synced::default(),
        };
        if !sync::plan(&contact, &synced, &sync::Others::default(), &settings).is_empty() {
            problems.push(format!("Braze has not been told everything about {name}"));
        }
        let identifier = match &synced.profile {
            sync::Profile::None => continue,
            sync::Profile::Alias => Identifier::Alias {
                label: sync::UserAlias::of(&key).alias_label,
                name: key.scoped_id.0.clone(),
            },
            sync::Profile::User(user_id) => Identifier::ExternalId(user_id.0.clone()),
        };
        let Some(profile) = braze.find(&identifier) else {
            problems.push(format!("Braze has no profile for {name}"));
            continue;
        };
        for (attribute, value) in synced.attributes.0 {
            told.entry((profile.braze_id.clone(), attribute))
                .or_default()
                .insert(value.to_string());
        }
    }
    let names: BTreeSet<&String> = told.keys().map(|(_, attribute)| attribute).collect();
    let mut held: BTreeMap<Place, String> = BTreeMap::new();
    for profile in braze.profiles() {
        for (attribute, value) in profile.attributes {
            if names.contains(&attribute) {
                held.insert((profile.braze_id.clone(), attribute), value.to_string());
            }
        }
    }
    for ((profile, attribute), value) in &held {
        let place = (profile.clone(), attribute.clone());
        if !told.get(&place).is_some_and(|values| values.contains(value)) {
            problems.push(format!(
                "Braze holds {attribute} = {value} on profile {profile}, which no contact says"
            ));
        }
    }
    for (profile, attribute) in told.keys() {
        if !held.contains_key(&(profile.clone(), attribute.clone())) {
            problems.push(format!(
                "Braze holds no {attribute} on profile {profile}, but a contact says so"
            ));
        }
    }
    Ok(problems)
}
