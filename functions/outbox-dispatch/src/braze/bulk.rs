//! Many users' objects in as few requests as an endpoint's limits allow, with a result for each object.
//!
//! An answer that names objects is mapped back to them. A request that is refused as a whole is bisected until the bad
//! object is isolated, so that the others are taken; unless the refusal is about the caller, see
//! [`refusals`](super::refusals).
//!
//! Once Braze throttles, is out of reach, refuses the key or refuses everything, requests that have not started are not
//! sent, and their objects get the same error. After `last_start` it is [`BrazeError::OutOfTime`].

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use futures_util::stream::{self, StreamExt};
use serde_json::Value;
use shared::messenger::sync::Identify;
use tokio::time::Instant;

use super::gate::Gate;
use super::objects::{Fate, Objects, bytes};
use super::refusals::{Permit, Refusals};
use super::{Array, Braze, BrazeError, Endpoint, ObjectError};

/// Braze refuses 4 MB; half a megabyte is left for what JSON adds around the objects.
const MAX_BYTES: usize = 3_500_000;

/// A request of so many bytes is too large for nobody. What calls it so refuses everything.
const NEVER_TOO_LARGE: usize = 64 * 1024;

/// Sends all users' objects through `/users/track`. The result has one entry a user, in the same order.
///
/// All of one user's objects travel in one request. A user with more than
/// [`MAX_TRACK_OBJECTS`](super::MAX_TRACK_OBJECTS) is split; then the requests are sent one after the other, and the
/// rest is not sent if one of them may not have arrived.
pub async fn track(braze: &Braze, users: &[Objects], last_start: Instant) -> Vec<Fate> {
    send(braze, Endpoint::Track, users, last_start).await
}

/// Makes alias-only profiles known users, through `/users/identify`. The result has one entry an alias, in the same
/// order. A repetition changes nothing at Braze.
pub async fn identify(
    braze: &Braze,
    aliases: &[Identify],
    last_start: Instant,
) -> Vec<Result<(), BrazeError>> {
    let objects = aliases
        .iter()
        .map(|alias| Objects::of_attributes(vec![serde_json::json!(alias)]));
    let objects: Vec<Objects> = objects.collect();
    let fates = send(braze, Endpoint::Identify, &objects, last_start).await;
    fates.into_iter().map(|fate| fate.attributes).collect()
}

