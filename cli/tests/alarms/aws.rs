//! Alarms on what AWS counts. The scenes bring the functions into the state that AWS would count, as far as they can get
//! into it here; what only AWS itself brings about (a limit of concurrency, a hot partition, an invocation's length, a
//! stream's or queue's age) is reported as it would report it.

use serde_json::json;
use testkit::aws::Fault;
use testkit::aws::sdk_config;
use testkit::template::Template;

use bridge::functions::{self, Wiring};

use crate::stack::Stack;
use crate::{Rung, note};

pub(crate) async fn scenes(rung: &mut Rung) {
    functions_do_not_start(rung).await;
    functions_are_throttled(rung).await;
    functions_are_slow(rung).await;
    the_schedule_is_off(rung).await;
    the_stream_is_behind(rung).await;
    tables_are_throttled(rung).await;
    a_tick_cannot_be_handled(rung).await;
    conversations_wait_for_a_worker(rung).await;
    the_tables_are_out_of_reach(rung).await;
}

fn functions() -> Vec<testkit::template::Function> {
    Template::of_the_repository().unwrap().functions().to_vec()
}

/// The names that alarms on functions begin with, and their logical ids.
fn named() -> Vec<(String, String)> {
    let template = Template::of_the_repository().unwrap();
    let rows = template.source()["Mappings"]["FunctionAlarms"]
        .as_object()
        .unwrap();
    let rows = rows.iter();
    rows.map(|(row, values)| {
        (
            values["Name"].as_str().unwrap().to_owned(),
            format!("{row}Function"),
        )
    })
    .collect()
}

fn all(kind: &str) -> Vec<String> {
    named()
        .into_iter()
        .map(|(name, _)| format!("{name}-{kind}"))
        .collect()
}

fn note_all(rung: &mut Rung, stack: &Stack, names: &[String]) {
    note(rung, stack, &names.iter().map(String::as_str).collect::<Vec<_>>());
}

/// Settings that are missing end a function while it starts, which is an error of each of its calls.
async fn functions_do_not_start(rung: &mut Rung) {
    let mut stack = Stack::start().await;
    let aws = sdk_config(&stack.house.aws.endpoint_url());
    for minute in 0..2 {
        for function in functions() {
            let wiring = Wiring {
                function: &function,
                environment: &[].into(),
                aws: &aws,
                clock: &stack.house.clock,
            };
            assert!(functions::make(&wiring).is_err(), "{}", function.logical_id);
            stack.lambda_reports(&function.logical_id, "Invocations", 1.0);
            stack.lambda_reports(&function.logical_id, "Errors", 1.0);
        }
        assert!(
            minute > 0 || stack.rung().is_empty(),
            "one alone may be a machine that died"
        );
        stack.minutes_later(1);
    }
    note_all(rung, &stack, &all("errors"));
}

async fn functions_are_throttled(rung: &mut Rung) {
    let mut stack = Stack::start().await;
    for _ in 0..2 {
        for (_, function) in named() {
            stack.lambda_reports(&function, "Throttles", 3.0);
        }
        stack.minutes_later(1);
    }
    note_all(rung, &stack, &all("throttles"));
}

/// One call in a hundred runs into its timeout, in each of three periods.
async fn functions_are_slow(rung: &mut Rung) {
    let mut stack = Stack::start().await;
    for _ in 0..3 {
        for function in functions() {
            let timeout = f64::from(u32::try_from(function.timeout_seconds).unwrap()) * 1_000.0;
            for call in 0..100 {
                let took = if call < 2 { timeout } else { 20.0 };
                stack.lambda_reports(&function.logical_id, "Duration", took);
            }
        }
        stack.minutes_later(5);
    }
    note_all(rung, &stack, &all("duration"));
}

async fn the_schedule_is_off(rung: &mut Rung) {
    let mut stack = Stack::start().await;
    stack.run(10).await;
    assert!(stack.rung().is_empty());
    stack.minutes_later(20);
    let silent = ["outbox-dispatch-sync-silent", "outbox-dispatch-relay-silent"];
    note(rung, &stack, &silent);
}

async fn the_stream_is_behind(rung: &mut Rung) {
    let mut stack = Stack::start().await;
    for _ in 0..3 {
        stack.lambda_reports("DispatchSyncFunction", "IteratorAge", 301_000.0);
        stack.minutes_later(1);
    }
    note(rung, &stack, &["outbox-dispatch-sync-iterator-age"]);
}

async fn tables_are_throttled(rung: &mut Rung) {
    let mut stack = Stack::start().await;
    for _ in 0..3 {
        for table in ["Contacts", "Installs", "Conversations", "Outbox"] {
            let name = format!("local-{table}Table");
            stack.aws_reports(
                "AWS/DynamoDB",
                "WriteThrottleEvents",
                &[("TableName", &name)],
                7.0,
            );
        }
        let index = [
            ("TableName", "local-OutboxTable"),
            ("GlobalSecondaryIndexName", "due"),
        ];
        stack.aws_reports("AWS/DynamoDB", "WriteThrottleEvents", &index, 7.0);
        stack.minutes_later(1);
    }
    let names = ["contacts", "installs", "conversations", "outbox", "outbox-due"];
    note_all(rung, &stack, &names.map(|name| format!("{name}-throttles")));
}

/// A tick fails, and Lambda hands it to the destination of failures once it has tried again in vain.
async fn a_tick_cannot_be_handled(rung: &mut Rung) {
    let mut stack = Stack::start().await;
    stack
        .house
        .aws
        .fail_next("Query", 1_000, Fault::ServiceUnavailable);
    let tick = stack.invoke("DispatchSyncFunction", json!({"task": "due"})).await;
    assert_eq!(tick, None);
    stack.house.aws.clear_faults();
    let queue = [("QueueName", "local-UndeliveredQueue")];
    stack.aws_reports("AWS/SQS", "ApproximateNumberOfMessagesVisible", &queue, 1.0);
    note(rung, &stack, &["undelivered"]);
}

async fn conversations_wait_for_a_worker(rung: &mut Rung) {
    let mut stack = Stack::start().await;
    let queue = [("QueueName", "local-RelayQueue")];
    stack.aws_reports("AWS/SQS", "ApproximateAgeOfOldestMessage", &queue, 301.0);
    note(rung, &stack, &["relay-queue-age"]);
}

async fn the_tables_are_out_of_reach(rung: &mut Rung) {
    let mut stack = Stack::start().await;
    for _ in 0..3 {
        for operation in ["UpdateItem", "BatchGetItem"] {
            stack
                .house
                .aws
                .fail_next(operation, 20, Fault::ServiceUnavailable);
        }
        assert_eq!(stack.message("7001").await, 503);
        stack.house.aws.clear_faults();
        stack.minutes_later(1);
    }
    note(rung, &stack, &["api-5xx"]);
}
