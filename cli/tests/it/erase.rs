//! `bridge erase` against a running stack.

use std::io::Write as _;

use jiff::SignedDuration;
use serde_json::Value;

use crate::house::{House, payload};

fn erase(house: &House, arguments: &[&str], code: i32) -> String {
    house.bridge("erase", arguments, code)
}

async fn status(house: &House, code: &str) -> Value {
    let url = format!("{}/meta/deletion/{code}", house.stack.url());
    let client = shared::clients::http::client(std::time::Duration::from_secs(20));
    let answer = client.get(url).header("accept", "application/json").send().await;
    serde_json::from_slice(&answer.unwrap().bytes().await.unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_is_counted_then_erased_and_the_code_says_so() {
    let house = House::start(&[]).await;
    house.deliver(&payload("messenger/referral_link_token")).await;
    house.deliver(&payload("whatsapp/full")).await;
    house.drain().await;
    let counted = erase(&house, &["--user", "user-43", "--dry-run"], 0);
    assert!(counted.starts_with("found: 1 contacts"), "{counted}");
    assert!(!counted.contains("code"));
    let ordered = erase(&house, &["--user", "user-43"], 0);
    let code = ordered
        .lines()
        .last()
        .unwrap()
        .strip_prefix("code ")
        .unwrap()
        .to_owned();
    assert_eq!(status(&house, &code).await["status"], "received");
    // The same person again is the same erasure.
    assert!(erase(&house, &["--user", "user-43"], 0).contains(&code));
    house.later(SignedDuration::from_mins(2));
    house.drain().await;
    house.later(SignedDuration::from_mins(11));
    house.drain().await;
    assert_eq!(status(&house, &code).await["status"], "erased");
    assert_eq!(
        erase(&house, &["--user", "user-43", "--dry-run"], 0),
        "nothing is stored of them\n"
    );
    // Other people are left alone.
    assert!(erase(&house, &["--user", "42", "--dry-run"], 0).contains("1 conversations"));
    erase(&house, &[], 2);
    erase(&house, &["--user", "a", "--psid", "1"], 2);
    erase(&house, &["--user", "a", "--page", "1"], 2);
    erase(&house, &["--user", "a", "--braze", "all"], 2);
    house.stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_done_but_for_its_rubbish() {
    let house = House::start(&[]).await;
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"\"218471\",2026-11-29\n\nrubbish\n218472;x\r\n\xff\n218471\n")
        .unwrap();
    let path = file.path().to_str().unwrap();
    let told = erase(&house, &["--meta-list", path], 0);
    let lines: Vec<(&str, &str)> = told.lines().filter_map(|line| line.split_once('\t')).collect();
    assert_eq!(
        lines.iter().map(|(number, _)| *number).collect::<Vec<_>>(),
        ["1", "4", "6"]
    );
    assert_eq!(lines[0].1, lines[2].1, "the same id twice is one erasure");
    house.later(SignedDuration::from_mins(2));
    house.drain().await;
    for (_, code) in lines {
        assert_eq!(status(&house, code).await["status"], "no_match");
    }
    house.stack.stop().await;
}
