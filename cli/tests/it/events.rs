//! The files of `events/<function>/` are what they would be if they were made anew, and the functions answer
//! them as their names say.

use std::path::Path;

use assert_cmd::cargo::cargo_bin_cmd;
use bridge::function_events;
use serde_json::{Value, json};

use crate::house::House;

fn directory() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../events")
}

#[test]
fn the_kept_events_are_up_to_date() {
    let differences = function_events::differences(&directory()).unwrap();
    assert!(
        differences.is_empty(),
        "run `cargo run -p bridge -- events --write`: {differences:#?}"
    );
}

#[test]
fn a_stale_event_fails_the_check_and_is_mended_by_writing() {
    let copy = tempfile::tempdir().unwrap();
    let dir = copy.path().to_str().unwrap();
    let run = |what: &str, code: i32| {
        let mut command = cargo_bin_cmd!("bridge");
        let output = command.args(["events", what, "--dir", dir]).assert().code(code);
        String::from_utf8(output.get_output().stdout.clone()).unwrap()
    };
    assert!(run("--check", 1).contains("missing"));
    run("--write", 0);
    assert!(run("--check", 0).contains("up to date"));
    let folder = copy.path().join("messenger-events");
    std::fs::write(folder.join("message_text.json"), "{}").unwrap();
    std::fs::write(folder.join("stray.json"), "{}").unwrap();
    let told = run("--check", 1);
    assert!(told.contains("stale") && told.contains("left over"), "{told}");
    run("--write", 0);
    assert!(run("--check", 0).contains("up to date") && !folder.join("stray.json").exists());
    run("--neither", 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_gets_the_answer_that_its_case_promises() {
    let house = House::live(&[("RETRY_BASE_SECONDS", "1")]).await;
    let mut played = 0;
    for event in function_events::all().unwrap() {
        let function = house.stack.function(&event.function).unwrap();
        let answer: Value = function(event.event).await.unwrap();
        let name = format!("{}/{}: {answer}", event.function, event.case);
        if let Some(status) = event.status {
            assert_eq!(answer["statusCode"], status, "{name}");
        } else {
            let failures = answer.get("batchItemFailures");
            assert!(failures.is_none_or(|failures| *failures == json!([])), "{name}");
            assert!(answer.get("dead").is_none_or(|dead| *dead == 0), "{name}");
        }
        // One after the other, as a person would; what meets a lease waits for the schedule.
        house.drain().await;
        played += 1;
    }
    assert!(played > 20, "{played}");
    house.drain().await;
    assert_eq!(house.problems().await, Vec::<String>::new());
    // The kept stream batch is about the person of the kept message.
    let profile = house
        .braze()
        .alias_profile("messenger:1134597043258171", "5275811702764837");
    assert!(profile.is_some());
    house.stack.stop().await;
}
