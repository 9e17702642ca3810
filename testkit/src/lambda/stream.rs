//! A table's stream as Lambda's event source mapping reads it: filtered, in batches, in order within a
//! partition key, and retried from the record that failed.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use anyhow::Context as _;
use aws_sdk_dynamodbstreams::Client;
use aws_sdk_dynamodbstreams::types::{Record, ShardIteratorType};
use serde_json::{Value, json};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Handler, Pattern, invoke, stream_event};
use crate::template::{Stream, Table};

/// Records that wait for one worker. When it is full the stream is not read on.
const QUEUE: usize = 10_000;

/// One function behind one table's stream.
#[derive(Clone)]
pub struct StreamSource {
    /// The table.
    pub table: Table,
    /// The event source as the template declares it.
    pub mapping: Stream,
    /// How often the stream is looked at. Lambda does it four times a second.
    pub poll: Duration,
    /// The function.
    pub handler: Handler,
    /// The function's time limit.
    pub timeout: Option<Duration>,
}

/// A stream, being read.
pub struct StreamDriver {
    tasks: JoinSet<()>,
}

impl StreamDriver {
    /// Reads the stream until `stop` is cancelled. Every write that is made after this returns is seen; with
    /// a mapping that starts at `TRIM_HORIZON` also what the stream still holds. The position is kept in
    /// memory only.
    ///
    /// # Errors
    ///
    /// When the table has no stream, or a filter is not understood.
    pub async fn start(
        client: Client,
        source: StreamSource,
        stop: CancellationToken,
    ) -> anyhow::Result<Self> {
        let patterns = source.mapping.filters.iter().map(|filter| Pattern::parse(filter));
        let patterns: Vec<Pattern> = patterns.collect::<Result<_, _>>()?;
        let (arn, shards) = describe(&client, &source.table.name).await?;
        let key = source.table.key.iter().find(|key| key.key_type == "HASH");
        let partition_key = key.context("the table has no partition key")?.name.clone();
        let mut tasks = JoinSet::new();
        let mut queues = Vec::new();
        for _ in 0..source.mapping.parallelization_factor.max(1) {
            let (queue, records) = mpsc::channel(QUEUE);
            queues.push(queue);
            tasks.spawn(work(source.clone(), records, stop.clone()));
        }
        for shard in shards {
            let start = ShardIteratorType::from(source.mapping.starting_position.as_str());
            let iterator = client.get_shard_iterator().stream_arn(&arn).shard_id(shard);
            let iterator = iterator.shard_iterator_type(start).send().await?.shard_iterator;
            let reader = Reader {
                client: client.clone(),
                arn: arn.clone(),
                patterns: patterns.clone(),
                queues: queues.clone(),
                partition_key: partition_key.clone(),
                poll: source.poll,
            };
            let stop = stop.clone();
            tasks.spawn(async move {
                if let Some(iterator) = iterator {
                    stop.run_until_cancelled(reader.read(iterator)).await;
                }
            });
        }
        Ok(Self { tasks })
    }

    /// Waits until the batches in hand are over.
    pub async fn stopped(self) {
        self.tasks.join_all().await;
    }
}

async fn describe(client: &Client, table: &str) -> anyhow::Result<(String, Vec<String>)> {
    let streams = client.list_streams().table_name(table).send().await?;
    let arn = streams.streams().last().and_then(|stream| stream.stream_arn());
    let arn = arn
        .with_context(|| format!("the table {table} has no stream"))?
        .to_owned();
    let mut shards = Vec::new();
    let mut after = None;
    loop {
        let page = client
            .describe_stream()
            .stream_arn(&arn)
            .set_exclusive_start_shard_id(after);
        let page = page
            .send()
            .await?
            .stream_description
            .context("the stream has no description")?;
        shards.extend(
            page.shards()
                .iter()
                .filter_map(|shard| shard.shard_id().map(str::to_owned)),
        );
        after = page.last_evaluated_shard_id;
        if after.is_none() {
            return Ok((arn, shards));
        }
    }
}

struct Reader {
    client: Client,
    arn: String,
    patterns: Vec<Pattern>,
    queues: Vec<Sender<Value>>,
    partition_key: String,
    poll: Duration,
}

