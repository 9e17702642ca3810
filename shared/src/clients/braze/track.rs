//! Many users' objects through `/users/track` in as few requests as the limits allow.
//!
//! All of one user's objects travel in one request, for Braze keeps no order between requests. An answer that
//! names objects is mapped back to their users. A batch that is refused as a whole is halved until the user at
//! fault stands alone, so one bad object costs its neighbours nothing.

use std::sync::Mutex;

use futures_util::stream::{self, StreamExt};
use serde_json::Value;
use tokio::time::Instant;

use super::{Braze, BrazeError, MAX_TRACK_OBJECTS, ObjectError, Taken, TrackBody};

/// Braze refuses 4 MB; half a megabyte is left for what JSON adds around the objects.
const MAX_BYTES: usize = 3_500_000;

/// Requests under way at once. Limits are counted per company and 3 s, so a few suffice.
const CONCURRENCY: usize = 8;

/// What one user's objects are.
#[derive(Debug, Default, Clone)]
pub struct User {
    /// User attributes objects; more than one where a value moves from one profile to another.
    pub attributes: Vec<Value>,
    /// Custom event objects; processed after the attributes of the same request.
    pub events: Vec<Value>,
}

impl User {
    fn objects(&self) -> usize {
        self.attributes.len() + self.events.len()
    }

    fn bytes(&self) -> usize {
        self.attributes
            .iter()
            .chain(&self.events)
            .map(|object| object.to_string().len() + 1)
            .sum()
    }
}

/// Sends all users' objects. The result has one entry a user, in the same order.
///
/// A user with more than [`MAX_TRACK_OBJECTS`] objects is split; then the requests are sent one after the
/// other. Once Braze throttles, is out of reach or refuses the key, requests that have not started are not
/// sent, and their users get the same error; likewise after `last_start`.
pub async fn send(braze: &Braze, users: &[User], last_start: Instant) -> Vec<Result<(), BrazeError>> {
    let fates: Vec<Mutex<Result<(), BrazeError>>> = users.iter().map(|_| Mutex::new(Ok(()))).collect();
    let stop: Mutex<Option<BrazeError>> = Mutex::new(None);
    stream::iter(batches(users))
        .for_each_concurrent(CONCURRENCY, |batch| {
            send_batch(braze, users, batch, &fates, &stop, last_start)
        })
        .await;
    fates
        .into_iter()
        .map(|fate| {
            fate.into_inner()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
        })
        .collect()
}

/// Positions of users that share a request.
fn batches(users: &[User]) -> Vec<Vec<usize>> {
    let mut batches = Vec::new();
    let (mut batch, mut objects, mut bytes) = (Vec::new(), 0, 0);
    for (position, user) in users.iter().enumerate() {
        if user.objects() == 0 {
            continue;
        }
        let (more_objects, more_bytes) = (user.objects(), user.bytes());
        let full = objects + more_objects > MAX_TRACK_OBJECTS || bytes + more_bytes > MAX_BYTES;
        if full && !batch.is_empty() {
            batches.push(std::mem::take(&mut batch));
            (objects, bytes) = (0, 0);
        }
        batch.push(position);
        objects += more_objects;
        bytes += more_bytes;
    }
    if !batch.is_empty() {
        batches.push(batch);
    }
    batches
}

