//! Settles what the outbox holds: Braze, Graph and the external system are called from here and nowhere else.
//!
//! Deployed twice, once for each lane. Woken by the outbox table's stream and, every minute, by a schedule.

pub mod backoff;
pub mod braze;
mod dispatch;
mod effect;
pub mod fbe;
mod messenger;
pub mod settle;
pub mod whatsapp;

use std::collections::HashMap;

use aws_lambda_events::event::dynamodb;
use jiff::{SignedDuration, Timestamp};
use lambda_runtime::{Error, LambdaEvent};
use serde_json::{Value, json};
use shared::clock::Clock;
use shared::config::Env;
use shared::messenger::settings::MessengerSettings;
use shared::messenger::table::Contacts;
use shared::outbox::Lane;
use shared::outbox::{Entry, Outbox};
use shared::secrets::Secret;
use shared::whatsapp::settings::RelaySettings;
use shared::whatsapp::table::Conversations;

use self::backoff::Backoff;
use self::braze::Braze;
use self::dispatch::{Dispatcher, Workers};
use self::fbe::{FbeWorker, FollowUpSettings};
use self::messenger::sync::ContactWorker;
use self::settle::Settler;
use self::whatsapp::RelayWorker;

/// What is left of an invocation when workers have to be back.
const MARGIN: SignedDuration = SignedDuration::from_secs(5);

/// The deserializer's own words would quote the event.
const NOT_A_BATCH: &str = "the event has Records and is no batch of a DynamoDB stream";

/// What the function reads from its environment.
#[derive(Debug)]
pub struct Settings {
    outbox_table: String,
    backoff: Backoff,
    braze_rest_endpoint: String,
    braze_secret_id: String,
    lane: LaneSettings,
}

#[derive(Debug)]
enum LaneSettings {
    Sync {
        contacts_table: String,
        messenger: MessengerSettings,
        fbe: FollowUpSettings,
    },
    Relay {
        relay_secret_id: String,
        conversations_table: String,
        relay: RelaySettings,
    },
}

impl Settings {
    /// Reads the environment; what is asked for depends on `LANE`.
    pub fn read(env: &mut Env<'_>) -> Self {
        let lane = env.required("LANE");
        if !matches!(lane.as_str(), "relay" | "sync" | "") {
            env.problem(format!("LANE is `{lane}`, but expects `sync` or `relay`"));
        }
        Self {
            outbox_table: env.required("OUTBOX_TABLE"),
            backoff: Backoff::read(env),
            braze_rest_endpoint: env.url("BRAZE_REST_ENDPOINT", None),
            braze_secret_id: env.required("BRAZE_SECRET_ID"),
            lane: if lane == "relay" {
                LaneSettings::Relay {
                    relay_secret_id: env.required("RELAY_SECRET_ID"),
                    conversations_table: env.required("CONVERSATIONS_TABLE"),
                    relay: RelaySettings::read(env),
                }
            } else {
                LaneSettings::Sync {
                    contacts_table: env.required("CONTACTS_TABLE"),
                    messenger: MessengerSettings::read(env),
                    fbe: FollowUpSettings::read(env),
                }
            },
        }
    }
}

/// The function.
pub struct App {
    dispatcher: Dispatcher,
    clock: Clock,
}

