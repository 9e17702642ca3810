//! What DynamoDB bills a request by, as long as items are small: up to 1 KB written, 4 KB read.

use serde_json::Value;

/// Request units.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Units {
    /// Read units; a read that may be a little behind is half of one.
    pub reads: f64,
    /// Write units of the tables. What indexes take beside them depends on what changed.
    pub writes: f64,
}

impl Units {
    pub(super) fn add(&mut self, other: Self) {
        self.reads += other.reads;
        self.writes += other.writes;
    }

    /// The units of one request.
    pub(super) fn of(operation: &str, request: &Value) -> Self {
        let read = |request: &Value| match request.get("ConsistentRead") {
            Some(Value::Bool(true)) => 1.0,
            _ => 0.5,
        };
        let tables = || {
            request
                .get("RequestItems")
                .and_then(Value::as_object)
                .into_iter()
                .flatten()
        };
        let count = |list: Option<&Value>| {
            let length = list.and_then(Value::as_array).map_or(0, Vec::len);
            // DynamoDB takes a hundred at most.
            f64::from(u8::try_from(length).unwrap_or(u8::MAX))
        };
        let (mut reads, mut writes) = (0.0, 0.0);
        match operation {
            "GetItem" | "Query" => reads = read(request),
            "BatchGetItem" => {
                reads = tables().map(|(_, of)| read(of) * count(of.get("Keys"))).sum();
            }
            "PutItem" | "UpdateItem" | "DeleteItem" => writes = 1.0,
            "BatchWriteItem" => writes = tables().map(|(_, of)| count(Some(of))).sum(),
            // Prepared and committed.
            "TransactWriteItems" => writes = 2.0 * count(request.get("TransactItems")),
            _ => {}
        }
        Self { reads, writes }
    }
}