impl Reader {
    async fn read(&self, first: String) {
        let mut iterator = Some(first);
        while let Some(current) = iterator {
            match self.client.get_records().shard_iterator(&current).send().await {
                Ok(page) => {
                    let empty = page.records().is_empty();
                    for record in page.records() {
                        if !self.hand_on(record).await {
                            return;
                        }
                    }
                    iterator = page.next_shard_iterator;
                    if empty {
                        tokio::time::sleep(self.poll).await;
                    }
                }
                Err(error) => {
                    let error = aws_sdk_dynamodbstreams::Error::from(error);
                    tracing::warn!(%error, "the stream cannot be read");
                    iterator = Some(current);
                    tokio::time::sleep(self.poll.max(Duration::from_millis(100))).await;
                }
            }
        }
    }

    /// False when nobody takes records any more.
    async fn hand_on(&self, record: &Record) -> bool {
        let event = stream_event::record(record, &self.arn);
        if !self.patterns.is_empty() && !self.patterns.iter().any(|pattern| pattern.matches(&event)) {
            return true;
        }
        match self.queues.get(self.worker_of(&event)) {
            Some(queue) => queue.send(event).await.is_ok(),
            None => false,
        }
    }

    /// A partition key's records, and with it their order, stay with one worker.
    fn worker_of(&self, event: &Value) -> usize {
        let key = event
            .pointer("/dynamodb/Keys")
            .and_then(|keys| keys.get(&self.partition_key));
        let mut hasher = DefaultHasher::new();
        key.map(Value::to_string).hash(&mut hasher);
        usize::try_from(hasher.finish() % self.queues.len().max(1) as u64).unwrap_or_default()
    }
}

async fn work(source: StreamSource, mut records: Receiver<Value>, stop: CancellationToken) {
    let size = source.mapping.batch_size.max(1);
    let window = Duration::from_secs(source.mapping.batching_window_seconds);
    while let Some(Some(first)) = stop.run_until_cancelled(records.recv()).await {
        let mut batch = vec![first];
        let full_by = Instant::now() + window;
        while batch.len() < size {
            let Ok(Some(record)) = tokio::time::timeout_at(full_by, records.recv()).await else {
                break;
            };
            batch.push(record);
        }
        deliver(&source, batch, &stop).await;
    }
}

/// Invokes the function until the batch is through, given up, or the driver stops.
async fn deliver(source: &StreamSource, batch: Vec<Value>, stop: &CancellationToken) {
    let mapping = &source.mapping;
    // Halves of a bisected batch, the earliest last.
    let mut waiting = vec![batch];
    let mut tries = 0_u32;
    while let Some(mut batch) = waiting.pop() {
        let answer = invoke(&source.handler, json!({ "Records": batch }), source.timeout).await;
        let failed = match answer {
            Ok(answer) if mapping.report_batch_item_failures => first_failure(&batch, &answer),
            Ok(_) => None,
            Err(error) => {
                tracing::warn!(table = %source.table.name, %error, "a stream batch failed");
                if mapping.bisect_batch && batch.len() > 1 {
                    let second = batch.split_off(batch.len() / 2);
                    waiting.push(second);
                    waiting.push(batch);
                    continue;
                }
                Some(0)
            }
        };
        let Some(failed) = failed else {
            tries = 0;
            continue;
        };
        // What precedes the first failure is through; what follows it comes again.
        let again = batch.split_off(failed);
        tries += 1;
        if mapping.maximum_retry_attempts.is_some_and(|most| tries > most) {
            tracing::error!(table = %source.table.name, records = again.len(), "stream records are given up");
            tries = 0;
            continue;
        }
        waiting.push(again);
        let pause = Duration::from_millis(100 << tries.min(6));
        if stop
            .run_until_cancelled(tokio::time::sleep(pause))
            .await
            .is_none()
        {
            return;
        }
    }
}

/// The position of the earliest record that `batchItemFailures` names. An unknown name fails the whole batch,
/// as it does on Lambda.
fn first_failure(batch: &[Value], answer: &Value) -> Option<usize> {
    let failures = answer.get("batchItemFailures").and_then(Value::as_array)?;
    let position = |failure: &Value| {
        let number = failure.get("itemIdentifier").filter(|number| number.is_string());
        let named = |record: &Value| record.pointer("/dynamodb/SequenceNumber") == number;
        number.and_then(|_| batch.iter().position(named)).unwrap_or(0)
    };
    failures.iter().map(position).min()
}
