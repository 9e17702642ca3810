//! `POST /{catalog_id}/items_batch` and `GET /{catalog_id}/check_batch_request_status`.
//!
//! - At most 5,000 requests in a batch; `method` is CREATE, UPDATE or DELETE; an item's id is the seller's own
//!   (retailer id), not Meta's.
//! - Under `allow_upsert` (default true) an UPDATE creates what is not there.
//! - 200 and a handle mean accepted. What became of each item is told by the handle's status, once it is `finished`.
//! - Some errors show at once, in `validation_status`.

use std::borrow::Cow;
use std::collections::HashMap;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::error::GraphError;
use super::options::KeepItems;
use super::parameters::Parameters;

/// Most requests in one batch.
pub const MAX_REQUESTS: usize = 5_000;

const ITEM_TYPES: [&str; 7] = [
    "PRODUCT_ITEM",
    "DESTINATION",
    "FLIGHT",
    "HOME_LISTING",
    "HOTEL",
    "HOTEL_ROOM",
    "VEHICLE",
];

/// When a bad item is found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FoundOut {
    /// In the answer to the batch.
    AtOnce,
    /// In the handle's status.
    InProcessing,
    /// By the whole batch being refused with error 1, "Please reduce the amount of data".
    AsTooMuch,
    /// By the whole batch being refused with error 100.
    AsInvalid,
    /// By nothing of the batch being taken: status 200, without a handle.
    AsNothingTaken,
    /// In the answer to the batch, and again in the handle's status; with three errors each time.
    Everywhere,
}

/// A catalog as it stands.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    /// Items there are; with [`KeepItems::Counts`] upserts minus deletions.
    pub count: usize,
    /// Retailer id → data; null with [`KeepItems::Ids`], empty with [`KeepItems::Counts`].
    pub items: HashMap<Box<str>, Value>,
    /// Requests accepted over all batches, repeated ones too.
    pub requests: usize,
    /// Batches accepted.
    pub batches: usize,
}

#[derive(Default)]
pub(super) struct Store {
    pub(super) catalog: Catalog,
    pub(super) bad_items: HashMap<String, (String, FoundOut)>,
    handles: HashMap<String, Handle>,
}

struct Handle {
    errors: Vec<(usize, String, String)>,
    polls_left: u32,
}

#[derive(Deserialize)]
struct ItemRequest<'a> {
    #[serde(borrow)]
    method: Cow<'a, str>,
    #[serde(borrow)]
    data: &'a RawValue,
}

#[derive(Deserialize)]
struct ItemId<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
}

/// How the platform treats batches for now.
pub(super) struct Batching {
    pub(super) keep: KeepItems,
    /// Larger batches get "Please reduce the amount of data".
    pub(super) ceiling: usize,
    /// How often a handle's status is `started` before it is `finished`.
    pub(super) polls_until_finished: u32,
}

