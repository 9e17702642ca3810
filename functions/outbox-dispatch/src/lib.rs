//! Settles what the outbox holds: Braze, Graph and the external system are called from here and nowhere else.
//!
//! Deployed twice, once for each lane. Woken by the outbox table's stream and, every minute, by a schedule.

pub mod backoff;
pub mod braze;
mod dispatch;
mod effect;
pub mod erase;
pub mod fbe;
mod health;
mod messenger;
#[doc(hidden)]
pub mod parsers;
pub mod settle;
pub mod whatsapp;

use std::collections::HashMap;
use std::time::Duration;

use aws_lambda_events::event::dynamodb;
use futures_util::stream::{self, StreamExt};
use jiff::{SignedDuration, Timestamp};
use lambda_runtime::{Error, LambdaEvent};
use serde::Deserialize;
use serde_json::{Value, json};
use shared::clients::graph::GraphClient;
use shared::clients::http;
use shared::clock::Clock;
use shared::config::Env;
use shared::erase::{EraseInBraze, Erasures};
use shared::health::HealthSettings;
use shared::messenger::settings::MessengerSettings;
use shared::messenger::table::Contacts;
use shared::outbox::{Entry, Outbox, Status};
use shared::secrets::Secret;
use shared::store::StoreError;
use shared::whatsapp::settings::RelaySettings;
use shared::whatsapp::table::Conversations;

use self::backoff::Backoff;
use self::braze::Braze;
use self::dispatch::{Dispatcher, SyncWorkers, Workers};
use self::erase::EraseWorker;
use self::erase::find::{Finder, Records};
use self::fbe::partner::PartnerWorker;
use self::fbe::{FbeWorker, FollowUpSettings};
use self::health::HealthWorker;
use self::messenger::send::{Pages, SendWorker};
use self::messenger::sync::ContactWorker;
use self::settle::Settler;
use self::whatsapp::wake::{Queue, WakeUp, wake_ups};
use self::whatsapp::{ExternalSystemClient, RelayWorker};

/// Graph's calls, but for catalog batches, which have their own limit.
const GRAPH_TIMEOUT: Duration = Duration::from_secs(15);

/// What is left of an invocation when workers have to be back.
const MARGIN: SignedDuration = SignedDuration::from_secs(5);

/// The deserializer's own words would quote the event.
const NOT_A_BATCH: &str = "the event has Records and is no batch of a DynamoDB stream or an SQS queue";

/// What the function reads from its environment.
#[derive(Debug)]
pub struct Settings {
    outbox_table: String,
    conversations_table: String,
    backoff: Backoff,
    braze_rest_endpoint: String,
    braze_secret_id: String,
    queue_url: Option<String>,
    lane: LaneSettings,
}

#[derive(Debug)]
enum LaneSettings {
    Sync {
        contacts_table: String,
        erase_in_braze: EraseInBraze,
        messenger: MessengerSettings,
        fbe: FollowUpSettings,
        health: HealthSettings,
    },
    Relay {
        relay_secret_id: String,
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
            conversations_table: env.required("CONVERSATIONS_TABLE"),
            backoff: Backoff::read(env),
            braze_rest_endpoint: env.url("BRAZE_REST_ENDPOINT", None),
            braze_secret_id: env.required("BRAZE_SECRET_ID"),
            queue_url: env.optional("RELAY_QUEUE_URL"),
            lane: if lane == "relay" {
                LaneSettings::Relay {
                    relay_secret_id: env.required("RELAY_SECRET_ID"),
                    relay: RelaySettings::read(env),
                }
            } else {
                LaneSettings::Sync {
                    contacts_table: env.required("CONTACTS_TABLE"),
                    erase_in_braze: EraseInBraze::read(env),
                    messenger: MessengerSettings::read(env),
                    fbe: FollowUpSettings::read(env),
                    health: HealthSettings::read(env),
                }
            },
        }
    }

    /// Whether wake-ups are sent: then the function needs a client of SQS.
    #[must_use]
    pub fn has_queue(&self) -> bool {
        self.queue_url.is_some()
    }
}

/// The function.
pub struct App {
    dispatcher: Dispatcher,
    outbox: Outbox,
    queue: Option<Queue>,
    clock: Clock,
}

