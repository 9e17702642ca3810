//! A queue as Lambda's event source mapping reads it: in batches, so many at once, and deleted once they are through.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_sqs::Client;
use aws_sdk_sqs::error::DisplayErrorContext;
use aws_sdk_sqs::types::{Message, MessageSystemAttributeName};
use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Handler, invoke};
use crate::template::QueueEvents;

/// Messages that SQS gives at once.
const MAX_RECEIVED: i32 = 10;

/// How long a request waits for a message.
const POLL_SECONDS: i32 = 1;

/// One function behind one queue.
#[derive(Clone)]
pub struct QueueSource {
    /// The queue.
    pub url: String,
    /// The event source as the template declares it.
    pub mapping: QueueEvents,
    /// The function.
    pub handler: Handler,
    /// The function's time limit.
    pub timeout: Option<Duration>,
}

/// A queue, being read.
pub struct QueueDriver {
    tasks: JoinSet<()>,
}

impl QueueDriver {
    /// Reads the queue until `stop` is cancelled.
    #[must_use]
    pub fn start(client: Client, source: QueueSource, stop: CancellationToken) -> Self {
        let mut tasks = JoinSet::new();
        tasks.spawn(read(client, Arc::new(source), stop));
        Self { tasks }
    }

    /// Waits until the invocations in hand are over.
    pub async fn stopped(self) {
        self.tasks.join_all().await;
    }
}

async fn read(client: Client, source: Arc<QueueSource>, stop: CancellationToken) {
    let slots = Arc::new(Semaphore::new(source.mapping.maximum_concurrency.unwrap_or(1000)));
    let mut invocations = JoinSet::new();
    while !stop.is_cancelled() {
        while invocations.try_join_next().is_some() {}
        let request = client
            .receive_message()
            .queue_url(&source.url)
            .max_number_of_messages(MAX_RECEIVED)
            .wait_time_seconds(POLL_SECONDS)
            .message_system_attribute_names(MessageSystemAttributeName::All);
        // Nobody is asked for what cannot be worked on yet.
        let Some(Ok(free)) = stop.run_until_cancelled(slots.clone().acquire_owned()).await else {
            break;
        };
        drop(free);
        let received = match stop.run_until_cancelled(request.send()).await {
            None => break,
            Some(Ok(received)) => received.messages.unwrap_or_default(),
            Some(Err(error)) => {
                tracing::warn!(error = %DisplayErrorContext(error), "the queue cannot be read");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        for batch in received.chunks(source.mapping.batch_size.max(1)) {
            let Ok(slot) = slots.clone().acquire_owned().await else {
                break;
            };
            let (client, source, batch) = (client.clone(), source.clone(), batch.to_vec());
            invocations.spawn(async move {
                deliver(&client, &source, batch).await;
                drop(slot);
            });
        }
    }
    invocations.join_all().await;
}

/// Invokes the function with a batch, and deletes what is through. The rest comes again when it is visible again.
async fn deliver(client: &Client, source: &QueueSource, batch: Vec<Message>) {
    let records: Vec<Value> = batch.iter().map(record).collect();
    let answer = invoke(&source.handler, json!({ "Records": records }), source.timeout).await;
    let failed: BTreeSet<String> = match answer {
        Ok(answer) if source.mapping.report_batch_item_failures => failures(&answer),
        Ok(_) => BTreeSet::new(),
        Err(error) => {
            tracing::warn!(%error, "a batch of a queue failed");
            return;
        }
    };
    for message in batch {
        let is_failed = message.message_id().is_some_and(|id| failed.contains(id));
        let (Some(handle), false) = (message.receipt_handle, is_failed) else {
            continue;
        };
        let deleted = client
            .delete_message()
            .queue_url(&source.url)
            .receipt_handle(handle);
        if let Err(error) = deleted.send().await {
            tracing::warn!(error = %DisplayErrorContext(error), "a message is not deleted");
        }
    }
}

fn failures(answer: &Value) -> BTreeSet<String> {
    let failures = answer.get("batchItemFailures").and_then(Value::as_array);
    let ids = failures
        .into_iter()
        .flatten()
        .filter_map(|failure| failure.get("itemIdentifier")?.as_str());
    ids.map(str::to_owned).collect()
}

/// As Lambda hands it over.
fn record(message: &Message) -> Value {
    let attributes = message.attributes().into_iter().flatten();
    let attributes: Map<String, Value> = attributes
        .map(|(name, value)| (name.as_str().to_owned(), value.as_str().into()))
        .collect();
    json!({
        "messageId": message.message_id(),
        "receiptHandle": message.receipt_handle(),
        "body": message.body(),
        "attributes": attributes,
        "messageAttributes": {},
        "md5OfBody": message.md5_of_body(),
        "eventSource": "aws:sqs",
        "eventSourceARN": format!("arn:aws:sqs:{}:123456789012:queue", crate::template::REGION),
        "awsRegion": crate::template::REGION,
    })
}
