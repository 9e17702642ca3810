//! Many users' objects through `/users/track` in as few requests as the limits allow.
//!
//! All of one user's objects travel in one request, for Braze keeps no order between requests. Each object has
//! its own fate: an answer that names objects is mapped back to them. A request that is refused as a whole is
//! halved until the object at fault stands alone, so one bad object costs its neighbours nothing.

use std::collections::HashMap;
use std::fmt;
use std::sync::Mutex;

use futures_util::stream::{self, StreamExt};
use serde_json::Value;
use tokio::time::Instant;

use super::gate::Gate;
use super::{Array, Braze, BrazeError, MAX_TRACK_OBJECTS, ObjectError, TrackBody};

/// Braze refuses 4 MB; half a megabyte is left for what JSON adds around the objects.
const MAX_BYTES: usize = 3_500_000;

/// Requests under way at once. Limits are counted per company and 3 s, so a few suffice.
const CONCURRENCY: usize = 8;

/// What an object's refusal is called.
pub(super) const REJECTED: &str = "braze_object_rejected";

/// What one user's objects are.
#[derive(Default, Clone)]
pub struct User {
    /// User attributes objects; more than one where a value moves from one profile to another.
    pub attributes: Vec<Value>,
    /// Custom event objects; processed after the attributes of the same request.
    pub events: Vec<Value>,
}

// The objects say who somebody is.
impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { attributes, events } = self;
        write!(
            f,
            "User({} attributes, {} events)",
            attributes.len(),
            events.len()
        )
    }
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

/// What became of a user's objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fate {
    /// Of the attributes objects together; the error is one that may pass, if any of them is.
    pub attributes: Result<(), BrazeError>,
    /// Of each custom event.
    pub events: Vec<Result<(), BrazeError>>,
}

impl Fate {
    fn taken(user: &User) -> Self {
        Self {
            attributes: Ok(()),
            events: vec![Ok(()); user.events.len()],
        }
    }

    /// Nothing of `user` was taken, for the same reason.
    #[must_use]
    pub fn failed(user: &User, error: &BrazeError) -> Self {
        Self {
            attributes: Err(error.clone()),
            events: vec![Err(error.clone()); user.events.len()],
        }
    }

    fn settle(&mut self, object: Object, error: &BrazeError) {
        match object.array {
            Array::Attributes => {
                if self.attributes.is_ok() || !is_final(error) {
                    self.attributes = Err(error.clone());
                }
            }
            Array::Events => {
                if let Some(event) = self.events.get_mut(object.index) {
                    *event = Err(error.clone());
                }
            }
        }
    }
}

/// Sends all users' objects. The result has one entry a user, in the same order.
///
/// A user with more than [`MAX_TRACK_OBJECTS`] objects is split; then the requests are sent one after the
/// other, and the rest is not sent if one of them may not have arrived. Once Braze throttles, is out of reach
/// or refuses the key, requests that have not started are not sent, and their objects get the same error.
/// After `last_start` it is [`BrazeError::OutOfTime`].
pub async fn send(braze: &Braze, users: &[User], last_start: Instant) -> Vec<Fate> {
    let run = Run {
        braze,
        users,
        gate: Gate::new(last_start),
        fates: Mutex::new(users.iter().map(Fate::taken).collect()),
    };
    stream::iter(batches(users))
        .for_each_concurrent(CONCURRENCY, |batch| run.batch(batch))
        .await;
    run.fates
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
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

/// Where an object stands among its user's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Object {
    user: usize,
    array: Array,
    index: usize,
}

struct Run<'a> {
    braze: &'a Braze,
    users: &'a [User],
    gate: Gate,
    fates: Mutex<Vec<Fate>>,
}

