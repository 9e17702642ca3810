//! Profiles deleted, in as few requests as Braze's limits allow. It cannot be undone, and a repetition changes nothing.

use futures_util::stream::{self, StreamExt};
use serde::Serialize;
use serde_json::{Value, json};
use shared::messenger::sync::UserAlias;
use shared::personal::Personal;
use tokio::time::Instant;

use super::gate::Gate;
use super::{Braze, BrazeError};

/// At most this many in `/users/delete`, all of one kind.
pub const MAX_DELETE: usize = 50;

/// Requests under way at once: the limit is shared with identify.
const CONCURRENCY: usize = 4;

/// A profile that is to be deleted, as something names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Deletion {
    /// By external id.
    ExternalId(Personal<String>),
    /// By an alias, whoever has it.
    Alias(UserAlias),
    /// By Braze's own id.
    BrazeId(Personal<String>),
}

impl Deletion {
    fn kind(&self) -> &'static str {
        match self {
            Self::ExternalId(_) => "external_ids",
            Self::Alias(_) => "user_aliases",
            Self::BrazeId(_) => "braze_ids",
        }
    }
}

/// Deletes profiles; the result has one entry each, in the same order. After `last_start` no request begins.
pub async fn profiles(
    braze: &Braze,
    deletions: &[Deletion],
    last_start: Instant,
) -> Vec<Result<(), BrazeError>> {
    let gate = &Gate::new(last_start);
    let mut batches: Vec<Vec<usize>> = Vec::new();
    for kind in ["external_ids", "user_aliases", "braze_ids"] {
        let of_kind = deletions.iter().enumerate().filter(|(_, one)| one.kind() == kind);
        let of_kind: Vec<usize> = of_kind.map(|(position, _)| position).collect();
        batches.extend(of_kind.chunks(MAX_DELETE).map(<[usize]>::to_vec));
    }
    let mut answered = stream::iter(batches)
        .map(|batch| batch_of(braze, deletions, batch, gate))
        .buffer_unordered(CONCURRENCY);
    let mut results = vec![Ok(()); deletions.len()];
    while let Some(answers) = answered.next().await {
        for (position, answer) in answers {
            if let Some(result) = results.get_mut(position) {
                *result = answer;
            }
        }
    }
    results
}

/// One request; one for each profile if Braze refuses the content and does not say whose.
async fn batch_of(
    braze: &Braze,
    deletions: &[Deletion],
    batch: Vec<usize>,
    gate: &Gate,
) -> Vec<(usize, Result<(), BrazeError>)> {
    let answer = request(braze, deletions, &batch, gate).await;
    let is_content = matches!(answer, Err(BrazeError::Rejected { .. } | BrazeError::TooLarge));
    if !is_content || batch.len() == 1 {
        return batch
            .into_iter()
            .map(|position| (position, answer.clone()))
            .collect();
    }
    let mut answers = Vec::with_capacity(batch.len());
    for position in batch {
        answers.push((position, request(braze, deletions, &[position], gate).await));
    }
    answers
}

async fn request(
    braze: &Braze,
    deletions: &[Deletion],
    batch: &[usize],
    gate: &Gate,
) -> Result<(), BrazeError> {
    gate.check()?;
    let profiles: Vec<&Deletion> = batch
        .iter()
        .filter_map(|position| deletions.get(*position))
        .collect();
    let Some(kind) = profiles.first().map(|first| first.kind()) else {
        return Ok(());
    };
    let body: Value = json!({ kind: profiles });
    let answer = braze.post("/users/delete", |secret| &secret.api_key, &body);
    answer.await.map(drop).inspect_err(|error| gate.failed(error))
}
