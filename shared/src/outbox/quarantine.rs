//! What was correctly signed and not understood is kept beside the outbox, where an operator finds it.

use std::collections::HashSet;
use std::io::{Read, Write};

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use bytes::Bytes;
use jiff::Timestamp;

use super::Outbox;
use super::entry::{KEEP_DEAD, SHARDS};
use super::reason::Reason;
use crate::digest::Digest;
use crate::personal::Personal;
use crate::store::table::find_all;
use crate::store::{Item, StoreError, milliseconds, number, string, text, time};
use crate::telemetry;

/// DynamoDB takes items of 400 KB.
const MAX_RAW_BYTES: usize = 350_000;

/// A body, or one item of a body, that was correctly signed and not understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantined {
    /// `messenger`, `fbe` or `whatsapp`.
    pub source: &'static str,
    /// Why it was not understood.
    pub reason: Reason,
    /// The bytes, so that they can be posted again: a whole body, or a body of its own for the one item.
    pub raw: Personal<Bytes>,
}

/// A body that is kept, without the body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// `messenger`, `fbe` or `whatsapp`.
    pub source: &'static str,
    /// Stable code.
    pub reason: String,
    /// By which [`Outbox::quarantined_body`] finds the body.
    pub key: String,
    /// When it came.
    pub at: Option<Timestamp>,
}

/// Where bodies come from.
const SOURCES: [&str; 3] = ["messenger", "fbe", "whatsapp"];

impl Outbox {
    /// What is kept, at most `limit` of each shard of each source.
    pub async fn quarantined(&self, limit: u16) -> Result<Vec<Kept>, StoreError> {
        let mut kept = Vec::new();
        for (source, shard) in partitions() {
            let query = self
                .table
                .query_of("subject", partition(source, shard))
                .projection_expression("event_key, reason, created_at")
                .limit(i32::from(limit));
            // A page ends after 1 MB, however little of it is projected.
            let mut pages = query.into_paginator().items().send();
            let mut items = Vec::new();
            while items.len() < usize::from(limit)
                && let Some(item) = pages
                    .try_next()
                    .await
                    .map_err(|error| StoreError::sdk("Query", &error))?
            {
                items.push(item);
            }
            // A large body has several items.
            kept.extend(items.iter().filter_map(|item| {
                let name = text(item, "event_key")?.strip_suffix("#0")?;
                Some(Kept {
                    source,
                    reason: text(item, "reason").unwrap_or_default().to_owned(),
                    key: format!("{shard}#{name}"),
                    at: time(item, "created_at"),
                })
            }));
        }
        Ok(kept)
    }

    /// A body that is kept, whole, by its [`Kept::key`]; `None` if it is not there any more, or not in all its parts.
    pub async fn quarantined_body(&self, source: &str, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let Some((Ok(shard), name)) = key.split_once('#').map(|(shard, name)| (shard.parse(), name)) else {
            return Ok(None);
        };
        let query = self
            .table
            .query()
            .key_condition_expression("subject = :subject AND begins_with(event_key, :name)")
            .expression_attribute_values(":subject", string(partition(source, shard)))
            .expression_attribute_values(":name", string(format!("{name}#")));
        Ok(unpacked(&find_all(query).await?))
    }

    /// Keeps bodies or items that were not understood, for 30 days. The key is made of the bytes, so keeping
    /// the same thing again changes nothing.
    pub async fn quarantine(&self, quarantined: &[Quarantined]) -> Result<(), StoreError> {
        if quarantined.is_empty() {
            return Ok(());
        }
        let now = self.table.now();
        let writes = quarantined
            .iter()
            .map(|one| items(one, now))
            .collect::<Result<Vec<_>, _>>()?;
        // A body may hold the same thing twice, and DynamoDB refuses a batch that does.
        let mut keys = HashSet::new();
        let writes = writes
            .into_iter()
            .flatten()
            .filter(|item| keys.insert(item.get("event_key").and_then(|key| key.as_s().ok()).cloned()));
        metrics::counter!(telemetry::QUARANTINED).increment(quarantined.len() as u64);
        for one in quarantined {
            tracing::warn!(
                reason = one.reason.as_str(),
                source = one.source,
                bytes = one.raw.len(),
                "a payload was quarantined"
            );
        }
        self.table.put_all(writes.collect()).await
    }
}

