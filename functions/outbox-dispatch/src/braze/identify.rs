//! Many aliases through `/users/identify`, each with its own fate.
//!
//! A repetition changes nothing at Braze, so whatever is refused without a name is halved until the alias at
//! fault stands alone.

use std::sync::Mutex;

use futures_util::stream::{self, StreamExt};
use shared::messenger::sync::Identify;
use tokio::time::Instant;

use super::gate::Gate;
use super::{Braze, BrazeError, MAX_IDENTIFY, ObjectError, Taken};

/// Requests under way at once; the limit is shared with other endpoints.
const CONCURRENCY: usize = 4;

/// What an alias's refusal is called.
const REJECTED: &str = "braze_identify_rejected";

/// Makes alias-only profiles known users. The result has one entry an alias, in the same order.
///
/// Once Braze throttles, is out of reach or refuses the key, requests that have not started are not sent, and
/// their aliases get the same error. After `last_start` it is [`BrazeError::OutOfTime`].
pub async fn send(braze: &Braze, aliases: &[Identify], last_start: Instant) -> Vec<Result<(), BrazeError>> {
    let run = Run {
        braze,
        aliases,
        gate: Gate::new(last_start),
        fates: Mutex::new(vec![Ok(()); aliases.len()]),
    };
    let positions: Vec<usize> = (0..aliases.len()).collect();
    stream::iter(positions.chunks(MAX_IDENTIFY).map(<[_]>::to_vec))
        .for_each_concurrent(CONCURRENCY, |chunk| run.chunk(chunk))
        .await;
    run.fates
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

struct Run<'a> {
    braze: &'a Braze,
    aliases: &'a [Identify],
    gate: Gate,
    fates: Mutex<Vec<Result<(), BrazeError>>>,
}

impl Run<'_> {
    async fn chunk(&self, chunk: Vec<usize>) {
        let mut open = vec![chunk];
        while let Some(chunk) = open.pop() {
            if chunk.is_empty() {
                continue;
            }
            match self.gate.check() {
                Ok(()) => open.extend(self.attempt(chunk).await),
                Err(error) => self.settle(&chunk, &error),
            }
        }
    }

    /// One request. Gives what is to be sent in its place.
    async fn attempt(&self, chunk: Vec<usize>) -> Vec<Vec<usize>> {
        let aliases: Vec<Identify> = chunk
            .iter()
            .filter_map(|position| self.aliases.get(*position).cloned())
            .collect();
        match self.braze.identify(&aliases).await {
            Ok(Taken { errors, .. }) if errors.is_empty() => Vec::new(),
            Ok(Taken { errors, .. }) => {
                let rest = self.reject(&chunk, &errors);
                // Who was not taken is unknown; the others may go again.
                if errors.iter().any(|error| position(&chunk, error).is_none()) {
                    self.smaller(&chunk, &rest, &rejected(&errors))
                } else {
                    Vec::new()
                }
            }
            Err(BrazeError::Rejected { errors, .. })
                if errors.iter().any(|error| position(&chunk, error).is_some()) =>
            {
                // The others were not taken either.
                vec![self.reject(&chunk, &errors)]
            }
            Err(error @ (BrazeError::Rejected { .. } | BrazeError::TooLarge)) => {
                self.smaller(&chunk, &chunk, &error)
            }
            Err(error) => {
                self.gate.failed(&error);
                self.settle(&chunk, &error);
                Vec::new()
            }
        }
    }

    /// Settles those that Braze named, and gives the others.
    fn reject(&self, chunk: &[usize], errors: &[ObjectError]) -> Vec<usize> {
        let mut rest = chunk.to_vec();
        for error in errors {
            if let Some(at) = position(chunk, error) {
                self.settle(&[at], &rejected(std::slice::from_ref(error)));
                rest.retain(|other| *other != at);
            }
        }
        rest
    }

    /// What of a refused chunk is sent again, in smaller requests. One that stood alone is at fault itself.
    fn smaller(&self, chunk: &[usize], rest: &[usize], error: &BrazeError) -> Vec<Vec<usize>> {
        if chunk.len() == 1 {
            self.settle(chunk, error);
            return Vec::new();
        }
        let (left, right) = rest.split_at(rest.len() / 2);
        vec![right.to_vec(), left.to_vec()]
    }

    fn settle(&self, positions: &[usize], error: &BrazeError) {
        let mut fates = self
            .fates
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        for position in positions {
            if let Some(fate) = fates.get_mut(*position) {
                *fate = Err(error.clone());
            }
        }
    }
}

fn position(chunk: &[usize], error: &ObjectError) -> Option<usize> {
    chunk.get(error.index?).copied()
}

fn rejected(errors: &[ObjectError]) -> BrazeError {
    BrazeError::Rejected {
        reason: errors
            .first()
            .map_or_else(|| REJECTED.to_owned(), |error| error.reason(REJECTED)),
        errors: errors.to_vec(),
    }
}
