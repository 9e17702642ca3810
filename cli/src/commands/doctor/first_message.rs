//! `bridge doctor --wait`: the way of the first real message.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::{Value, json};
use shared::clock::Clock;
use shared::config::Env;
use shared::messenger::key::ContactKey;
use shared::messenger::settings::MessengerSettings;
use shared::messenger::sync::{self, Others, Synced};
use shared::telemetry;

use crate::inspect;
use crate::output;
use crate::target::Target;

/// What to look at if none comes.
pub(super) const NOTHING_COMES: &str = "look at the checks above; in development mode only people with a role in the app \
                                        get through, and another app may have the conversation (Page settings > Advanced messaging)";

/// How often the table is looked at, on this machine and at AWS.
const LOCAL_POLL: Duration = Duration::from_millis(50);
const POLL: Duration = Duration::from_secs(1);
/// A message that was sent longer ago is not measured from when it was sent.
const FRESH_MILLISECONDS: i64 = 60_000;
/// More contacts are not read again and again.
const MAX_CONTACTS: i64 = 200_000;

/// Waits for `limit`, and prints as it goes unless `quiet`. `None` if nothing came.
pub(super) async fn wait(
    target: &Target,
    clock: &Clock,
    limit: Duration,
    quiet: bool,
) -> anyhow::Result<Option<Value>> {
    let aws = target.aws.as_ref().context("--wait needs the stack's tables")?;
    let (client, table) = (Client::new(aws), target.table("ContactsTable")?);
    let poll = if target.is_local { LOCAL_POLL } else { POLL };
    let described = client.describe_table().table_name(&table).send().await;
    let described = described.with_context(|| format!("the table {table} cannot be read"))?;
    let size = described
        .table
        .and_then(|table| table.item_count)
        .unwrap_or_default();
    anyhow::ensure!(
        size <= MAX_CONTACTS,
        "--wait reads all contacts again and again, and there are {size}; watch the metric ContactsCreated instead"
    );
    let settings = Env::new(|name| target.setting(name)).finish(MessengerSettings::read)?;
    let say = |text: String| {
        if !quiet {
            output::line(text);
        }
    };
    let start = Instant::now();
    let before = contacts(&client, &table).await?;
    if !quiet {
        output::note(format_args!(
            "waiting for a message, for {} s: write to the page from a phone",
            limit.as_secs()
        ));
    }
    let mut looked = clock.now();
    let (key, item) = loop {
        let now = contacts(&client, &table).await?;
        let news = now.into_iter().find(|(key, item)| before.get(key) != Some(item));
        if let Some(news) = news {
            break news;
        }
        if start.elapsed() >= limit {
            return Ok(None);
        }
        looked = clock.now();
        tokio::time::sleep(poll).await;
    };
    let stored_at = clock.now();
    let contact = inspect::contact(&item).context("the contact cannot be read by this version")?;
    // Meta's own time, if it is now: a recorded message may be years old.
    let sent = contact.last_interaction.filter(|at| {
        let age = stored_at.duration_since(*at).as_millis();
        (0..i128::from(FRESH_MILLISECONDS)).contains(&age)
    });
    let began = sent.unwrap_or(looked);
    let milliseconds = |at: jiff::Timestamp| at.duration_since(began).as_millis().max(0);
    let who = telemetry::pseudonym(&key);
    let (channel, page) = (contact.key.channel, contact.key.account_id.clone());
    let from = if sent.is_some() { "sent" } else { "last looked" };
    say(format!(
        "received  {channel:?} {page}, from contact {who}, {from} at {began:.3}"
    ));
    say(format!("stored    after {} ms", milliseconds(stored_at)));

    let told = loop {
        let item = contacts(&client, &table).await?.remove(&key).unwrap_or_default();
        if is_told(&item, &settings) {
            break Some(clock.now());
        }
        if start.elapsed() >= limit {
            break None;
        }
        tokio::time::sleep(poll).await;
    };
    match told {
        Some(at) => say(format!("braze     told after {} ms", milliseconds(at))),
        None => say("braze     not told yet; `bridge doctor` says what fails".to_owned()),
    }
    Ok(Some(json!({
        "channel": format!("{channel:?}").to_lowercase(),
        "account_id": page,
        "contact": who,
        "received_at": began.to_string(),
        "stored_ms": i64::try_from(milliseconds(stored_at)).unwrap_or(i64::MAX),
        "braze_ms": told.map(|at| i64::try_from(milliseconds(at)).unwrap_or(i64::MAX)),
    })))
}

/// Contacts by key. Records of users and plugins are none.
async fn contacts(client: &Client, table: &str) -> anyhow::Result<BTreeMap<String, Value>> {
    let items = client
        .scan()
        .table_name(table)
        .consistent_read(true)
        .filter_expression("attribute_exists(facts)")
        .into_paginator()
        .items()
        .send()
        .collect::<Result<Vec<HashMap<String, AttributeValue>>, _>>()
        .await
        .with_context(|| format!("the table {table} cannot be read"))?;
    let keyed = items.iter().filter_map(|item| {
        let key = item.get("contact_key")?.as_s().ok()?;
        key.parse::<ContactKey>().ok()?;
        let mut plain = inspect::plain_item(item);
        // A lease that comes and goes is no message.
        if let Some(members) = plain.as_object_mut() {
            members.retain(|name, _| matches!(name.as_str(), "facts" | "latest" | "synced"));
        }
        Some((key.clone(), plain))
    });
    Ok(keyed.collect())
}

/// Whether Braze knows everything about the contact.
fn is_told(item: &Value, settings: &MessengerSettings) -> bool {
    let Some(contact) = inspect::contact(item) else {
        return false;
    };
    let synced: Synced = item
        .get("synced")
        .and_then(|synced| serde_json::from_value(synced.clone()).ok())
        .unwrap_or_default();
    sync::plan(&contact, &synced, &Others::default(), settings).is_empty()
}