impl Store {
    /// Takes a batch. Also returns how many requests it held.
    pub(super) fn items_batch(
        &mut self,
        catalog: &str,
        parameters: &Parameters<'_>,
        batching: &Batching,
    ) -> Result<(Value, usize), GraphError> {
        let item_type = parameters.required("item_type")?;
        if !ITEM_TYPES.contains(&item_type.as_str()) {
            return Err(GraphError::invalid("Param item_type is none of the known types"));
        }
        let upsert = match parameters.text("allow_upsert").as_deref() {
            None | Some("true" | "1") => true,
            Some("false" | "0") => false,
            Some(_) => return Err(GraphError::invalid("Param allow_upsert must be a boolean")),
        };
        let requests: Vec<ItemRequest<'_>> = parameters.json("requests")?;
        let sent = requests.len();
        if sent == 0 || sent > MAX_REQUESTS {
            return Err(GraphError::invalid(&format!(
                "Param requests has 1 to {MAX_REQUESTS} elements, not {sent}"
            )));
        }
        if sent > batching.ceiling {
            return Err(super::faults::reduce());
        }
        let mut identified = Vec::with_capacity(sent);
        for request in &requests {
            let ItemId { id } = serde_json::from_str(request.data.get())
                .map_err(|_| GraphError::invalid("every request's data needs an id, as a text"))?;
            if !matches!(&*request.method, "CREATE" | "UPDATE" | "DELETE") {
                return Err(GraphError::invalid(
                    "a request's method is CREATE, UPDATE or DELETE",
                ));
            }
            identified.push((id, request));
        }
        let spoils = |how: FoundOut| {
            let bad = identified.iter().filter_map(|(id, _)| self.bad_items.get(&**id));
            bad.filter(|(_, found_out)| *found_out == how)
                .map(|(message, _)| message.clone())
                .next()
        };
        if spoils(FoundOut::AsTooMuch).is_some() {
            return Err(super::faults::reduce());
        }
        if let Some(message) = spoils(FoundOut::AsInvalid) {
            return Err(GraphError::spoilt(&message));
        }
        if let Some(message) = spoils(FoundOut::AsNothingTaken) {
            let answer = json!({"validation_status": [{"errors": [{"message": message}]}]});
            return Ok((answer, sent));
        }
        let (mut validation, mut errors) = (Vec::new(), Vec::new());
        for (index, (id, request)) in identified.into_iter().enumerate() {
            match self.bad_items.get(&*id) {
                Some((message, FoundOut::AtOnce)) => validation.push(json!({
                    "retailer_id": id, "errors": [{"message": message}], "warnings": [],
                })),
                Some((message, FoundOut::Everywhere)) => {
                    let three = json!([{"message": message}, {"message": message}, {"message": message}]);
                    validation.push(json!({"retailer_id": id, "errors": three, "warnings": []}));
                    errors.extend((0..3).map(|_| (index, id.to_string(), message.clone())));
                }
                Some((message, _)) => errors.push((index, id.into_owned(), message.clone())),
                None => {
                    if let Err(message) = self.apply(&id, request, upsert, batching.keep) {
                        errors.push((index, id.into_owned(), message));
                    }
                }
            }
        }
        self.catalog.batches += 1;
        self.catalog.requests += sent;
        let handle = format!("Acx{catalog}Z{:08}", self.catalog.batches);
        let polls_left = batching.polls_until_finished;
        self.handles.insert(handle.clone(), Handle { errors, polls_left });
        let mut answer = json!({"handles": [handle]});
        if let (Some(answer), false) = (answer.as_object_mut(), validation.is_empty()) {
            answer.insert("validation_status".to_owned(), validation.into());
        }
        Ok((answer, sent))
    }

    fn apply(
        &mut self,
        id: &str,
        request: &ItemRequest<'_>,
        upsert: bool,
        keep: KeepItems,
    ) -> Result<(), String> {
        let Catalog { count, items, .. } = &mut self.catalog;
        let delete = request.method == "DELETE";
        if keep == KeepItems::Counts {
            *count = if delete {
                count.saturating_sub(1)
            } else {
                *count + 1
            };
            return Ok(());
        }
        let exists = items.contains_key(id);
        if delete {
            items
                .remove(id)
                .map(drop)
                .ok_or("There is no item with this retailer id")?;
        } else if request.method == "CREATE" && exists {
            return Err("An item with this retailer id exists".to_owned());
        } else if request.method == "UPDATE" && !exists && !upsert {
            return Err("There is no item with this retailer id".to_owned());
        } else {
            let data = match keep {
                KeepItems::Data => serde_json::from_str(request.data.get()).unwrap_or_default(),
                KeepItems::Ids | KeepItems::Counts => Value::Null,
            };
            items.insert(id.into(), data);
        }
        *count = items.len();
        Ok(())
    }

    /// What became of a batch. The ids of bad items are told only to those who ask.
    pub(super) fn batch_status(&mut self, parameters: &Parameters<'_>) -> Result<Value, GraphError> {
        let name = parameters.required("handle")?;
        let handle = self
            .handles
            .get_mut(&name)
            .ok_or_else(|| GraphError::invalid("Param handle is unknown"))?;
        if handle.polls_left > 0 {
            handle.polls_left -= 1;
            return Ok(json!({"data": [{"handle": name, "status": "started"}]}));
        }
        let errors: Vec<_> = handle
            .errors
            .iter()
            .map(|(index, id, message)| json!({"line": index + 1, "id": id, "message": message}))
            .collect();
        let mut status = json!({
            "handle": name,
            "status": "finished",
            "errors_total_count": errors.len(),
            "errors": errors,
            "warnings_total_count": 0,
            "warnings": [],
        });
        let ids = parameters.text("load_ids_of_invalid_requests");
        if let (Some("true" | "1"), Some(status)) = (ids.as_deref(), status.as_object_mut()) {
            let ids: Vec<_> = handle.errors.iter().map(|(_, id, _)| id.as_str()).collect();
            status.insert("ids_of_invalid_requests".to_owned(), ids.into());
        }
        Ok(json!({"data": [status]}))
    }
}