impl App {
    /// A function. Nothing is fetched yet. Without a queue, what the relay has to do is left to the schedule.
    #[must_use]
    pub fn new(
        settings: Settings,
        secrets: &aws_sdk_secretsmanager::Client,
        dynamodb: &aws_sdk_dynamodb::Client,
        queue: Option<aws_sdk_sqs::Client>,
        clock: Clock,
    ) -> Self {
        let queue = queue
            .zip(settings.queue_url)
            .map(|(client, url)| Queue::new(client, url));
        let outbox = Outbox::new(dynamodb.clone(), settings.outbox_table, clock.clone());
        let conversations = Conversations::new(settings.conversations_table, outbox.clone());
        let secret = Secret::new(secrets.clone(), &settings.braze_secret_id, clock.clone());
        let braze = Braze::new(settings.braze_rest_endpoint, secret, clock.clone());
        let settler = Settler::new(outbox.clone(), settings.backoff, clock.clone());
        let workers = match settings.lane {
            LaneSettings::Sync {
                contacts_table,
                erase_in_braze,
                messenger,
                fbe,
                health,
            } => {
                let contacts = Contacts::new(contacts_table, outbox.clone());
                // One client and one cached secret for all that speak to Graph.
                let graph = GraphClient::new(http::client(GRAPH_TIMEOUT), &fbe.graph);
                let meta = Secret::new(secrets.clone(), &fbe.meta_secret_id, clock.clone());
                let sends = SendWorker {
                    contacts: contacts.clone(),
                    outbox: outbox.clone(),
                    graph: graph.clone(),
                    meta: meta.clone(),
                    settings: messenger.clone(),
                    pages: Pages::default(),
                    clock: clock.clone(),
                };
                let (installs, business_secrets) = fbe.businesses(secrets, outbox.clone());
                let records = Records {
                    contacts: contacts.clone(),
                    conversations,
                    installs,
                    outbox: outbox.clone(),
                };
                let erase = EraseWorker {
                    finder: Finder::new(records, meta.clone(), Some(graph.clone())),
                    erasures: Erasures::new(outbox.clone()),
                    secrets: business_secrets,
                    braze: braze.clone(),
                    settings: messenger.clone(),
                    in_braze: erase_in_braze,
                    clock: clock.clone(),
                };
                let health = HealthWorker {
                    outbox: outbox.clone(),
                    meta: meta.clone(),
                    graph: graph.clone(),
                    settings: health,
                    clock: clock.clone(),
                };
                Workers::Sync(Box::new(SyncWorkers {
                    messenger: ContactWorker {
                        contacts,
                        outbox: outbox.clone(),
                        braze: braze.clone(),
                        settings: messenger,
                    },
                    sends,
                    partner: PartnerWorker::new(&fbe, secrets, outbox.clone(), clock.clone()),
                    health,
                    erase,
                    fbe: FbeWorker::new(
                        fbe,
                        (graph, meta),
                        secrets,
                        (outbox.clone(), settler.clone()),
                        braze,
                        clock.clone(),
                    ),
                }))
            }
            LaneSettings::Relay {
                relay_secret_id,
                relay,
            } => {
                let secret = Secret::new(secrets.clone(), &relay_secret_id, clock.clone());
                let timeout = relay.external_system_timeout;
                Workers::Relay(Box::new(RelayWorker {
                    conversations,
                    outbox: outbox.clone(),
                    settler: settler.clone(),
                    braze,
                    external_system: ExternalSystemClient::new(secret, timeout, clock.clone()),
                    queue: queue.clone(),
                    settings: relay,
                    clock: clock.clone(),
                }))
            }
        };
        Self {
            outbox: outbox.clone(),
            queue,
            dispatcher: Dispatcher::new(workers, outbox, settler, clock.clone()),
            clock,
        }
    }