/// Each source with each of its shards.
pub(super) fn partitions() -> impl Iterator<Item = (&'static str, u16)> {
    SOURCES
        .into_iter()
        .flat_map(|source| (0..SHARDS).map(move |shard| (source, shard)))
}

/// A body of its parts, in any order; `None` if it cannot be unpacked.
pub(super) fn unpacked(parts: &[Item]) -> Option<Vec<u8>> {
    // The tenth part is not after the first.
    let number = |item: &&Item| text(item, "event_key")?.rsplit('#').next()?.parse::<u32>().ok();
    let mut parts: Vec<&Item> = parts.iter().collect();
    parts.sort_by_key(number);
    let packed: Vec<u8> = parts
        .iter()
        .filter_map(|item| item.get("raw_gzip")?.as_b().ok())
        .flat_map(|part| part.as_ref().to_vec())
        .collect();
    let mut body = Vec::new();
    let read = flate2::read::GzDecoder::new(packed.as_slice()).read_to_end(&mut body);
    read.ok().map(|_| body)
}

/// The bodies of a source are spread, so that a flood of them meets no partition's limit and costs nobody else.
pub(super) fn partition(source: &str, shard: u16) -> String {
    format!("quarantine#{source}#{shard}")
}

fn items(one: &Quarantined, now: Timestamp) -> Result<Vec<Item>, StoreError> {
    let digest = Digest::of(&*one.raw);
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    let packed = encoder.write_all(&one.raw).and_then(|()| encoder.finish());
    let packed = packed.map_err(|error| StoreError::new("quarantine", error))?;
    // Even a body of 4 MiB that does not shrink fits, in parts.
    let parts: Vec<&[u8]> = packed.chunks(MAX_RAW_BYTES).collect();
    let subject = partition(one.source, digest.shard(SHARDS));
    let item = |(index, part): (usize, &&[u8])| {
        Item::from([
            ("subject".to_owned(), string(subject.clone())),
            (
                "event_key".to_owned(),
                string(format!("{}#{digest}#{index}", one.reason.as_str())),
            ),
            ("status".to_owned(), string("quarantined")),
            ("reason".to_owned(), string(one.reason.as_str())),
            (
                "part".to_owned(),
                string(format!("{} of {}", index + 1, parts.len())),
            ),
            ("raw_gzip".to_owned(), AttributeValue::B(Blob::new(part.to_vec()))),
            ("created_at".to_owned(), milliseconds(now)),
            ("expires_at".to_owned(), number((now + KEEP_DEAD).as_second())),
        ])
    };
    Ok(parts.iter().enumerate().map(item).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_body_is_kept_in_parts() {
        // Digests compress to half of their hexadecimal digits.
        let raw: Vec<u8> = (0..35_000_u32)
            .flat_map(|n| Digest::of(n.to_le_bytes()).to_string().into_bytes())
            .collect();
        let one = Quarantined {
            source: "messenger",
            reason: Reason::NotJson,
            raw: bytes::Bytes::from(raw.clone()).into(),
        };
        let items = items(&one, Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(items.len(), 4);
        let packed: Vec<u8> = items
            .iter()
            .flat_map(|item| item["raw_gzip"].as_b().unwrap().as_ref().to_vec())
            .collect();
        let mut unpacked = Vec::new();
        std::io::Read::read_to_end(
            &mut flate2::read::GzDecoder::new(packed.as_slice()),
            &mut unpacked,
        )
        .unwrap();
        assert!(unpacked == raw);
    }
}