impl Run<'_> {
    /// The requests of some users, one after the other.
    async fn batch(&self, batch: Vec<usize>) {
        let mut open = parts(self.users, &batch);
        open.reverse();
        // Of these users something may not have arrived. What comes after it would overtake it.
        let mut behind: HashMap<usize, BrazeError> = HashMap::new();
        while let Some(mut request) = open.pop() {
            request.retain(|object| match behind.get(&object.user) {
                Some(error) => {
                    self.settle(&[*object], error);
                    false
                }
                None => true,
            });
            if request.is_empty() {
                continue;
            }
            let sent = match self.gate.check() {
                Ok(()) => self.attempt(&request).await,
                Err(error) => Err(error),
            };
            match sent {
                Ok(instead) => open.extend(instead.into_iter().rev()),
                Err(error) => {
                    self.gate.failed(&error);
                    self.settle(&request, &error);
                    behind.extend(request.iter().map(|object| (object.user, error.clone())));
                }
            }
        }
    }

    /// One request. Gives what is to be sent in its place, in order, or why it may not have arrived.
    async fn attempt(&self, request: &[Object]) -> Result<Vec<Vec<Object>>, BrazeError> {
        match self.braze.track(&self.body(request)).await {
            Ok(taken) => {
                let rest = self.reject(request, &taken.errors);
                if taken
                    .errors
                    .iter()
                    .all(|error| position(request, error).is_some())
                {
                    return Ok(Vec::new());
                }
                tracing::error!("Braze did not take an object of a request and does not say which");
                Ok(self.unnamed(request, rest, &rejected(&taken.errors)))
            }
            // Nothing of the request was taken: leave those out that Braze named, try the rest.
            Err(BrazeError::Rejected { errors, .. })
                if errors.iter().any(|error| position(request, error).is_some()) =>
            {
                Ok(vec![self.reject(request, &errors)])
            }
            Err(error @ (BrazeError::Rejected { .. } | BrazeError::TooLarge)) => {
                Ok(self.smaller(request, request, &error))
            }
            Err(error) => Err(error),
        }
    }

    /// Of a request that was taken but for objects that Braze does not name. Attributes can be written again, to
    /// find those at fault; an event would count twice, so these are given up for somebody to look at.
    fn unnamed(&self, request: &[Object], rest: Vec<Object>, error: &BrazeError) -> Vec<Vec<Object>> {
        let (attributes, events): (Vec<Object>, Vec<Object>) = rest
            .into_iter()
            .partition(|object| object.array == Array::Attributes);
        self.settle(&events, error);
        self.smaller(request, &attributes, error)
    }

    /// What of a refused request is sent again, in smaller ones. An object that stood alone is at fault itself.
    fn smaller(&self, request: &[Object], rest: &[Object], error: &BrazeError) -> Vec<Vec<Object>> {
        if request.len() == 1 {
            self.settle(rest, error);
            return Vec::new();
        }
        let (left, right) = rest.split_at(middle(rest));
        vec![left.to_vec(), right.to_vec()]
    }

    /// Settles the objects that Braze named, and gives the others.
    fn reject(&self, request: &[Object], errors: &[ObjectError]) -> Vec<Object> {
        let mut rest = request.to_vec();
        for error in errors {
            if let Some(object) = position(request, error) {
                self.settle(&[object], &rejected(std::slice::from_ref(error)));
                rest.retain(|other| *other != object);
            }
        }
        rest
    }

    fn settle(&self, objects: &[Object], error: &BrazeError) {
        let mut fates = self
            .fates
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        for object in objects {
            if let Some(fate) = fates.get_mut(object.user) {
                fate.settle(*object, error);
            }
        }
    }

    fn body(&self, request: &[Object]) -> TrackBody {
        let mut body = TrackBody::default();
        for object in request {
            let Some(user) = self.users.get(object.user) else {
                continue;
            };
            let (from, to) = match object.array {
                Array::Attributes => (&user.attributes, &mut body.attributes),
                Array::Events => (&user.events, &mut body.events),
            };
            to.extend(from.get(object.index).cloned());
        }
        body
    }
}