    /// A batch of the stream or of the queue, answered with what could not be settled; a tick of the
    /// schedule; `{"task":"reconcile"}`, which plans the day's comparisons of installs with Graph; or
    /// `{"task":"health"}`, which plans a look at the app's pages.
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
        if event.pointer("/Records/0/eventSource") == Some(&json!("aws:sqs")) {
            let event = serde_json::from_value(event).map_err(|_| NOT_A_BATCH)?;
            return Ok(Box::pin(self.woken(event, until)).await);
        }
        if event.get("Records").is_some() {
            let event = serde_json::from_value(event).map_err(|_| NOT_A_BATCH)?;
            return Box::pin(self.stream(event, until)).await;
        }
        let task = event.get("task").and_then(Value::as_str);
        if let (Some("reconcile"), Workers::Sync(all)) = (task, &self.dispatcher.workers) {
            let planned = Box::pin(all.fbe.plan_comparisons(until)).await?;
            return Ok(json!({"planned": planned}));
        }
        if let (Some("health"), Workers::Sync(all)) = (task, &self.dispatcher.workers) {
            let planned = Box::pin(all.health.plan(self.clock.now())).await?;
            return Ok(json!({"planned": usize::from(planned)}));
        }
        let report = self.dispatcher.tick(until).await?;
        let summary = json!({
            "done": report.done, "retried": report.retried, "dead": report.dead, "left": report.left,
            "unwritten": report.unwritten.len(),
        });
        Ok(summary)
    }

    /// Wake-ups from the queue. They name items, and the table says how these stand.
    async fn woken(&self, event: Messages, until: Timestamp) -> Value {
        let woken = stream::iter(event.records)
            .map(|message| async move {
                let failed = self.wake(&message.body, until).await.is_err();
                failed.then(|| json!({"itemIdentifier": message.id}))
            })
            .buffer_unordered(WAKE_UPS_AT_ONCE);
        let failures: Vec<Value> = woken.filter_map(std::future::ready).collect().await;
        json!({"batchItemFailures": failures})
    }

    async fn wake(&self, body: &str, until: Timestamp) -> Result<(), StoreError> {
        let Ok(wake_up) = serde_json::from_str::<WakeUp>(body) else {
            // Nothing is lost by it: it holds no state.
            tracing::error!("a message of the queue is no wake-up");
            return Ok(());
        };
        let entries = self.outbox.get_all(&wake_up.subject, &wake_up.event_keys).await;
        let mut entries = entries.inspect_err(|error| {
            tracing::warn!(%error, "a wake-up cannot be looked into");
        })?;
        entries.retain(|entry| entry.status == Status::Pending);
        if !entries.is_empty() {
            // What could not be written is pending still, and the schedule's.
            self.dispatcher.dispatch(entries, until).await;
        }
        Ok(())
    }

    /// Sends a wake-up for each conversation that has something new. Gives the items for which that failed.
    async fn send_wake_ups(&self, entries: Vec<Entry>) -> Vec<Entry> {
        let Some(queue) = self.queue.as_ref().filter(|_| !entries.is_empty()) else {
            return Vec::new();
        };
        let Err(error) = queue.send(&wake_ups(&entries, self.clock.now())).await else {
            return Vec::new();
        };
        tracing::error!(%error, "conversations cannot be woken");
        let is_failed = |entry: &Entry| error.subjects.contains(&entry.subject);
        entries.into_iter().filter(is_failed).collect()
    }

    async fn stream(&self, event: dynamodb::Event, until: Timestamp) -> Result<Value, Error> {
        let (mut entries, mut sequence_numbers) = (Vec::new(), HashMap::new());
        let (now, lane) = (self.clock.now(), self.dispatcher.workers.lane());
        for record in event.records {
            let change = record.change;
            match Entry::read(change.new_image.into()) {
                // The shard would wait with it: the schedule's.
                Ok(entry) if !entry.kind.is_quick() => {}
                // What is not yet due is the schedule's, or the queue's, which delays it.
                Ok(entry) if entry.lane == lane && entry.not_before.is_some_and(|at| at > now) => {}
                Ok(entry) => {
                    sequence_numbers.insert(entry.key(), change.sequence_number);
                    entries.push(entry);
                }
                // Another version's: it stays due, and must not hold up the shard.
                Err(error) => tracing::error!(%error, "a stream record is no outbox item"),
            }
        }
        // One event source brings the items of one lane. Those of the other are woken through the queue.
        let (own, others): (Vec<Entry>, Vec<Entry>) =
            entries.into_iter().partition(|entry| entry.lane == lane);
        let mut unwritten = self.dispatcher.dispatch(own, until).await.unwritten;
        unwritten.extend(Box::pin(self.send_wake_ups(others)).await);
        let failures: Vec<Value> = unwritten
            .iter()
            .map(Entry::key)
            .filter_map(|key| sequence_numbers.remove(&key))
            .map(|number| json!({"itemIdentifier": number}))
            .collect();
        Ok(json!({"batchItemFailures": failures}))
    }
}

/// A batch of an SQS queue, as Lambda brings it; only what is needed of it.
#[derive(Deserialize)]
struct Messages {
    #[serde(rename = "Records")]
    records: Vec<Message>,
}

#[derive(Deserialize)]
struct Message {
    #[serde(rename = "messageId")]
    id: String,
    body: String,
}

/// Conversations that one batch of wake-ups works on side by side.
const WAKE_UPS_AT_ONCE: usize = 100;
