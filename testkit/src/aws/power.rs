//! Requests in IAM's words: which action on which resource a role has to allow for them.

use std::collections::BTreeSet;

use serde_json::Value;

use super::ledger::Service;
use crate::template::Power;

/// The powers that a request takes. Transactions and batches take those of their parts; an index is a resource of its own.
pub(super) fn needed(service: Service, operation: &str, request: &Value) -> BTreeSet<Power> {
    match service {
        Service::DynamoDb => dynamodb(operation, request),
        Service::SecretsManager => {
            let name = text(request, "SecretId").or_else(|| text(request, "Name"));
            let power =
                |action: &str| Power::new(&format!("secretsmanager:{action}"), name.unwrap_or_default());
            let mut powers = BTreeSet::from([power(operation)]);
            // <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_CreateSecret.html>
            if operation == "CreateSecret" && request.get("Tags").is_some() {
                powers.insert(power("TagResource"));
            }
            powers
        }
        Service::Sqs => {
            let url = text(request, "QueueUrl").unwrap_or_default();
            let queue = url.rsplit('/').next().unwrap_or_default();
            // A batch takes the power of its single messages.
            let action = operation.trim_end_matches("Batch");
            BTreeSet::from([Power::new(&format!("sqs:{action}"), queue)])
        }
        // Lambda itself reads streams.
        Service::Streams => BTreeSet::new(),
    }
}

fn dynamodb(operation: &str, request: &Value) -> BTreeSet<Power> {
    let power = |operation: &str, table: &str| {
        Power::new(&format!("dynamodb:{operation}"), &format!("table/{table}"))
    };
    match operation {
        "TransactWriteItems" | "TransactGetItems" => {
            let parts = request.get("TransactItems").and_then(Value::as_array);
            let parts = parts.into_iter().flatten().filter_map(Value::as_object).flatten();
            parts
                .filter_map(|(kind, part)| {
                    let operation = match kind.as_str() {
                        "ConditionCheck" => "ConditionCheckItem".to_owned(),
                        kind => format!("{kind}Item"),
                    };
                    Some(power(&operation, text(part, "TableName")?))
                })
                .collect()
        }
        "BatchGetItem" | "BatchWriteItem" => {
            let tables = request.get("RequestItems").and_then(Value::as_object);
            let tables = tables.into_iter().flatten();
            tables.map(|(table, _)| power(operation, table)).collect()
        }
        _ => {
            let table = text(request, "TableName").unwrap_or_default();
            let resource = match text(request, "IndexName") {
                Some(index) => format!("{table}/index/{index}"),
                None => table.to_owned(),
            };
            BTreeSet::from([power(operation, &resource)])
        }
    }
}

fn text<'a>(value: &'a Value, name: &str) -> Option<&'a str> {
    value.get(name).and_then(Value::as_str)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(service: Service, operation: &str, request: &Value) -> Vec<String> {
        let powers = needed(service, operation, request);
        powers.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_transaction_takes_the_powers_of_its_parts() {
        let request = json!({"TransactItems": [
            {"Update": {"TableName": "contacts"}}, {"Put": {"TableName": "outbox"}},
            {"ConditionCheck": {"TableName": "contacts"}},
        ]});
        let expected = [
            "dynamodb:ConditionCheckItem on table/contacts",
            "dynamodb:PutItem on table/outbox",
            "dynamodb:UpdateItem on table/contacts",
        ];
        assert_eq!(of(Service::DynamoDb, "TransactWriteItems", &request), expected);
    }

    #[test]
    fn batches_name_their_tables_and_queries_their_index() {
        let batch = json!({"RequestItems": {"a": {}, "b": {}}});
        let expected = [
            "dynamodb:BatchGetItem on table/a",
            "dynamodb:BatchGetItem on table/b",
        ];
        assert_eq!(of(Service::DynamoDb, "BatchGetItem", &batch), expected);
        let query = json!({"TableName": "outbox", "IndexName": "due"});
        assert_eq!(
            of(Service::DynamoDb, "Query", &query),
            ["dynamodb:Query on table/outbox/index/due"]
        );
    }

    #[test]
    fn tags_on_a_new_secret_are_a_power_of_their_own() {
        let request = json!({"Name": "local/fbe/shop", "Tags": [{"Key": "a", "Value": "b"}]});
        let expected = [
            "secretsmanager:CreateSecret on secret:local/fbe/shop",
            "secretsmanager:TagResource on secret:local/fbe/shop",
        ];
        assert_eq!(of(Service::SecretsManager, "CreateSecret", &request), expected);
    }

    #[test]
    fn a_secret_is_named_by_its_name_or_arn() {
        for id in [
            "local/meta",
            "arn:aws:secretsmanager:us-east-1:000000000000:secret:local/meta",
        ] {
            assert_eq!(
                of(
                    Service::SecretsManager,
                    "GetSecretValue",
                    &json!({"SecretId": id})
                ),
                ["secretsmanager:GetSecretValue on secret:local/meta"]
            );
        }
    }
}
