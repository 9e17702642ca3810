//! Settles what the outbox holds: Braze, Graph and the external system are called from here and nowhere else.
//!
//! Deployed twice, once for each lane. Woken by the outbox table's stream and, every minute, by a schedule.

pub mod backoff;
pub mod braze;
pub mod dispatch;
mod fbe;
pub mod messenger;
pub mod whatsapp;

use std::sync::Arc;

use crate::backoff::Backoff;
use crate::backoff::RetrySettings;
use crate::braze::Braze;
use crate::dispatch::{Dispatcher, Settler, Worker};
use aws_lambda_events::event::dynamodb;
use futures_util::stream::{self, StreamExt};
use jiff::{SignedDuration, Timestamp};
use lambda_runtime::{Error, LambdaEvent};
use serde::Deserialize;
use serde_json::{Value, json};
use shared::clock::Clock;
use shared::config::Env;
use shared::messenger::settings::MessengerSettings;
use shared::messenger::table::Contacts;
use shared::outbox::{Entry, Kind, Lane, Outbox, Status};
use shared::secrets::Secret;
use shared::store::StoreError;
use shared::whatsapp::settings::RelaySettings;
use shared::whatsapp::table::Conversations;

use self::fbe::FbeWorker;
use self::messenger::sync::ContactWorker;
use self::whatsapp::RelayWorker;
use self::whatsapp::wake::{Queue, WakeUp, wake_ups};

/// What is left of an invocation when workers have to be back.
const MARGIN: SignedDuration = SignedDuration::from_secs(5);

/// The deserializer's own words would quote the event.
const NOT_A_BATCH: &str = "the event has Records and is no batch of a DynamoDB stream or an SQS queue";

/// What the function reads from its environment.
#[derive(Debug)]
pub struct Settings {
    lane: Lane,
    outbox_table: String,
    retry: RetrySettings,
    braze_rest_endpoint: String,
    braze_secret_id: String,
    queue_url: Option<String>,
    sync: Option<SyncSettings>,
    relay: Option<RelayLane>,
}

#[derive(Debug)]
struct RelayLane {
    relay_secret_id: String,
    conversations_table: String,
    relay: RelaySettings,
}

#[derive(Debug)]
struct SyncSettings {
    contacts_table: String,
    contacts: MessengerSettings,
    fbe: fbe::Settings,
}

impl Settings {
    /// Reads the environment; what is asked for depends on `LANE`.
    pub fn read(env: &mut Env<'_>) -> Self {
        let lane = match env.required("LANE").as_str() {
            "relay" => Lane::Relay,
            "sync" | "" => Lane::Sync,
            other => {
                env.problem(format!("LANE is `{other}`, but expects `sync` or `relay`"));
                Lane::Sync
            }
        };
        Self {
            lane,
            outbox_table: env.required("OUTBOX_TABLE"),
            retry: RetrySettings::read(env),
            braze_rest_endpoint: env.url("BRAZE_REST_ENDPOINT", None),
            braze_secret_id: env.required("BRAZE_SECRET_ID"),
            queue_url: env.optional("RELAY_QUEUE_URL"),
            sync: (lane == Lane::Sync).then(|| SyncSettings {
                contacts_table: env.required("CONTACTS_TABLE"),
                contacts: MessengerSettings::read(env),
                fbe: fbe::Settings::read(env),
            }),
            relay: (lane == Lane::Relay).then(|| RelayLane {
                relay_secret_id: env.required("RELAY_SECRET_ID"),
                conversations_table: env.required("CONVERSATIONS_TABLE"),
                relay: RelaySettings::read(env),
            }),
        }
    }
}

impl Settings {
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
    lane: Lane,
    fbe: Option<Arc<FbeWorker>>,
    clock: Clock,
}

impl App {
    /// A function that has no queue: what the relay has to do is left to the schedule.
    #[must_use]
    pub fn new(
        settings: Settings,
        secrets: &aws_sdk_secretsmanager::Client,
        dynamodb: &aws_sdk_dynamodb::Client,
        clock: Clock,
    ) -> Self {
        Self::with_queue(settings, secrets, dynamodb, None, clock)
    }

