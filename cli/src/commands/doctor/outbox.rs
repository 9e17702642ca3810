//! `outbox`, `dead`, `quarantine`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use shared::clock::Clock;
use shared::health::Check;
use shared::outbox::{Lane, Outbox};

use crate::target::Target;

/// So many items of a lane are looked at; more of them tell no more.
const LIMIT: usize = 1000;

pub(super) async fn checks(target: &Target, clock: &Clock) -> Vec<Check> {
    let Some(aws) = &target.aws else {
        return ["outbox", "dead", "quarantine"]
            .map(|name| {
                Check::warn(
                    name,
                    "not looked at: the tables are out of reach",
                    "start `bridge local`, or say --aws-addr",
                )
            })
            .to_vec();
    };
    let table = match target.table("OutboxTable") {
        Ok(table) => table,
        Err(error) => {
            return ["outbox", "dead", "quarantine"]
                .map(|name| Check::fail(name, format!("{error:#}"), "deploy the stack again"))
                .to_vec();
        }
    };
    let outbox = Outbox::new(aws_sdk_dynamodb::Client::new(aws), table, clock.clone());
    vec![
        waiting(&outbox).await,
        dead(&outbox, &target.name).await,
        quarantine(&outbox).await,
    ]
}

fn unreadable(name: &str, error: &impl std::fmt::Display) -> Check {
    Check::fail(
        name,
        format!("the outbox cannot be read: {error}"),
        "look at the credentials and the region; they need dynamodb:Query and BatchGetItem on the outbox table",
    )
}

/// How many there are of each reason, and since when.
fn by_reason(items: impl Iterator<Item = (String, Option<Timestamp>)>) -> String {
    let mut reasons: BTreeMap<String, (usize, Option<Timestamp>)> = BTreeMap::new();
    for (reason, since) in items {
        let (count, oldest) = reasons.entry(reason).or_default();
        *count += 1;
        *oldest = match (*oldest, since) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
    }
    let words = reasons.into_iter().map(|(reason, (count, since))| match since {
        Some(since) => format!("{count} × {reason} since {since:.0}"),
        None => format!("{count} × {reason}"),
    });
    words.collect::<Vec<_>>().join(", ")
}

async fn waiting(outbox: &Outbox) -> Check {
    const NAME: &str = "outbox";
    let mut entries = Vec::new();
    for lane in [Lane::Sync, Lane::Relay] {
        match outbox.waiting(lane, LIMIT).await {
            Ok(more) => entries.extend(more),
            Err(error) => return unreadable(NAME, &error),
        }
    }
    let waiting = entries.len();
    let failing = entries.into_iter().filter_map(|entry| {
        let since = entry.failing_since?;
        Some((entry.reason.unwrap_or_default(), Some(since)))
    });
    let failing = by_reason(failing);
    if failing.is_empty() {
        Check::ok(NAME, format!("{waiting} wait, none fails"))
    } else {
        Check::warn(
            NAME,
            format!("{waiting} wait; failing: {failing}"),
            "they are tried again; the reasons are explained under \"Dead items\" in docs/operations.md",
        )
    }
}

async fn dead(outbox: &Outbox, stack: &str) -> Check {
    const NAME: &str = "dead";
    let mut dead = Vec::new();
    for lane in [Lane::Sync, Lane::Relay] {
        match outbox.list_dead(lane, LIMIT).await {
            Ok(more) => dead.extend(more),
            Err(error) => return unreadable(NAME, &error),
        }
    }
    if dead.is_empty() {
        return Check::ok(NAME, "nothing was given up");
    }
    let place = if stack == crate::secrets::STACK_NAME {
        String::new()
    } else {
        format!(" --stack {stack}")
    };
    let reasons = by_reason(dead.into_iter().map(|entry| {
        let since = entry.dead_at;
        (entry.reason.unwrap_or_default(), since)
    }));
    Check::warn(
        NAME,
        format!("given up: {reasons}"),
        format!(
            "correct the cause, then `bridge dead redrive --all{place}`; `bridge dead list{place}` lists them"
        ),
    )
}

async fn quarantine(outbox: &Outbox) -> Check {
    const NAME: &str = "quarantine";
    let kept = match outbox.quarantined(1000).await {
        Ok(kept) => kept,
        Err(error) => return unreadable(NAME, &error),
    };
    if kept.is_empty() {
        return Check::ok(NAME, "everything was understood");
    }
    let reasons = by_reason(
        kept.into_iter()
            .map(|one| (format!("{}/{}", one.source, one.reason), one.at)),
    );
    Check::warn(
        NAME,
        format!("not understood: {reasons}"),
        "see \"Quarantine\" in docs/operations.md: the bodies are kept for 30 days and can be posted again",
    )
}
