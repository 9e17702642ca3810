//! Reading and writing many items in one call, until DynamoDB has taken all of them.

use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::timeout::TimeoutConfig;
use aws_sdk_dynamodb::types::{KeysAndAttributes, PutRequest, WriteRequest};
use tokio::time::Instant;

use super::{Item, StoreError};

/// Items that DynamoDB takes in one `BatchGetItem`.
pub(crate) const MAX_BATCH_GET: usize = 100;
/// Items that DynamoDB takes in one `BatchWriteItem`.
pub(crate) const MAX_BATCH_WRITE: usize = 25;

/// How long to go on if the client does not say.
const PATIENCE: Duration = Duration::from_secs(30);

/// Reads up to [`MAX_BATCH_GET`] items consistently, asking again for what DynamoDB left out.
pub(crate) async fn batch_get(
    client: &Client,
    table: &str,
    mut keys: Vec<Item>,
) -> Result<Vec<Item>, StoreError> {
    let mut found = Vec::with_capacity(keys.len());
    let mut pauses = Pauses::new("BatchGetItem", client);
    while !keys.is_empty() {
        let request = KeysAndAttributes::builder()
            .set_keys(Some(keys))
            .consistent_read(true)
            .build()
            .map_err(|error| StoreError::new("BatchGetItem", error))?;
        let answer = client
            .batch_get_item()
            .request_items(table, request)
            .send()
            .await
            .map_err(|error| StoreError::sdk("BatchGetItem", &error))?;
        found.extend(
            answer
                .responses
                .into_iter()
                .filter_map(|mut tables| tables.remove(table))
                .flatten(),
        );
        keys = answer
            .unprocessed_keys
            .and_then(|mut tables| tables.remove(table))
            .map(|left| left.keys)
            .unwrap_or_default();
        if !keys.is_empty() {
            pauses.next().await?;
        }
    }
    Ok(found)
}

/// Puts up to [`MAX_BATCH_WRITE`] items with different keys, again until all are taken.
pub(crate) async fn batch_put(client: &Client, table: &str, items: Vec<Item>) -> Result<(), StoreError> {
    let mut writes = items
        .into_iter()
        .map(|item| {
            let put = PutRequest::builder().set_item(Some(item)).build();
            put.map(|put| WriteRequest::builder().put_request(put).build())
        })
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| StoreError::new("BatchWriteItem", error))?;
    let mut pauses = Pauses::new("BatchWriteItem", client);
    while !writes.is_empty() {
        let answer = client
            .batch_write_item()
            .request_items(table, writes)
            .send()
            .await
            .map_err(|error| StoreError::sdk("BatchWriteItem", &error))?;
        writes = answer
            .unprocessed_items
            .and_then(|mut tables| tables.remove(table))
            .unwrap_or_default();
        if !writes.is_empty() {
            pauses.next().await?;
        }
    }
    Ok(())
}

/// What lies between the calls. DynamoDB leaves items out when it is throttled; asking again at once makes that
/// worse, and asking on beyond what a call may take keeps a sender waiting who would rather try again.
struct Pauses {
    operation: &'static str,
    next: Duration,
    until: Instant,
}

impl Pauses {
    fn new(operation: &'static str, client: &Client) -> Self {
        let timeouts = client.config().timeout_config();
        let patience = timeouts.and_then(TimeoutConfig::operation_timeout);
        Self {
            operation,
            next: Duration::from_millis(20),
            until: Instant::now() + patience.unwrap_or(PATIENCE),
        }
    }

    async fn next(&mut self) -> Result<(), StoreError> {
        if Instant::now() + self.next > self.until {
            return Err(StoreError::new(
                self.operation,
                "items are left out again and again",
            ));
        }
        tokio::time::sleep(self.next).await;
        self.next = (self.next * 2).min(Duration::from_secs(1));
        Ok(())
    }
}
