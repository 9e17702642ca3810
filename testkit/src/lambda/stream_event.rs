//! Stream records as the event that Lambda makes of them.
//! (<https://docs.aws.amazon.com/lambda/latest/dg/with-ddb.html>)

use std::collections::HashMap;

use aws_sdk_dynamodbstreams::types::{AttributeValue, Record};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

/// One record of `Records`.
pub(super) fn record(record: &Record, stream_arn: &str) -> Value {
    let mut change = Map::new();
    if let Some(dynamodb) = record.dynamodb() {
        if let Some(time) = dynamodb.approximate_creation_date_time() {
            change.insert("ApproximateCreationDateTime".to_owned(), json!(time.secs()));
        }
        for (name, attributes) in [
            ("Keys", dynamodb.keys()),
            ("NewImage", dynamodb.new_image()),
            ("OldImage", dynamodb.old_image()),
        ] {
            if let Some(attributes) = attributes {
                change.insert(name.to_owned(), item(attributes));
            }
        }
        if let Some(size) = dynamodb.size_bytes() {
            change.insert("SizeBytes".to_owned(), json!(size));
        }
        if let Some(view) = dynamodb.stream_view_type() {
            change.insert("StreamViewType".to_owned(), json!(view.as_str()));
        }
        change.insert("SequenceNumber".to_owned(), json!(dynamodb.sequence_number()));
    }
    json!({
        "eventID": record.event_id(),
        "eventName": record.event_name().map(aws_sdk_dynamodbstreams::types::OperationType::as_str),
        "eventVersion": record.event_version().unwrap_or("1.1"),
        "eventSource": "aws:dynamodb",
        "awsRegion": record.aws_region().unwrap_or(crate::template::REGION),
        "dynamodb": change,
        "eventSourceARN": stream_arn,
    })
}

fn item(attributes: &HashMap<String, AttributeValue>) -> Value {
    attributes
        .iter()
        .map(|(name, value)| (name.clone(), attribute(value)))
        .collect::<Map<_, _>>()
        .into()
}

fn attribute(value: &AttributeValue) -> Value {
    match value {
        AttributeValue::S(text) => json!({ "S": text }),
        AttributeValue::N(number) => json!({ "N": number }),
        AttributeValue::B(bytes) => json!({ "B": STANDARD.encode(bytes) }),
        AttributeValue::Ss(texts) => json!({ "SS": texts }),
        AttributeValue::Ns(numbers) => json!({ "NS": numbers }),
        AttributeValue::Bs(all) => {
            json!({ "BS": all.iter().map(|bytes| STANDARD.encode(bytes)).collect::<Vec<_>>() })
        }
        AttributeValue::M(members) => json!({ "M": item(members) }),
        AttributeValue::L(values) => json!({ "L": values.iter().map(attribute).collect::<Vec<_>>() }),
        AttributeValue::Bool(value) => json!({ "BOOL": value }),
        AttributeValue::Null(value) => json!({ "NULL": value }),
        other => {
            tracing::error!("a stream record holds an attribute of an unknown type");
            json!({ "NULL": other.is_unknown() })
        }
    }
}