async fn send(braze: &Braze, endpoint: Endpoint, users: &[Objects], last_start: Instant) -> Vec<Fate> {
    let run = Run {
        braze,
        endpoint,
        refusals: braze.refusals(endpoint),
        users,
        gate: Gate::new(last_start),
        fates: Mutex::new(users.iter().map(|user| Fate::of_all(user, &Ok(()))).collect()),
    };
    let mut batches = batches(users, endpoint.most_objects()).into_iter();
    // The others need not be asked if the probe is refused.
    if run.refusals.is_everything()
        && let Some(first) = batches.next()
    {
        Box::pin(run.batch(first)).await;
    }
    stream::iter(batches)
        .for_each_concurrent(endpoint.concurrency(), |batch| Box::pin(run.batch(batch)))
        .await;
    run.fates.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Positions of users that share a request.
fn batches(users: &[Objects], most_objects: usize) -> Vec<Vec<usize>> {
    let mut batches = Vec::new();
    let (mut batch, mut objects, mut bytes) = (Vec::new(), 0, 0);
    for (position, user) in users.iter().enumerate() {
        if user.len() == 0 {
            continue;
        }
        let (more_objects, more_bytes) = (user.len(), user.bytes());
        let full = objects + more_objects > most_objects || bytes + more_bytes > MAX_BYTES;
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

/// One request.
struct Part {
    objects: Vec<Object>,
    /// One of the two halves of a batch that was refused.
    is_half: bool,
}

/// The requests of a batch that are still to be sent.
struct Open {
    parts: VecDeque<Part>,
    /// What Braze had taken when it first refused one of these without a name.
    since: Option<u64>,
    halves_refused: u8,
}

struct Run<'a> {
    braze: &'a Braze,
    endpoint: Endpoint,
    refusals: &'a Refusals,
    users: &'a [Objects],
    gate: Gate,
    fates: Mutex<Vec<Fate>>,
}

impl Run<'_> {
    /// The requests of some users, one after the other.
    async fn batch(&self, batch: Vec<usize>) {
        let requests = parts(self.users, &batch, self.endpoint.most_objects()).into_iter();
        let mut open = Open {
            parts: requests
                .map(|objects| Part {
                    objects,
                    is_half: false,
                })
                .collect(),
            since: None,
            halves_refused: 0,
        };
        // Of these users something may not have arrived. What comes after it would overtake it.
        let mut behind: HashMap<usize, BrazeError> = HashMap::new();
        while let Some(mut part) = open.parts.pop_front() {
            part.objects.retain(|object| match behind.get(&object.user) {
                Some(error) => {
                    self.settle(&[*object], error);
                    false
                }
                None => true,
            });
            if part.objects.is_empty() {
                continue;
            }
            if let Err(error) = self.part(&mut part, &mut open).await {
                self.gate.failed(&error);
                self.refusals.failed(&error, self.braze.now());
                self.settle(&part.objects, &error);
                behind.extend(part.objects.iter().map(|object| (object.user, error.clone())));
            }
        }
    }

    /// Sends one request if one may be sent, and a smaller one if it is a probe. The error is that of its objects.
    async fn part(&self, part: &mut Part, open: &mut Open) -> Result<(), BrazeError> {
        self.gate.check()?;
        if let Permit::Probe(number) = self.refusals.permit(self.braze.now())? {
            let user = part
                .objects
                .get(number % part.objects.len())
                .map(|object| object.user);
            let (probe, rest) = part.objects.iter().partition(|object| Some(object.user) == user);
            part.objects = probe;
            open.parts.push_front(Part {
                objects: rest,
                is_half: false,
            });
        }
        self.attempt(part, open).await
    }

    async fn attempt(&self, part: &Part, open: &mut Open) -> Result<(), BrazeError> {
        let request = part.objects.as_slice();
        let sent = self.objects(request);
        match self.braze.ask(self.endpoint, &sent).await {
            Ok(taken) if taken.errors.is_empty() => {
                self.refusals.took(sent.into_iter().map(|(_, object)| object));
            }
            Ok(taken) => {
                let (named, rest) = self.by_name(request, &taken.errors);
                if rest.is_empty() {
                    self.refused_by_name(&named)?;
                } else {
                    self.refusals.took([]);
                }
                self.reject(request, &taken.errors);
                if taken
                    .errors
                    .iter()
                    .any(|error| position(self.endpoint, request, error).is_none())
                {
                    tracing::error!("Braze did not take an object of a request and does not say which");
                    self.unnamed(part, rest, &self.rejected(&taken.errors), open);
                }
            }
            // Nothing of the request was taken: leave those out that Braze named, try the rest.
            Err(BrazeError::Rejected { errors, .. })
                if errors
                    .iter()
                    .any(|error| named(self.endpoint, request, error).is_some()) =>
            {
                let (named, rest) = self.by_name(request, &errors);
                self.refused_by_name(&named)?;
                self.reject(request, &errors);
                open.parts.push_front(Part {
                    objects: rest,
                    is_half: part.is_half,
                });
            }
            Err(error @ BrazeError::TooLarge) if bytes(sent.iter().copied()) > NEVER_TOO_LARGE => {
                self.smaller(part, request, &error, open, false);
            }
            Err(error @ (BrazeError::Rejected { .. } | BrazeError::TooLarge)) => {
                return self.refused(part, error, open);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Of a request that was refused and no object of it named.
    fn refused(&self, part: &Part, error: BrazeError, open: &mut Open) -> Result<(), BrazeError> {
        let now = self.braze.now();
        if let [alone] = part.objects.as_slice() {
            let verdict = if open.since.is_some() || error.is_unnamed() {
                let object = self.object(*alone).unwrap_or(&Value::Null);
                self.refusals.refused_alone(object, open.since, error, now)
            } else {
                error
            };
            if !verdict.is_final() {
                return Err(verdict);
            }
            self.settle(&part.objects, &verdict);
            return Ok(());
        }
        let is_first = open.since.is_none();
        let since = *open.since.get_or_insert_with(|| self.refusals.taken());
        open.halves_refused += u8::from(part.is_half);
        if open.halves_refused == 2 || self.refusals.is_everything() {
            self.refusals.halves_refused(since, now)?;
        }
        self.smaller(part, &part.objects, &error, open, is_first);
        Ok(())
    }

    /// Partial success without indices: attributes are sent again in smaller requests, since they are idempotent; events
    /// are not, and are given up for an operator to look at.
    fn unnamed(&self, part: &Part, rest: Vec<Object>, error: &BrazeError, open: &mut Open) {
        let (attributes, events): (Vec<Object>, Vec<Object>) = rest
            .into_iter()
            .partition(|object| object.array == Array::Attributes);
        self.settle(&events, error);
        self.smaller(part, &attributes, error, open, false);
    }

    /// Puts what of a refused request is sent again into smaller ones. An object that stood alone is at fault itself.
    fn smaller(&self, part: &Part, rest: &[Object], error: &BrazeError, open: &mut Open, is_first: bool) {
        if part.objects.len() == 1 {
            self.settle(rest, error);
            return;
        }
        let (left, right) = rest.split_at(middle(rest));
        let is_one_user = left.last().map(|object| object.user) == right.first().map(|object| object.user);
        let part = |objects: &[Object]| Part {
            objects: objects.to_vec(),
            is_half: is_first && !is_one_user,
        };
        if is_one_user {
            // In their order, before anything else of this user.
            open.parts.push_front(part(right));
            open.parts.push_front(part(left));
        } else {
            // Behind the other half of what was refused before: if that is refused too, it need not be halved.
            open.parts.extend([part(left), part(right)]);
        }
    }

    /// Those that Braze named, and the others.
    fn by_name(&self, request: &[Object], errors: &[ObjectError]) -> (Vec<Object>, Vec<Object>) {
        let is_named = |object: &Object| {
            let mut named = errors
                .iter()
                .filter_map(|error| position(self.endpoint, request, error));
            named.any(|named| named == *object)
        };
        request.iter().copied().partition(is_named)
    }

    fn refused_by_name(&self, named: &[Object]) -> Result<(), BrazeError> {
        let objects = named.iter().filter_map(|object| self.object(*object));
        self.refusals.refused_by_name(objects, self.braze.now())
    }

    /// Settles the objects that Braze named.
    fn reject(&self, request: &[Object], errors: &[ObjectError]) {
        for error in errors {
            if let Some(object) = position(self.endpoint, request, error) {
                self.settle(&[object], &self.rejected(std::slice::from_ref(error)));
            }
        }
    }

    fn settle(&self, objects: &[Object], error: &BrazeError) {
        let mut fates = self.fates.lock().unwrap_or_else(PoisonError::into_inner);
        for object in objects {
            if let Some(fate) = fates.get_mut(object.user) {
                fate.settle(object.array, object.index, error);
            }
        }
    }

    fn objects(&self, request: &[Object]) -> Vec<(Array, &Value)> {
        let objects = request.iter();
        objects
            .filter_map(|object| Some((object.array, self.object(*object)?)))
            .collect()
    }

    fn object(&self, object: Object) -> Option<&Value> {
        let user = self.users.get(object.user)?;
        match object.array {
            Array::Attributes => user.attributes.get(object.index),
            Array::Events => user.events.get(object.index),
        }
    }

    fn rejected(&self, errors: &[ObjectError]) -> BrazeError {
        let what = self.endpoint.rejected();
        BrazeError::Rejected {
            reason: errors
                .first()
                .map_or_else(|| what.to_owned(), |error| error.reason(what)),
            errors: errors.to_vec(),
        }
    }
}

/// The object that Braze means. Of a request with one object it is that one, whatever it says.
fn position(endpoint: Endpoint, request: &[Object], error: &ObjectError) -> Option<Object> {
    match request {
        [object] => Some(*object),
        _ => named(endpoint, request, error),
    }
}

/// The object that Braze names. A code without a place says of one object alone no more than of many.
fn named(endpoint: Endpoint, request: &[Object], error: &ObjectError) -> Option<Object> {
    let index = error.index?;
    if endpoint == Endpoint::Identify {
        return request.get(index).copied();
    }
    let array = error.array?;
    let mut of_array = request.iter().filter(|object| object.array == array);
    of_array.nth(index).copied()
}

/// The objects of a batch, in requests: one, unless a single user has more objects than one request may hold.
fn parts(users: &[Objects], batch: &[usize], most_objects: usize) -> Vec<Vec<Object>> {
    let objects: Vec<Object> = batch
        .iter()
        .filter_map(|position| Some((*position, users.get(*position)?)))
        .flat_map(|(user, objects)| {
            let of = |array, number: usize| (0..number).map(move |index| Object { user, array, index });
            of(Array::Attributes, objects.attributes.len()).chain(of(Array::Events, objects.events.len()))
        })
        .collect();
    objects.chunks(most_objects).map(<[_]>::to_vec).collect()
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn user(attributes: usize, events: usize) -> Objects {
        Objects {
            attributes: vec![json!({"a": 1}); attributes].into(),
            events: vec![json!({"e": 1}); events].into(),
        }
    }

    #[test]
    fn batches_are_full_and_never_split_a_user() {
        let users: Vec<Objects> = (0..10_000).map(|_| user(1, 0)).collect();
        assert_eq!(batches(&users, 75).len(), 134);
        let pairs: Vec<Objects> = (0..76).map(|_| user(1, 1)).collect();
        assert!(batches(&pairs, 75).iter().all(|batch| batch.len() <= 37));
        assert_eq!(batches(&pairs, 75).concat(), (0..76).collect::<Vec<_>>());
    }

    #[test]
    fn a_batch_stays_below_the_byte_limit() {
        let large = Objects {
            attributes: vec![json!({"a": "x".repeat(1_000_000)})].into(),
            ..Objects::default()
        };
        assert_eq!(
            batches(&vec![large; 7], 75)
                .iter()
                .map(Vec::len)
                .collect::<Vec<_>>(),
            [3, 3, 1]
        );
    }

    #[test]
    fn a_user_with_too_many_objects_is_split_in_order() {
        let parts = parts(&[user(1, 100)], &[0], 75);
        assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), [75, 26]);
        assert_eq!(parts[0][0].array, Array::Attributes);
        let events: Vec<usize> = parts.concat()[1..].iter().map(|object| object.index).collect();
        assert_eq!(events, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn a_request_is_cut_between_users_and_then_between_attributes_and_events() {
        let one = |users: &[Objects]| {
            let all: Vec<usize> = (0..users.len()).collect();
            parts(users, &all, 75).concat()
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
        let request = parts(&users, &[0, 1], 75).concat();
        let found = |array, index| {
            let error = ObjectError {
                array,
                index,
                code: None,
            };
            position(Endpoint::Track, &request, &error).map(|object| (object.user, object.index))
        };
        assert_eq!(found(Some(Array::Attributes), Some(2)), Some((1, 1)));
        assert_eq!(found(Some(Array::Events), Some(2)), Some((1, 0)));
        assert_eq!(found(Some(Array::Events), Some(3)), None);
        assert_eq!(found(Some(Array::Events), None), None);
        assert_eq!(found(None, Some(0)), None);
    }

    #[test]
    fn users_without_objects_cost_nothing() {
        assert!(batches(&[Objects::default(), Objects::default()], 75).is_empty());
    }
}
