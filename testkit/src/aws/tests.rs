use aws_sdk_dynamodb::types::{AttributeValue, Put, ReturnValue, TransactWriteItem};
use aws_sdk_dynamodbstreams::types::ShardIteratorType;
use serde_json::json;

use super::*;

const TEMPLATE: &str = include_str!("../template/fixture.yaml");

async fn started() -> EmbeddedAws {
    let aws = EmbeddedAws::in_memory().await.unwrap();
    aws.create_tables(&Template::parse(TEMPLATE).unwrap())
        .await
        .unwrap();
    aws
}

fn text(value: &str) -> AttributeValue {
    AttributeValue::S(value.to_owned())
}

async fn put(aws: &EmbeddedAws, id: &str) {
    let client = aws.dynamodb();
    client
        .put_item()
        .table_name("local-PlainTable")
        .item("id", text(id))
        .send()
        .await
        .unwrap();
}

async fn ids(aws: &EmbeddedAws) -> usize {
    let scan = aws
        .dynamodb()
        .scan()
        .table_name("local-PlainTable")
        .send()
        .await
        .unwrap();
    scan.items().len()
}

#[tokio::test]
async fn tables_are_created_once_as_the_template_says() {
    let aws = started().await;
    aws.create_tables(&Template::parse(TEMPLATE).unwrap())
        .await
        .unwrap();
    let client = aws.dynamodb();
    let table = client
        .describe_table()
        .table_name("local-items")
        .send()
        .await
        .unwrap()
        .table
        .unwrap();
    assert_eq!(table.key_schema().len(), 2);
    assert_eq!(table.global_secondary_indexes()[0].index_name(), Some("due"));
    assert!(table.latest_stream_arn().is_some());
    let ttl = client
        .describe_time_to_live()
        .table_name("local-items")
        .send()
        .await
        .unwrap();
    assert_eq!(
        ttl.time_to_live_description.unwrap().attribute_name(),
        Some("expires")
    );

    let other_key = TEMPLATE.replace("AttributeName: id,", "AttributeName: other,");
    let error = aws
        .create_tables(&Template::parse(&other_key).unwrap())
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("other keys"), "{error}");
}

#[tokio::test]
async fn a_write_shows_in_the_stream() {
    let aws = started().await;
    let item = [("subject", "s"), ("event_key", "1"), ("lane", "sync")];
    let mut request = aws.dynamodb().put_item().table_name("local-items");
    for (name, value) in item {
        request = request.item(name, text(value));
    }
    request.send().await.unwrap();

    let streams = aws.streams();
    let list = streams
        .list_streams()
        .table_name("local-items")
        .send()
        .await
        .unwrap();
    let arn = list.streams()[0].stream_arn().unwrap();
    let described = streams.describe_stream().stream_arn(arn).send().await.unwrap();
    let shard = described.stream_description.unwrap().shards()[0]
        .shard_id()
        .unwrap()
        .to_owned();
    let iterator = streams
        .get_shard_iterator()
        .stream_arn(arn)
        .shard_id(shard)
        .shard_iterator_type(ShardIteratorType::TrimHorizon)
        .send()
        .await
        .unwrap();
    let records = streams
        .get_records()
        .shard_iterator(iterator.shard_iterator().unwrap())
        .send()
        .await
        .unwrap();
    let image = records.records()[0].dynamodb().unwrap().new_image().unwrap();
    assert_eq!(image.get("lane").unwrap().as_s().unwrap(), "sync");
}