async fn send_batch(
    braze: &Braze,
    users: &[User],
    batch: Vec<usize>,
    fates: &[Mutex<Result<(), BrazeError>>],
    stop: &Mutex<Option<BrazeError>>,
    last_start: Instant,
) {
    let settle = |positions: &[usize], error: &BrazeError| {
        for position in positions {
            if let Some(fate) = fates.get(*position) {
                *lock(fate) = Err(error.clone());
            }
        }
    };
    let mut open = vec![batch];
    while let Some(batch) = open.pop() {
        let late = || BrazeError::Transient {
            reason: "out_of_time".to_owned(),
            wait: None,
        };
        let stopped = lock(stop)
            .clone()
            .or_else(|| (Instant::now() > last_start).then(late));
        if let Some(error) = stopped {
            settle(&batch, &error);
            continue;
        }
        let parts = parts(users, &batch);
        let mut error = None;
        let mut objects_at_fault = Vec::new();
        for (body, owners) in &parts {
            match braze.track(body).await {
                Ok(Taken { errors, .. }) => {
                    objects_at_fault.extend(
                        errors
                            .iter()
                            .filter_map(|error| owners.of(error).map(|owner| (owner, error.clone()))),
                    );
                }
                Err(refused) => {
                    error = Some((refused, owners.clone()));
                    break;
                }
            }
        }
        for (owner, error) in objects_at_fault {
            settle(&[owner], &rejected(error));
        }
        match error {
            None => {}
            Some((BrazeError::Rejected { errors, .. }, owners)) if !errors.is_empty() => {
                // Every object was named, so nothing of the request was taken: leave those out, try the rest.
                let mut at_fault = Vec::new();
                for error in errors {
                    if let Some(owner) = owners.of(&error) {
                        settle(&[owner], &rejected(error));
                        at_fault.push(owner);
                    }
                }
                let rest: Vec<usize> = batch
                    .iter()
                    .copied()
                    .filter(|owner| !at_fault.contains(owner))
                    .collect();
                if !rest.is_empty() && rest.len() < batch.len() {
                    open.push(rest);
                }
            }
            Some((error @ (BrazeError::Rejected { .. } | BrazeError::TooLarge), _)) => {
                if batch.len() > 1 {
                    let (left, right) = batch.split_at(batch.len() / 2);
                    open.push(right.to_vec());
                    open.push(left.to_vec());
                } else {
                    settle(&batch, &error);
                }
            }
            Some((error, _)) => {
                if error.is_outage() {
                    *lock(stop) = Some(error.clone());
                }
                settle(&batch, &error);
            }
        }
    }
}

fn rejected(error: ObjectError) -> BrazeError {
    BrazeError::Rejected {
        reason: "braze_object_rejected".to_owned(),
        errors: vec![error],
    }
}

/// Whose the objects of a request are.
#[derive(Clone, Default)]
struct Owners {
    attributes: Vec<usize>,
    events: Vec<usize>,
}

impl Owners {
    fn of(&self, error: &ObjectError) -> Option<usize> {
        match error.input_array.as_str() {
            "attributes" => self.attributes.get(error.index).copied(),
            "events" => self.events.get(error.index).copied(),
            _ => None,
        }
    }
}

/// The requests of a batch: one, unless a single user has more objects than one request may hold.
fn parts(users: &[User], batch: &[usize]) -> Vec<(TrackBody, Owners)> {
    let mut parts = vec![(TrackBody::default(), Owners::default())];
    let mut objects = 0;
    for (position, user) in batch
        .iter()
        .filter_map(|position| users.get(*position).map(|user| (*position, user)))
    {
        let all = user
            .attributes
            .iter()
            .map(|object| (true, object))
            .chain(user.events.iter().map(|object| (false, object)));
        for (attribute, object) in all {
            if objects == MAX_TRACK_OBJECTS {
                parts.push((TrackBody::default(), Owners::default()));
                objects = 0;
            }
            objects += 1;
            if let Some((body, owners)) = parts.last_mut() {
                if attribute {
                    body.attributes.push(object.clone());
                    owners.attributes.push(position);
                } else {
                    body.events.push(object.clone());
                    owners.events.push(position);
                }
            }
        }
    }
    parts
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn user(attributes: usize, events: usize) -> User {
        User {
            attributes: vec![json!({"a": 1}); attributes],
            events: vec![json!({"e": 1}); events],
        }
    }

    #[test]
    fn batches_are_full_and_never_split_a_user() {
        let users: Vec<User> = (0..10_000).map(|_| user(1, 0)).collect();
        assert_eq!(batches(&users).len(), 134);
        let pairs: Vec<User> = (0..76).map(|_| user(1, 1)).collect();
        assert!(batches(&pairs).iter().all(|batch| batch.len() <= 37));
        assert_eq!(batches(&pairs).concat(), (0..76).collect::<Vec<_>>());
    }

    #[test]
    fn a_batch_stays_below_the_byte_limit() {
        let large = User {
            attributes: vec![json!({"a": "x".repeat(1_000_000)})],
            events: vec![],
        };
        assert_eq!(
            batches(&vec![large; 7]).iter().map(Vec::len).collect::<Vec<_>>(),
            [3, 3, 1]
        );
    }

    #[test]
    fn a_user_with_too_many_objects_is_split_in_order() {
        let parts = parts(&[user(1, 100)], &[0]);
        let sizes: Vec<_> = parts
            .iter()
            .map(|(body, _)| (body.attributes.len(), body.events.len()))
            .collect();
        assert_eq!(sizes, [(1, 74), (0, 26)]);
    }

    #[test]
    fn users_without_objects_cost_nothing() {
        assert!(batches(&[User::default(), User::default()]).is_empty());
    }
}