impl App {
    /// Nothing is fetched yet.
    #[must_use]
    pub fn new(
        settings: Settings,
        secrets: &aws_sdk_secretsmanager::Client,
        dynamodb: &aws_sdk_dynamodb::Client,
        clock: Clock,
    ) -> Self {
        let outbox = Outbox::new(dynamodb.clone(), settings.outbox_table, clock.clone());
        let secret = Secret::new(secrets.clone(), &settings.braze_secret_id, clock.clone());
        let braze = Braze::new(settings.braze_rest_endpoint, secret, clock.clone());
        let settler = Settler::new(outbox.clone(), settings.backoff, clock.clone());
        let workers = match settings.lane {
            LaneSettings::Sync {
                contacts_table,
                messenger,
                fbe,
            } => {
                let contacts = Contacts::new(dynamodb.clone(), contacts_table, outbox.clone(), clock.clone());
                let messenger = ContactWorker::new(contacts, outbox.clone(), braze.clone(), messenger);
                let partner = fbe.partner(secrets, outbox.clone(), clock.clone());
                let fbe = FbeWorker::new(fbe, secrets, dynamodb, outbox.clone(), braze, clock.clone());
                Workers::Sync {
                    messenger: Box::new(messenger),
                    fbe: Box::new(fbe),
                    partner: Box::new(partner),
                }
            }
            LaneSettings::Relay {
                relay_secret_id,
                conversations_table,
                relay,
            } => Workers::Relay(Box::new(RelayWorker::new(
                Conversations::new(
                    dynamodb.clone(),
                    conversations_table,
                    outbox.clone(),
                    clock.clone(),
                ),
                (outbox.clone(), settler.clone()),
                braze,
                Secret::new(secrets.clone(), &relay_secret_id, clock.clone()),
                relay,
                clock.clone(),
            ))),
        };
        Self {
            dispatcher: Dispatcher::new(workers, outbox, settler, clock.clone()),
            clock,
        }
    }

    /// A batch of the stream, answered with the sequence numbers that could not be settled; a tick of the
    /// schedule; or `{"task":"reconcile"}`, which plans the day's comparisons of installs with Graph.
    ///
    /// # Errors
    ///
    /// If the event is neither, or the table cannot be read.
    pub async fn handle(&self, event: LambdaEvent<Value>) -> Result<Value, Error> {
        let until = Timestamp::try_from(event.context.deadline())? - MARGIN;
        self.handle_until(event.payload, until).await
    }

    /// [`App::handle`] with the time by which it has to be done.
    ///
    /// # Errors
    ///
    /// The same.
    pub async fn handle_until(&self, event: Value, until: Timestamp) -> Result<Value, Error> {
        if event.get("Records").is_some() {
            return self
                .stream(serde_json::from_value(event).map_err(|_| NOT_A_BATCH)?, until)
                .await;
        }
        let task = event.get("task").and_then(Value::as_str);
        if let (Some("reconcile"), Workers::Sync { fbe, .. }) = (task, &self.dispatcher.workers) {
            let planned = Box::pin(fbe.plan_comparisons(self.clock.now())).await?;
            return Ok(json!({"planned": planned}));
        }
        let report = self.dispatcher.tick(until).await?;
        let summary = json!({
            "done": report.done, "retried": report.retried, "dead": report.dead, "left": report.left,
            "unwritten": report.unwritten.len(),
        });
        Ok(summary)
    }

    async fn stream(&self, event: dynamodb::Event, until: Timestamp) -> Result<Value, Error> {
        let (mut entries, mut sequence_numbers) = (Vec::new(), HashMap::new());
        let now = self.clock.now();
        for record in event.records {
            let change = record.change;
            match Entry::read(change.new_image.into()) {
                // The shard would wait with it: the schedule's.
                Ok(entry) if !entry.kind.is_quick() => {}
                // What is not yet due is the schedule's, except where the worker waits for the rest of a burst.
                Ok(entry)
                    if entry
                        .not_before()
                        .is_some_and(|at| at > now + waited_for(entry.lane)) => {}
                Ok(entry) => {
                    sequence_numbers.insert(entry.key(), change.sequence_number);
                    entries.push(entry);
                }
                // Another version's: it stays due, and must not hold up the shard.
                Err(error) => tracing::error!(%error, "a stream record is no outbox item"),
            }
        }
        let report = self.dispatcher.dispatch(entries, until).await;
        let unwritten = report.unwritten.iter().map(Entry::key);
        let failures: Vec<Value> = unwritten
            .filter_map(|key| sequence_numbers.remove(&key))
            .map(|number| json!({"itemIdentifier": number}))
            .collect();
        Ok(json!({"batchItemFailures": failures}))
    }
}

/// Of what the stream brings, what falls due within this time is not left to the schedule.
fn waited_for(lane: Lane) -> SignedDuration {
    match lane {
        Lane::Sync => SignedDuration::ZERO,
        Lane::Relay => whatsapp::LONGEST_WAIT,
    }
}
