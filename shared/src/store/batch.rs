//! Reading and writing many items in one call, until DynamoDB has taken all of them.

use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{KeysAndAttributes, PutRequest, WriteRequest};

use super::{Item, StoreError};

/// Items that DynamoDB takes in one `BatchGetItem`.
pub(crate) const MAX_BATCH_GET: usize = 100;
/// Items that DynamoDB takes in one `BatchWriteItem`.
pub(crate) const MAX_BATCH_WRITE: usize = 25;

/// Reads up to [`MAX_BATCH_GET`] items consistently, asking again for what DynamoDB left out.
pub(crate) async fn batch_get(
    client: &Client,
    table: &str,
    mut keys: Vec<Item>,
) -> Result<Vec<Item>, StoreError> {
    let mut found = Vec::with_capacity(keys.len());
    let mut pause = Duration::from_millis(20);
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
        pause = between(pause, keys.is_empty()).await;
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
    let mut pause = Duration::from_millis(20);
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
        pause = between(pause, writes.is_empty()).await;
    }
    Ok(())
}

// DynamoDB leaves items out when it is throttled; asking again at once makes that worse.
async fn between(pause: Duration, finished: bool) -> Duration {
    if finished {
        return pause;
    }
    tokio::time::sleep(pause).await;
    (pause * 2).min(Duration::from_secs(1))
}