#[tokio::test]
async fn secrets_are_written_read_replaced_and_deleted() {
    let aws = started().await;
    aws.put_secret("local/meta", &json!({"app_secret": "one"}))
        .await
        .unwrap();
    aws.put_secret("local/meta", &json!({"app_secret": "two"}))
        .await
        .unwrap();
    let client = aws.secrets_manager();
    let value = client
        .get_secret_value()
        .secret_id("local/meta")
        .send()
        .await
        .unwrap();
    assert_eq!(value.secret_string(), Some(r#"{"app_secret":"two"}"#));
    let by_arn = client
        .get_secret_value()
        .secret_id(value.arn().unwrap())
        .send()
        .await
        .unwrap();
    assert_eq!(by_arn.secret_string(), value.secret_string());
    client
        .delete_secret()
        .secret_id("local/meta")
        .recovery_window_in_days(7)
        .send()
        .await
        .unwrap();
    let gone = client
        .get_secret_value()
        .secret_id("local/meta")
        .send()
        .await
        .unwrap_err()
        .into_service_error();
    assert!(gone.is_invalid_request_exception(), "{gone:?}");
    let never = client
        .get_secret_value()
        .secret_id("x")
        .send()
        .await
        .unwrap_err()
        .into_service_error();
    assert!(never.is_resource_not_found_exception(), "{never:?}");
}

#[tokio::test]
async fn calls_are_counted_by_operation() {
    let aws = started().await;
    put(&aws, "a").await;
    put(&aws, "b").await;
    assert_eq!(ids(&aws).await, 2);
    let calls = aws.dynamodb_calls();
    assert_eq!((calls.total(), calls.of("PutItem"), calls.of("Scan")), (3, 2, 1));
    assert_eq!(aws.secrets_manager_calls().total(), 0);
    aws.reset_calls();
    assert_eq!(aws.dynamodb_calls(), Calls::default());
}

#[tokio::test]
async fn one_fault_is_survived_and_an_outage_is_not() {
    let aws = started().await;
    for fault in [Fault::ServiceUnavailable, Fault::Throttle, Fault::AnswerLost] {
        aws.reset_calls();
        aws.fail_next("PutItem", 1, fault);
        put(&aws, &format!("{fault:?}")).await;
        assert_eq!(aws.dynamodb_calls().of("PutItem"), 2, "{fault:?}");
    }
    assert_eq!(ids(&aws).await, 3);

    aws.fail_next("*", 3, Fault::ServiceUnavailable);
    let client = aws.dynamodb();
    let outage = client
        .scan()
        .table_name("local-PlainTable")
        .send()
        .await
        .unwrap_err();
    assert_eq!(outage.raw_response().unwrap().status().as_u16(), 503);
    assert_eq!(ids(&aws).await, 3, "the outage is over");
}

#[tokio::test]
async fn a_lost_answer_was_applied() {
    let aws = started().await;
    aws.fail_next("PutItem", 1, Fault::AnswerLost);
    let client = aws.dynamodb();
    let put = client
        .put_item()
        .table_name("local-PlainTable")
        .item("id", text("a"));
    // The SDK sends it again, and the condition meets the item of the first time.
    let error = put
        .condition_expression("attribute_not_exists(id)")
        .send()
        .await
        .unwrap_err();
    assert!(error.into_service_error().is_conditional_check_failed_exception());
    assert_eq!(ids(&aws).await, 1);
}

#[tokio::test]
async fn a_conflict_cancels_a_transaction_with_reasons() {
    let aws = started().await;
    aws.fail_next("TransactWriteItems", 3, Fault::Conflict);
    let client = aws.dynamodb();
    let put = |id: &str| {
        let put = Put::builder()
            .table_name("local-PlainTable")
            .item("id", text(id))
            .build()
            .unwrap();
        TransactWriteItem::builder().put(put).build()
    };
    let request = client
        .transact_write_items()
        .transact_items(put("a"))
        .transact_items(put("b"));
    let error = request.clone().send().await.unwrap_err().into_service_error();
    let aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError::TransactionCanceledException(
        cancelled,
    ) = error
    else {
        panic!("{error:?}");
    };
    let codes: Vec<_> = cancelled
        .cancellation_reasons()
        .iter()
        .map(|reason| reason.code().unwrap())
        .collect();
    assert_eq!(codes, ["TransactionConflict", "None"]);
    aws.clear_faults();
    request.send().await.unwrap();
    assert_eq!(ids(&aws).await, 2);
}

#[tokio::test]
async fn a_timeout_never_answers() {
    let aws = started().await;
    aws.fail_next("Scan", 1, Fault::Timeout);
    let client = aws.dynamodb();
    let scan = client.scan().table_name("local-PlainTable").send();
    assert!(
        tokio::time::timeout(Duration::from_millis(100), scan)
            .await
            .is_err()
    );
    assert_eq!(ids(&aws).await, 0);
}

#[tokio::test]
async fn a_hook_puts_another_writer_in_between() {
    let aws = started().await;
    let other = aws.dynamodb();
    aws.before_next("PutItem", move |request| {
        Box::pin(async move {
            assert_eq!(request["Item"]["id"]["S"], "a");
            other
                .put_item()
                .table_name("local-PlainTable")
                .item("id", text("a"))
                .send()
                .await
                .unwrap();
        })
    });
    let put = aws
        .dynamodb()
        .put_item()
        .table_name("local-PlainTable")
        .item("id", text("a"));
    let error = put
        .condition_expression("attribute_not_exists(id)")
        .send()
        .await
        .unwrap_err();
    assert!(error.into_service_error().is_conditional_check_failed_exception());
}

#[tokio::test]
async fn an_update_that_makes_an_item_has_no_old_one() {
    let aws = started().await;
    let client = aws.dynamodb();
    let update = client
        .update_item()
        .table_name("local-PlainTable")
        .key("id", text("a"))
        .update_expression("SET v = :v")
        .expression_attribute_values(":v", text("1"))
        .return_values(ReturnValue::AllOld);
    assert_eq!(update.clone().send().await.unwrap().attributes(), None);
    let second = update.send().await.unwrap();
    assert_eq!(second.attributes().unwrap().get("v"), Some(&text("1")));
}

#[tokio::test]
async fn any_region_sees_the_same_and_a_stranger_is_told() {
    let aws = started().await;
    put(&aws, "a").await;
    aws.put_secret("s", &json!({})).await.unwrap();
    let elsewhere = aws
        .sdk_config()
        .to_builder()
        .region(Region::new("eu-west-3"))
        .build();
    let scan = aws_sdk_dynamodb::Client::new(&elsewhere)
        .scan()
        .table_name("local-PlainTable")
        .send()
        .await;
    assert_eq!(scan.unwrap().items().len(), 1);
    let secrets = aws_sdk_secretsmanager::Client::new(&elsewhere);
    assert!(secrets.get_secret_value().secret_id("s").send().await.is_ok());

    let mut socket = tokio::net::TcpStream::connect(aws.address()).await.unwrap();
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let request = b"POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    socket.write_all(request).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 400") && answer.contains("X-Amz-Target"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_data_directory_keeps_tables_secrets_and_streams() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        data_dir: Some(dir.path().to_owned()),
        ..Options::default()
    };
    let template = Template::parse(TEMPLATE).unwrap();
    let aws = EmbeddedAws::start(options.clone()).await.unwrap();
    aws.create_tables(&template).await.unwrap();
    put(&aws, "a").await;
    aws.put_secret("local/meta", &json!({"v": 1})).await.unwrap();
    let second = EmbeddedAws::start(options.clone())
        .await
        .err()
        .unwrap()
        .to_string();
    assert!(second.contains("another process"), "{second}");
    drop(aws);

    let aws = EmbeddedAws::start(options).await.unwrap();
    aws.create_tables(&template).await.unwrap();
    assert_eq!(ids(&aws).await, 1);
    let secret = aws
        .secrets_manager()
        .get_secret_value()
        .secret_id("local/meta")
        .send()
        .await
        .unwrap();
    assert_eq!(secret.secret_string(), Some(r#"{"v":1}"#));
    let client = aws.dynamodb();
    let table = client
        .describe_table()
        .table_name("local-items")
        .send()
        .await
        .unwrap()
        .table
        .unwrap();
    assert!(table.latest_stream_arn().is_some());
    aws.stop().await;
}

#[tokio::test]
async fn the_repositorys_own_tables_can_be_created() {
    let template = Template::of_the_repository().unwrap();
    let aws = EmbeddedAws::in_memory().await.unwrap();
    aws.create_tables(&template).await.unwrap();
    let names = aws
        .dynamodb()
        .list_tables()
        .send()
        .await
        .unwrap()
        .table_names
        .unwrap();
    assert_eq!(
        names,
        [
            "local-ContactsTable",
            "local-ConversationsTable",
            "local-InstallsTable",
            "local-OutboxTable"
        ]
    );
}