/// The object that Braze means. Of a request with one object it is that one, whatever it says.
fn position(request: &[Object], error: &ObjectError) -> Option<Object> {
    if let [object] = request {
        return Some(*object);
    }
    let (array, index) = (error.array?, error.index?);
    let mut of_array = request.iter().filter(|object| object.array == array);
    of_array.nth(index).copied()
}

/// Where a request is cut in two: between users as near to the middle as can be; a single one's attributes go
/// before its events.
fn middle(objects: &[Object]) -> usize {
    let half = objects.len() / 2;
    let borders = |differ: fn(&Object, &Object) -> bool| {
        objects
            .windows(2)
            .enumerate()
            .filter(move |(_, pair)| matches!(pair, [before, after] if differ(before, after)))
            .map(|(before, _)| before + 1)
            .min_by_key(|border| border.abs_diff(half))
    };
    borders(|before, after| before.user != after.user)
        .or_else(|| borders(|before, after| before.array != after.array))
        .unwrap_or(half)
}

fn is_final(error: &BrazeError) -> bool {
    matches!(error, BrazeError::Rejected { .. } | BrazeError::TooLarge)
}

fn rejected(errors: &[ObjectError]) -> BrazeError {
    BrazeError::Rejected {
        reason: errors
            .first()
            .map_or_else(|| REJECTED.to_owned(), |error| error.reason(REJECTED)),
        errors: errors.to_vec(),
    }
}

/// The requests of a batch: one, unless a single user has more objects than one request may hold.
fn parts(users: &[User], batch: &[usize]) -> Vec<Vec<Object>> {
    let objects: Vec<Object> = batch
        .iter()
        .filter_map(|position| Some((*position, users.get(*position)?)))
        .flat_map(|(user, objects)| {
            let of = |array, number: usize| (0..number).map(move |index| Object { user, array, index });
            of(Array::Attributes, objects.attributes.len()).chain(of(Array::Events, objects.events.len()))
        })
        .collect();
    objects.chunks(MAX_TRACK_OBJECTS).map(<[_]>::to_vec).collect()
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
        assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), [75, 26]);
        assert_eq!(parts[0][0].array, Array::Attributes);
        let events: Vec<usize> = parts.concat()[1..].iter().map(|object| object.index).collect();
        assert_eq!(events, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn a_request_is_cut_between_users_and_then_between_attributes_and_events() {
        let one = |users: &[User]| {
            let all: Vec<usize> = (0..users.len()).collect();
            parts(users, &all).concat()
        };
        assert_eq!(middle(&one(&[user(1, 4), user(1, 0), user(1, 3)])), 5);
        assert_eq!(middle(&one(&[user(1, 10)])), 1);
        assert_eq!(middle(&one(&[user(0, 10)])), 5);
        assert_eq!(middle(&one(&[user(2, 0)])), 1);
        assert_eq!(middle(&one(&[user(1, 0)])), 0);
    }

    #[test]
    fn an_error_finds_its_object_among_those_of_its_array() {
        let users = [user(1, 2), user(2, 1)];
        let request = parts(&users, &[0, 1]).concat();
        let found = |array, index| {
            let error = ObjectError {
                array,
                index,
                code: None,
            };
            position(&request, &error).map(|object| (object.user, object.index))
        };
        assert_eq!(found(Some(Array::Attributes), Some(2)), Some((1, 1)));
        assert_eq!(found(Some(Array::Events), Some(2)), Some((1, 0)));
        assert_eq!(found(Some(Array::Events), Some(3)), None);
        assert_eq!(found(Some(Array::Events), None), None);
        assert_eq!(found(None, Some(0)), None);
    }

    #[test]
    fn nothing_shows_who_somebody_is() {
        let user = User {
            attributes: vec![json!({"external_id": "user-7"})],
            events: vec![],
        };
        assert_eq!(format!("{user:?}"), "User(1 attributes, 0 events)");
    }

    #[test]
    fn users_without_objects_cost_nothing() {
        assert!(batches(&[User::default(), User::default()]).is_empty());
    }
}
