//! Reading and writing many items in few calls, until DynamoDB has taken all of them.

use std::time::Duration;

use aws_sdk_dynamodb::config::timeout::TimeoutConfig;
use aws_sdk_dynamodb::error::BuildError;
use aws_sdk_dynamodb::types::{DeleteRequest, KeysAndAttributes, PutRequest, WriteRequest};
use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::rounds::Rounds;
use super::table::Table;
use super::{Item, StoreError};

/// Items that DynamoDB takes in one `BatchGetItem`.
const MAX_BATCH_GET: usize = 100;
/// Items that DynamoDB takes in one `BatchWriteItem`.
const MAX_BATCH_WRITE: usize = 25;

/// Calls under way at once; each carries many items.
const CONCURRENCY: usize = 16;

/// How long to go on if the client does not say.
const PATIENCE: Duration = Duration::from_secs(30);

/// DynamoDB leaves items out when it is throttled.
const LEFT_OUT: &str = "items are left out again and again";

impl Table {
    /// Reads the items with these keys consistently, in no order.
    pub(crate) async fn get_all(&self, keys: &[Item]) -> Result<Vec<Item>, StoreError> {
        let found: Vec<Vec<Item>> = stream::iter(keys.chunks(MAX_BATCH_GET).map(<[Item]>::to_vec))
            .map(|keys| self.batch_get(keys))
            .buffer_unordered(CONCURRENCY)
            .try_collect()
            .await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// Puts items with different keys, whatever was there.
    pub(crate) async fn put_all(&self, items: Vec<Item>) -> Result<(), StoreError> {
        let put = |item| PutRequest::builder().set_item(Some(item)).build();
        let write = |put| WriteRequest::builder().put_request(put).build();
        self.write_all(items.into_iter().map(|item| put(item).map(write)))
            .await
    }

    /// Deletes the items with these different keys. It is fine if they are not there.
    pub(crate) async fn delete_all(&self, keys: Vec<Item>) -> Result<(), StoreError> {
        let delete = |key| DeleteRequest::builder().set_key(Some(key)).build();
        let write = |delete| WriteRequest::builder().delete_request(delete).build();
        self.write_all(keys.into_iter().map(|key| delete(key).map(write)))
            .await
    }

    async fn write_all(
        &self,
        writes: impl Iterator<Item = Result<WriteRequest, BuildError>>,
    ) -> Result<(), StoreError> {
        let writes: Result<Vec<_>, _> = writes.collect();
        let writes = writes.map_err(|error| StoreError::new("BatchWriteItem", error))?;
        stream::iter(writes.chunks(MAX_BATCH_WRITE).map(<[WriteRequest]>::to_vec))
            .map(|writes| self.batch_write(writes))
            .buffer_unordered(CONCURRENCY)
            .try_collect()
            .await
    }

    async fn batch_get(&self, mut keys: Vec<Item>) -> Result<Vec<Item>, StoreError> {
        let mut found = Vec::with_capacity(keys.len());
        let mut rounds = Rounds::within(self.patience(), LEFT_OUT);
        loop {
            let request = KeysAndAttributes::builder()
                .set_keys(Some(keys))
                .consistent_read(true)
                .build()
                .map_err(|error| StoreError::new("BatchGetItem", error))?;
            let answer = self.client.batch_get_item().request_items(&self.name, request);
            let answer = answer.send().await;
            let answer = answer.map_err(|error| StoreError::sdk("BatchGetItem", &error))?;
            let mut responses = answer.responses.unwrap_or_default();
            found.extend(responses.remove(&self.name).unwrap_or_default());
            let mut left = answer.unprocessed_keys.unwrap_or_default();
            keys = left.remove(&self.name).map(|left| left.keys).unwrap_or_default();
            if keys.is_empty() {
                return Ok(found);
            }
            rounds.next().await?;
        }
    }

    async fn batch_write(&self, mut writes: Vec<WriteRequest>) -> Result<(), StoreError> {
        let mut rounds = Rounds::within(self.patience(), LEFT_OUT);
        loop {
            let answer = self.client.batch_write_item().request_items(&self.name, writes);
            let answer = answer.send().await;
            let answer = answer.map_err(|error| StoreError::sdk("BatchWriteItem", &error))?;
            let mut left = answer.unprocessed_items.unwrap_or_default();
            writes = left.remove(&self.name).unwrap_or_default();
            if writes.is_empty() {
                return Ok(());
            }
            rounds.next().await?;
        }
    }

    /// Asking on beyond what a call may take keeps a sender waiting who would rather try again.
    fn patience(&self) -> Duration {
        let timeouts = self.client.config().timeout_config();
        timeouts
            .and_then(TimeoutConfig::operation_timeout)
            .unwrap_or(PATIENCE)
    }
}