    /// A function. Nothing is fetched yet.
    #[must_use]
    pub fn with_queue(
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
        let secret = Secret::new(secrets.clone(), &settings.braze_secret_id, clock.clone());
        let braze = Braze::new(settings.braze_rest_endpoint, secret, clock.clone());
        let backoff = Backoff::new(settings.retry);
        let mut workers: Vec<Arc<dyn Worker>> = Vec::new();
        if let Some(lane) = settings.relay {
            let conversations = Conversations::new(
                dynamodb.clone(),
                lane.conversations_table,
                outbox.clone(),
                clock.clone(),
            );
            let settler = Settler::new(outbox.clone(), backoff, clock.clone());
            let secret = Secret::new(secrets.clone(), &lane.relay_secret_id, clock.clone());
            let worker = RelayWorker::new(
                conversations,
                (outbox.clone(), settler),
                (braze.clone(), queue.clone()),
                secret,
                lane.relay,
                clock.clone(),
            );
            workers.push(Arc::new(worker));
        }
        let mut fbe = None;
        if let Some(sync) = settings.sync {
            let contacts = Contacts::new(
                dynamodb.clone(),
                sync.contacts_table,
                outbox.clone(),
                clock.clone(),
            );
            workers.push(Arc::new(ContactWorker::new(
                contacts,
                outbox.clone(),
                braze.clone(),
                sync.contacts,
            )));
            let worker = Arc::new(FbeWorker::new(
                sync.fbe,
                secrets,
                dynamodb,
                outbox.clone(),
                braze,
                clock.clone(),
            ));
            workers.push(worker.clone());
            fbe = Some(worker);
        }
        Self {
            outbox: outbox.clone(),
            queue,
            lane: settings.lane,
            dispatcher: Dispatcher::new(settings.lane, outbox, workers, backoff, clock.clone()),
            fbe,
            clock,
        }
    }

    /// A batch of the stream or of the queue, answered with what could not be settled; a tick of the
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
        if event.pointer("/Records/0/eventSource") == Some(&json!("aws:sqs")) {
            let event = serde_json::from_value(event).map_err(|_| NOT_A_BATCH)?;
            return Ok(Box::pin(self.woken(event, until)).await);
        }
        if event.get("Records").is_some() {
            let event = serde_json::from_value(event).map_err(|_| NOT_A_BATCH)?;
            return Box::pin(self.stream(event, until)).await;
        }
        if let (Some("reconcile"), Some(fbe)) = (event.get("task").and_then(Value::as_str), &self.fbe) {
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
            self.dispatcher.dispatch(&entries, until).await;
        }
        Ok(())
    }

    /// Sends a wake-up for each conversation that has something new. Gives the places of the records for which that
    /// failed.
    async fn send_wake_ups(&self, entries: &[Entry]) -> Vec<usize> {
        let Some(queue) = &self.queue else {
            return Vec::new();
        };
        let wake_ups = wake_ups(entries, self.clock.now());
        let (messages, places): (Vec<_>, Vec<_>) = wake_ups
            .into_iter()
            .map(|(wake_up, delay, places)| ((wake_up, delay), places))
            .unzip();
        let Err(error) = queue.send(&messages).await else {
            return Vec::new();
        };
        tracing::error!(%error, "conversations cannot be woken");
        let failed = error.places.iter().filter_map(|place| places.get(*place));
        failed.flatten().copied().collect()
    }

    async fn stream(&self, event: dynamodb::Event, until: Timestamp) -> Result<Value, Error> {
        let (mut entries, mut sequence_numbers) = (Vec::new(), Vec::new());
        let now = self.clock.now();
        for record in event.records {
            let change = record.change;
            match Entry::read(change.new_image.into()) {
                // A catalog takes minutes, and the shard would wait with it: the schedule's.
                Ok(entry) if entry.kind == Kind::FbeCatalogPush => {}
                // What is not yet due is the schedule's, or the queue's, which delays it.
                Ok(entry) if entry.lane == self.lane && entry.not_before().is_some_and(|at| at > now) => {}
                Ok(entry) => {
                    entries.push(entry);
                    sequence_numbers.push(change.sequence_number);
                }
                // Another version's: it stays due, and must not hold up the shard.
                Err(error) => tracing::error!(%error, "a stream record is no outbox item"),
            }
        }
        // One event source brings one lane's.
        let unwritten = if entries.iter().all(|entry| entry.lane == self.lane) {
            self.dispatcher.dispatch(&entries, until).await.unwritten
        } else {
            Box::pin(self.send_wake_ups(&entries)).await
        };
        let failures: Vec<Value> = unwritten
            .into_iter()
            .filter_map(|position| sequence_numbers.get(position)?.as_ref())
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
